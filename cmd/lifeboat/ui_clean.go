package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sync"
	"unicode/utf8"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// cleaner is the last line of defence of what is printed. It takes out secret keys, and
// shows what would steer the terminal as its number, \u001b: names and messages come from
// a bucket, and from whoever can write to it. In JSON that means the same character.
type cleaner struct {
	w   io.Writer
	bar bool // of stderr: a progress bar goes back to the start of its line
}

// ours are the sequences with which the program colours, and clears its progress bar.
var ours = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\x1b\[(?:0|1|2|3[1-7])(?:;1)?m|^\x1b\[K`)
})

func (c cleaner) Write(p []byte) (int, error) {
	if _, err := c.w.Write(c.clean(repo.WithoutSecrets(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c cleaner) clean(p []byte) []byte {
	if !bytes.ContainsFunc(p, func(r rune) bool { return repo.Steers(r) && r != '\n' && r != '\t' }) {
		return p
	}
	var out bytes.Buffer
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if own := ours().Find(p); own != nil {
			n = len(own)
			out.Write(own)
		} else if repo.Steers(r) && r != '\n' && r != '\t' && !(r == '\r' && c.bar) {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.Write(p[:n]) // also half a character, whose rest comes with the next call
		}
		p = p[n:]
	}
	return out.Bytes()
}

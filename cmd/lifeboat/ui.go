package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// ui is how Lifeboat talks.
//
// The rules: results go to stdout and everything else to stderr. With --json
// stdout holds exactly one JSON document, of the result or of the error.
// Progress is a bar on a terminal and a line now and then elsewhere. --quiet
// leaves results of questions, warnings and errors. Colours only on a terminal,
// and not with NO_COLOR. An error is one line of what failed and one hint line
// of what to do next, always with the same prefix, so that logs can be searched.
type ui struct {
	stdout, stderr io.Writer // cleaners
	secrets        io.Writer // stdout for keygen, whose result is one
	json, quiet    bool
	terminal       bool // stderr is one
	colour         bool
	colourOut      bool       // of results: stdout is a terminal too
	width          func() int // of the terminal, in columns

	mu       sync.Mutex // holds stderr together
	progress *progress  // the one that is being shown
	printed  bool       // a JSON document is out
}

func newUI(stdout, stderr *os.File) *ui {
	fd := int(stderr.Fd())
	u := &ui{stdout: cleaner{w: stdout}, stderr: cleaner{w: stderr, bar: true}, secrets: stdout, terminal: term.IsTerminal(fd)}
	u.colour = u.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	u.colourOut = u.colour && term.IsTerminal(int(stdout.Fd()))
	u.width = func() int {
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			return w
		}
		return 80
	}
	return u
}

// result prints the answer to a question: as JSON with --json, else by text.
func (u *ui) result(v any, text func(w io.Writer)) error {
	u.closeProgress()
	if u.json {
		return u.document(v)
	}
	w := &stickyWriter{w: u.stdout}
	text(w)
	if w.err != nil {
		return fmt.Errorf("print the result: %w", w.err)
	}
	return nil
}

// outcome is result for a command that does something: with --quiet the text
// is left out, so that a timer's log holds only what went wrong.
func (u *ui) outcome(v any, text func(w io.Writer)) error {
	if u.quiet && !u.json {
		u.closeProgress()
		return nil
	}
	return u.result(v, text)
}

// document prints the one JSON document of a run.
func (u *ui) document(v any) error {
	enc := json.NewEncoder(u.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	u.printed = true
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// note prints a line of information, unless --quiet.
func (u *ui) note(format string, args ...any) {
	if !u.quiet {
		u.line(oneLine(fmt.Sprintf(format, args...)))
	}
}

// warn prints a warning: something a person should look at that is no error.
func (u *ui) warn(format string, args ...any) {
	u.line(u.paint("lifeboat: warning:", yellow) + " " + oneLine(fmt.Sprintf(format, args...)))
}

// errorReport is the document on stdout when a command with --json fails
// before it has printed a result.
type errorReport struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"code"`
}

// printError prints the error and the hint, each one line.
func (u *ui) printError(msg, hint string, code exitCode) {
	u.closeProgress()
	u.line(u.paint("lifeboat: error:", red) + " " + msg)
	if hint != "" {
		u.line(u.paint("lifeboat: hint:", cyan) + " " + hint)
	}
	if u.json && !u.printed {
		_ = u.document(errorReport{Error: msg, Hint: hint, Code: int(code)})
	}
}

// line writes one whole line to stderr, above the progress bar if there is one.
func (u *ui) line(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.progress != nil {
		u.progress.clear()
	}
	_, _ = io.WriteString(u.stderr, s+"\n")
}

const (
	red    = "31"
	yellow = "33"
	cyan   = "36"
)

func (u *ui) paint(s, colour string) string {
	if !u.colour {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// stickyWriter remembers the first error, so that printing code need not.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), nil
}

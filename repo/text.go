package repo

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// encode64 is unpadded URL-safe base64: it needs no escaping in a header line.
func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode64 accepts exactly what encode64 writes for n bytes. The library also
// takes line breaks in the middle and stray bits at the end.
func decode64(s string, n int) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != n || encode64(b) != s {
		return nil, fmt.Errorf("not %d bytes of base64", n)
	}
	return b, nil
}

// isHex says whether s is n bytes in lower-case hexadecimal digits.
func isHex(s string, n int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == n && strings.ToLower(s) == s
}

const (
	lowerLetters = "abcdefghijklmnopqrstuvwxyz"
	decimals     = "0123456789"
)

// isWord says whether s has from 1 to most characters, begins with one of
// first and goes on with those of rest. Regular expressions for the same, made
// when the program starts, were 0.4 ms of each push.
func isWord(s string, most int, first, rest string) bool {
	if s == "" || len(s) > most || !strings.Contains(first, s[:1]) {
		return false
	}
	return strings.Trim(s[1:], rest) == ""
}

// cleanHost keeps what may stand in a header line.
func cleanHost(host string) string {
	b := []byte(host)
	for i, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			b[i] = '_'
		}
	}
	if len(b) > maxHost {
		b = b[:maxHost]
	}
	if len(b) == 0 {
		return "unknown"
	}
	return string(b)
}

// cleanText makes text from the store fit to be shown on a terminal.
func cleanText(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.Map(func(r rune) rune {
		if Steers(r) || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}

// Steers says whether a character does something to a terminal instead of being shown on
// it: a control character (ECMA-48), or one that changes the order in which others are
// shown (Unicode's Bidi_Control) or ends a line.
func Steers(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r == 0x61c, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}

package postgres

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// CommandLine makes archive_command or restore_command of a program with its
// arguments and of what PostgreSQL fills in, such as "%p". Each word is quoted
// for the shell that the server starts, and a "%" in it, which the server
// would replace, is doubled. The placeholders stand in double quotes: what the
// server puts there needs none (BuildRestoreCommand in common/archive.c), but
// they do no harm.
//
// It fails without a program, and for a control character, which would end a
// line of a configuration file.
func CommandLine(program []string, placeholders ...string) (string, error) {
	if len(program) == 0 {
		return "", errors.New("a command without a program")
	}
	words := make([]string, 0, len(program)+len(placeholders))
	for _, w := range program {
		if strings.ContainsFunc(w, unicode.IsControl) {
			return "", fmt.Errorf("%q cannot stand in a command of the server: it holds a control character", w)
		}
		words = append(words, strings.ReplaceAll(ShellWord(w), "%", "%%"))
	}
	for _, p := range placeholders {
		words = append(words, `"`+p+`"`)
	}
	return strings.Join(words, " "), nil
}

// ShellWord quotes a word for a POSIX shell, where it needs that.
func ShellWord(w string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_-./:=,+@%", r)
	}
	if w != "" && !strings.ContainsFunc(w, func(r rune) bool { return !plain(r) }) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

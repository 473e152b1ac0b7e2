package main

import (
	"fmt"
	"os"
	"strings"
)

// archiveCommand is the archive_command for a configuration: a line for
// /bin/sh in which PostgreSQL replaces %p and %%.
func archiveCommand(config string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's own path: %w", err)
	}
	return fmt.Sprintf(`%s --config %s wal push "%%p"`, shellWord(exe), shellWord(config)), nil
}

// shellWord quotes a word for /bin/sh, and its "%" for PostgreSQL.
func shellWord(s string) string {
	s = strings.ReplaceAll(s, "%", "%%")
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:,@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

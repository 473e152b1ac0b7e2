package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The hint names who may not, and who may: it never sends an account to itself.
func TestDeniedHint(t *testing.T) {
	me := accountName(os.Geteuid())
	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(mine, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	denied := func(path string) error {
		return fmt.Errorf("do a thing: %w", &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission})
	}
	roots := accountName(0)
	for path, want := range map[string]string{
		mine: "this runs as " + me + ", which owns " + mine,
		"/etc/passwd": map[bool]string{
			true:  "this runs as " + me + ", which owns /etc/passwd",
			false: "this runs as " + me + ", and /etc/passwd belongs to " + roots + ": run it as " + roots,
		}[me == roots],
		"/etc/no such directory/x": map[bool]string{
			true:  "this runs as " + me + ", which owns /etc",
			false: "this runs as " + me + ", which may not do that in /etc of " + roots + ": make the directory for it (install -d -o " + me + " /etc/no such directory)",
		}[me == roots],
		"relative": "this runs as " + me + ", which may not do that",
	} {
		code, hint := classify(denied(path))
		if code != exitFailed || !strings.HasPrefix(hint, want) {
			t.Errorf("%s: %d, %q; want a hint that begins with %q", path, code, hint, want)
		}
		if strings.Contains(hint, "run it as "+me) {
			t.Errorf("%s: %q sends the account to itself", path, hint)
		}
	}
}

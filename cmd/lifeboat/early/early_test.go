package early

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A prefetch must hold none of the server's sockets and pipes.
func TestCloseOnExec(t *testing.T) {
	fd, err := syscall.Dup(0) // open over exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	closeOnExec()
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor %d stays open: %x, %v", fd, flags, err)
	}
}

func TestOperands(t *testing.T) {
	for line, want := range map[string]string{
		"wal fetch 000000010000000000000001 pg_wal/RECOVERYXLOG":       "000000010000000000000001 pg_wal/RECOVERYXLOG",
		"--config x wal fetch --identity y 000000010000000000000001 p": "000000010000000000000001 p",
		"wal fetch 000000010000000000000001 p --identity y":            "000000010000000000000001 p",
		"wal fetch 00000002.history pg_wal/RECOVERYHISTORY":            "",
		"wal fetch 000000010000000000000001.partial p":                 "",
		"wal fetch 000000010000000000000001 --json":                    "",
		"wal fetch 000000010000000000000001":                           "",
		"wal fetch":                                                    "",
		"wal":                                                          "",
		"":                                                             "",
		"wal push 000000010000000000000001 p":                          "",
		"fetch 000000010000000000000001 p":                             "",
		"000000010000000000000001 p wal fetch":                         "",
		"-test.run=wal fetch 000000010000000000000001 p":               "",
		"wal --json fetch 000000010000000000000001 p":                  "",
		"restore wal fetch 00000001000000000000000G p 000000010000000000000002 second": "000000010000000000000002 second",
	} {
		name, path, ok := operands(strings.Fields(line))
		if got := name.Segment + " " + path; ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", line, got, ok)
		}
	}
}

// Whatever can change the repository or the keys is another source; the
// operands and the command's own name are not.
func TestSource(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "lifeboat.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a: b\n")
	source := func(line string, env ...string) string {
		args := strings.Fields(line)
		name, path, _ := operands(args)
		return Source(args, env, dir, name.Segment, path)
	}
	base := source("wal fetch --identity k 000000010000000000000001 p", "HOME=/root")
	for _, same := range []string{
		source("wal fetch --identity k 000000010000000000000002 p", "HOME=/"),
		source("wal fetch --identity k 000000010000000000000002 q"),
		Source(strings.Fields("wal prefetch --identity k"), nil, dir),
	} {
		if same != base {
			t.Errorf("%q is not %q", same, base)
		}
	}
	others := []string{base,
		source("wal fetch --identity l 000000010000000000000001 p"),
		source("wal fetch --identity k --standby 000000010000000000000001 p"),
		source("wal fetch --identity k 000000010000000000000001 p", "LIFEBOAT_REPOSITORY=file:///x"),
		source("--config x wal fetch --identity k 000000010000000000000001 p"),
	}
	write("a: c, longer\n")
	others = append(others, source("wal fetch --identity k 000000010000000000000001 p"))
	if slices.Sort(others); len(slices.Compact(others)) != 6 {
		t.Errorf("%d sources: %q", len(slices.Compact(others)), others)
	}
}

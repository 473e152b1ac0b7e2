package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
)

// Whatever code an error has, PostgreSQL must see one that it reads aright.
func TestContractAllows(t *testing.T) {
	for code := exitCode(1); code < 256; code++ {
		push := contractPush.allow(code, false)
		if push < 1 || push > 125 {
			t.Errorf("push exits with %d for %d: outside 1 to 125 the archiver dies", push, code)
		}
		fetch := contractFetch.allow(code, false)
		if fetch <= 125 {
			t.Errorf("fetch exits with %d for %d: PostgreSQL takes 1 to 125 for the end of the archive", fetch, code)
		}
		if proven := contractFetch.allow(code, true); proven != 1 {
			t.Errorf("fetch exits with %d for a proven absence, want 1", proven)
		}
		if user := contractUser.allow(code, false); user != code {
			t.Errorf("code %d became %d", code, user)
		}
	}
	// Where PostgreSQL inherits a prefetch, any other code but 1 is a crash.
	for code := exitCode(0); code < 256; code++ {
		if got := contractPrefetch.allow(code, false); got != exitOK {
			t.Errorf("prefetch exits with %d for %d", got, code)
		}
	}
	if got := contractFetch.allow(exitOK, false); got != exitFetch {
		t.Errorf("fetch exits with %d for an error of code 0, want %d", got, exitFetch)
	}
	if got := contractPush.allow(exitOK, false); got != exitFailed {
		t.Errorf("push exits with %d for an error of code 0, want %d", got, exitFailed)
	}
}

func TestContractOf(t *testing.T) {
	for _, c := range []struct {
		line string
		want contract
	}{
		{"wal fetch 000000010000000000000001 pg_wal/RECOVERYXLOG", contractFetch},
		{"--config /etc/x.yaml wal --json fetch a b", contractFetch},
		{"wal fetsh 000000010000000000000001 pg_wal/RECOVERYXLOG", contractFetch},
		{"fetch 00000002.history pg_wal/RECOVERYHISTORY", contractFetch},
		{"wal push 000000010000000000000001 pg_wal/RECOVERYXLOG", contractFetch},
		{"wal push pg_wal/000000010000000000000001", contractPush},
		{"wal push fetch", contractFetch}, // rather too strict
		{"wal --config /etc/x.yaml prefetch", contractPrefetch},
		{"wal prefetch 000000010000000000000001 pg_wal/RECOVERYXLOG", contractFetch},
		{"wal push prefetch", contractPush},
		{"wal prefetch push", contractPush},
		{"prefetch", contractUser},
		{"wal", contractUser},
		{"backup --json", contractUser},
		{"", contractUser},
	} {
		if got := contractOf(strings.Fields(c.line)); got != c.want {
			t.Errorf("contractOf(%q) = %d, want %d", c.line, got, c.want)
		}
	}
}

func TestClassify(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("do a thing: %w", err) }
	for _, c := range []struct {
		err  error
		code exitCode
		hint string // a part of it
	}{
		{errors.New("unheard of"), exitFailed, ""},
		{wrapped(usage("x").hinted("read it")), exitUsage, "read it"},
		{wrapped(&repo.LeasedError{Name: "backup", Holder: "db1"}), exitBusy, "lifeboat lease status"},
		{wrapped(repo.ErrNoIdentity), exitFailed, "--identity"},
		{wrapped(&repo.OtherKeyError{Err: &repo.UntrustedError{}}), exitFailed, "use the key of that cluster"},
		{wrapped(&repo.UntrustedError{}), exitFailed, "tampered"},
		{wrapped(storage.ErrDenied), exitFailed, "policy"},
		{wrapped(fs.ErrPermission), exitFailed, "postgres"},
		{wrapped(&drill.UnfencedError{Path: "/ts", Reason: "no"}), exitUnknown, "namespaces"},
		{wrapped(&drill.MemoryError{Need: 2, Free: 1}), exitUnknown, "more memory"},
		{wrapped(&drill.StagingError{Path: "/x", Reason: "no"}), exitUnknown, "--staging"},
		{wrapped(&drill.SpaceError{Err: &restore.SpaceError{Need: 2, Free: 1}}), exitUnknown, "--staging"},
		{wrapped(&restore.SpaceError{Need: 2, Free: 1}), exitFailed, "--tablespace"},
		{wrapped(&restore.BackupError{Reason: "no"}), exitFailed, "another backup"},
		{wrapped(&restore.BackupError{Err: &repo.CorruptError{}}), exitFailed, "another backup"},
		{wrapped(&restore.BackupError{Err: wrapped(repo.ErrWrongIdentity)}), exitFailed, "another cluster's recovery key"},
		{wrapped(&restore.BackupError{Err: repo.ErrNoIdentity}), exitFailed, "--identity"},
		{wrapped(&restore.BackupError{Err: storage.ErrUnavailable}), exitFailed, "network, endpoint"},
		{wrapped(&restore.BackupError{Err: storage.ErrDenied}), exitFailed, "policy"},
		{wrapped(&drill.HangError{}), exitMissed, "--keep"},
		{wrapped(&drill.MissingBackupError{Label: "x"}), exitMissed, "lifeboat backups"},
		{wrapped(syscall.ENOSPC), exitFailed, "disk is full"},
		{wrapped(context.DeadlineExceeded), exitFailed, "too long"},
	} {
		code, hint := classify(c.err)
		if code != c.code || !strings.Contains(hint, c.hint) || c.hint == "" && hint != "" {
			t.Errorf("classify(%v) = %d, %q; want %d and a hint with %q", c.err, code, hint, c.code, c.hint)
		}
	}
}

// A row behind one that matches all its errors would never be reached.
func TestFailuresReachable(t *testing.T) {
	for i, f := range failures() {
		if f.code < 1 || f.code > 125 {
			t.Errorf("row %d: exit code %d, want 1 to 125", i, f.code)
		}
	}
	if code, hint := classify(storage.ErrDenied); code != exitFailed || strings.Contains(hint, "mostly postgres") {
		t.Errorf("ErrDenied, which is also fs.ErrPermission, got the hint for files: %q", hint)
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"a\nb":                       "a; b",
		"a\n\n  b \r\n":              "a; b",
		"bell\a and \x1b[31mred":     "bell  and  [31mred",
		"\n":                         "",
		"lifeboat: error: x\nforged": "lifeboat: error: x; forged",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", in, got, want)
		}
	}
}

// A signal ends a command in good order, with the code that a shell gives to
// a program the signal killed; for push, one that the archiver survives.
func TestSignals(t *testing.T) {
	for _, c := range []struct {
		command string
		signal  syscall.Signal
		want    int
	}{
		{"fetch", syscall.SIGTERM, 143}, // RestoreArchivedFile: the startup process leaves quietly
		{"fetch", syscall.SIGINT, 130},
		{"push", syscall.SIGTERM, 1},
		{"push", syscall.SIGINT, 1},
		{"other", syscall.SIGTERM, 143},
		{"other", syscall.SIGINT, 130},
		{"other", syscall.SIGHUP, 129},
	} {
		t.Run(c.command+" "+c.signal.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, servertest.Command(t, "lifeboat-broken"), "wal", c.command, "wait")
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stderr)
			if !lines.Scan() || lines.Text() != "waiting" {
				t.Fatalf("first line %q, want \"waiting\"", lines.Text())
			}
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			var rest []string
			for lines.Scan() {
				rest = append(rest, lines.Text())
			}
			err = cmd.Wait()
			if cmd.ProcessState.ExitCode() != c.want {
				t.Errorf("%v, want exit code %d", err, c.want)
			}
			want := fmt.Sprintf("lifeboat: error: stopped by a signal (%s)", c.signal)
			if len(rest) != 1 || rest[0] != want {
				t.Errorf("stderr %q, want only %q", rest, want)
			}
		})
	}
}

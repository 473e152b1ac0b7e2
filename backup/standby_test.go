package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// standby is a running standby of the server, which streams from it.
func (b *bench) standby(t *testing.T) *servertest.Cluster {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "standby")
	b.BaseBackup(t, dir)
	check(t, os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600))
	conf := fmt.Sprintf("primary_conninfo = '%s'\narchive_mode = off\n", strings.ReplaceAll(b.ConnString(), "'", "''"))
	check(t, os.WriteFile(filepath.Join(dir, "postgresql.auto.conf"), []byte(conf), 0o600))
	return servertest.Open(t, dir, servertest.Options{})
}

// A standby that is promoted while it is backed up gives no backup, and the
// reason is said.
func TestStandbyIsPromotedDuringTheBackup(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	standby := b.standby(t)
	o := b.options()
	o.DataDir, o.Conn, o.WALTimeout = standby.DataDir(), standby.ConnString(), 10*time.Second
	onPhase(&o, "copy", func() {
		standby.Exec(t, "select pg_promote()")
		standby.WaitPromoted(t)
	})
	_, err := backup.Run(context.Background(), b.repo, o)
	if _, ok := errors.AsType[*backup.MismatchError](err); !ok || !strings.Contains(fmt.Sprint(err), "promoted") {
		t.Errorf("got %v, want that the standby was promoted", err)
	}
	labels, err := b.repo.Backups(context.Background())
	check(t, err)
	if len(labels) != 0 {
		t.Errorf("backups %v exist", labels)
	}
}

// A connection that leads to the other server of a pair has the same system
// identifier, and gives no backup: PostgreSQL refuses the label of one server
// with the control file of the other.
func TestPairIsMixedUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	standby := b.standby(t)
	b.Exec(t, "select pg_switch_wal()") // so that the archive has what a standby waits for
	for _, mix := range []struct{ name, dataDir, conn, server string }{
		{"files of the primary", b.DataDir(), standby.ConnString(), "a standby"},
		{"files of the standby", standby.DataDir(), b.ConnString(), "a primary"},
	} {
		t.Run(mix.name, func(t *testing.T) {
			o := b.options()
			o.DataDir, o.Conn, o.WALTimeout = mix.dataDir, mix.conn, 10*time.Second
			onPhase(&o, "wal", func() { b.Exec(t, "select pg_switch_wal()") })
			_, err := backup.Run(context.Background(), b.repo, o)
			if _, ok := errors.AsType[*backup.MismatchError](err); !ok || !strings.Contains(fmt.Sprint(err), mix.server) {
				t.Errorf("got %v, want that the server is %s", err, mix.server)
			}
		})
	}
	labels, err := b.repo.Backups(context.Background())
	check(t, err)
	if len(labels) != 0 {
		t.Errorf("backups %v exist", labels)
	}
	o := b.options() // each of them with its own files can be backed up
	_, err = backup.Run(context.Background(), b.repo, o)
	check(t, err)
	o.DataDir, o.Conn = standby.DataDir(), standby.ConnString()
	onPhase(&o, "wal", func() { b.Exec(t, "select pg_switch_wal()") })
	_, err = backup.Run(context.Background(), b.repo, o)
	check(t, err)

	// What counts is the control file that is stored, last of all.
	other, err := os.ReadFile(filepath.Join(b.DataDir(), postgres.ControlPath))
	check(t, err)
	onPhase(&o, "changes", func() {
		check(t, os.WriteFile(filepath.Join(standby.DataDir(), postgres.ControlPath), other, 0o600))
	})
	_, err = backup.Run(context.Background(), b.repo, o)
	if _, ok := errors.AsType[*backup.MismatchError](err); !ok || !strings.Contains(fmt.Sprint(err), "in production") {
		t.Errorf("got %v, want that the control file that was copied is not the standby's", err)
	}
}

// Two servers of the same system and the same role are told apart by when they
// were started. What postmaster.pid does not say is no objection.
func TestAnotherServerOfTheSameRole(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	path := filepath.Join(b.DataDir(), "postmaster.pid")
	whole, err := os.ReadFile(path)
	check(t, err)
	lines := strings.Split(string(whole), "\n")
	began, err := strconv.ParseInt(lines[2], 10, 64)
	check(t, err)
	for name, c := range map[string]struct {
		start string
		ok    bool
	}{
		"as it is":              {lines[2], true},
		"started earlier":       {strconv.FormatInt(began-600, 10), false},
		"started later":         {strconv.FormatInt(began+600, 10), false},
		"it is not a time":      {"soon", true},
		"the server was slow":   {strconv.FormatInt(began-20, 10), true},
		"the line is not there": {"", true},
	} {
		t.Run(name, func(t *testing.T) {
			said := strings.Join(append(append([]string{}, lines[:2]...), append([]string{c.start}, lines[3:]...)...), "\n")
			if c.start == "" {
				said = lines[0] + "\n"
			}
			check(t, os.WriteFile(path, []byte(said), 0o600))
			defer func() { check(t, os.WriteFile(path, whole, 0o600)) }()
			var warned []string
			o := b.options()
			o.Warn = func(s string) { warned = append(warned, s) }
			_, err := backup.Run(context.Background(), b.repo, o)
			check(t, err)
			if ok := !strings.Contains(strings.Join(warned, "; "), "the server was started at"); ok != c.ok {
				t.Errorf("warned %q, want a warning: %v", warned, !c.ok)
			}
		})
	}
}

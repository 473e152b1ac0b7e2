package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// A standby that is promoted while it is backed up gives no backup, and the
// reason is said.
func TestStandbyIsPromotedDuringTheBackup(t *testing.T) {
	b := newBench(t, servertest.Options{})
	dir := filepath.Join(t.TempDir(), "standby")
	b.BaseBackup(t, dir)
	check(t, os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600))
	conf := fmt.Sprintf("primary_conninfo = '%s'\narchive_mode = off\n", strings.ReplaceAll(b.ConnString(), "'", "''"))
	check(t, os.WriteFile(filepath.Join(dir, "postgresql.auto.conf"), []byte(conf), 0o600))
	standby := servertest.Open(t, dir, servertest.Options{})
	o := b.options()
	o.DataDir, o.Conn, o.WALTimeout = dir, standby.ConnString(), 10*time.Second
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

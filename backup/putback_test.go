package backup_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// The server's machine is put back to its snapshot. There are segments of the
// names that the backup needs, and none of them is its own.
func TestBackupOfServerThatWasPutBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{WALSegmentSize: 1 << 20})
	b.Exec(t, "create table t as select generate_series(1, 1000)")
	b.Stop(t, server.Fast)
	old := b.CopyData(t)
	b.Start(t)
	for range 12 {
		b.Exec(t, "insert into t values (1); select pg_switch_wal()")
	}
	b.run(t)
	b.Stop(t, server.Fast)
	b.takeBack(t, old)
	b.Start(t)
	b.Exec(t, "create table other as select generate_series(1, 1000)")
	o := b.options()
	o.WALTimeout = 20 * time.Second
	_, err := backup.Run(t.Context(), b.repo, o)
	_, archiving := errors.AsType[*backup.ArchivingError](err)
	if _, two := errors.AsType[*wal.TwoPrimariesError](err); !archiving || !two || !strings.Contains(err.Error(), "put back") {
		t.Errorf("got %v", err)
	}
}

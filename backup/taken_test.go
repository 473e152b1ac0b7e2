package backup_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Somebody who can only put takes the name of the note on a system before its first
// backup: that is said, and the backup is taken.
func TestNameOfTheSystemIsTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	key := repo.SystemKey(b.system(t))
	check(t, b.repo.Store().Create(context.Background(), key, bytes.NewReader([]byte("junk\n"))))
	var warned []string
	o := b.options()
	o.Warn = func(s string) { warned = append(warned, s) }
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	if len(warned) != 1 || !strings.Contains(warned[0], key) {
		t.Errorf("warned of %q, not of %s", warned, key)
	}
	if len(b.contents(t, info.Label)) == 0 {
		t.Error("the backup holds nothing")
	}
}

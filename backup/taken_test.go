package backup_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
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

// taking is a store in which somebody takes a name of the first backup that he sees as
// soon as it shows its label.
type taking struct {
	storage.Store
	name string // behind the label
	done string
}

func (s *taking) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if parts := strings.Split(key, "/"); parts[0] == "backups" && s.done == "" {
		s.done = "backups/" + parts[1] + s.name
		if err := s.Store.Create(ctx, s.done, strings.NewReader("junk\n")); err != nil {
			return err
		}
	}
	return s.Store.Create(ctx, key, body)
}

// A name of the backup is taken while it runs: it is taken all the same, under another
// label.
func TestNameOfTheBackupIsTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	for _, name := range []string{"/manifest", "/info", "/adoption"} {
		store := &taking{Store: b.repo.Store(), name: name}
		var warned []string
		o := b.options()
		o.Warn = func(s string) { warned = append(warned, s) }
		info, err := backup.Run(context.Background(), b.over(t, store), o)
		check(t, err)
		if len(warned) != 1 || !strings.Contains(warned[0], store.done) || strings.Contains(store.done, info.Label) {
			t.Errorf("%s: backup %s, warned of %q", store.done, info.Label, warned)
		}
		if len(b.contents(t, info.Label)) == 0 {
			t.Errorf("%s: the backup holds nothing", store.done)
		}
	}
}

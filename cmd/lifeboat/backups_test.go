package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// threeBackups is a repository with three backups of nothing.
func threeBackups(t *testing.T) (*app, *repo.Repo, storage.Store, []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	store, now := mem.New(), time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)
	cluster, err := repo.NewClusterKey("shop", repo.NewID())
	must(err)
	recovery, err := repo.NewRecoveryKey(cluster)
	must(err)
	recipients, err := parseRecipients(recovery.Recipients())
	must(err)
	r, err := repo.Create(t.Context(), store, repo.Keys{Cluster: cluster, Recipients: recipients}, "db1", now)
	must(err)
	var labels []string
	for i := range 3 {
		at := now.AddDate(0, 0, i)
		label := fmt.Sprintf("%s-00000%d", at.Format("20060102T150405Z"), i)
		info := repo.Info{Label: label, System: 1, Timeline: 1, StartLSN: 16<<20 + 40, StopLSN: 16<<20 + 400, StartTime: at, StopTime: at,
			PGVersion: 150000, SegSize: 16 << 20, BlockSize: 8192}
		must(r.NewManifestWriter().Commit(t.Context(), &info, nil))
		labels = append(labels, label)
	}
	a := &app{ui: &ui{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}, now: func() time.Time { return now },
		environ: []string{"STATE_DIRECTORY=" + filepath.Join(t.TempDir(), "lifeboat")}}
	return a, r, store, labels
}

// One object that is damaged hides no backup: neither another one, nor its own
// where the manifest tells what it is.
func TestDamageHidesNoBackup(t *testing.T) {
	a, r, store, labels := threeBackups(t)
	spoil := func(key string) {
		if err := store.Delete(context.Background(), key); err != nil {
			t.Fatal(err)
		}
		if err := store.Create(context.Background(), key, strings.NewReader("garbage")); err != nil {
			t.Fatal(err)
		}
	}
	spoil(repo.InfoKey(labels[0]))
	spoil(repo.InfoKey(labels[1]))
	spoil(repo.ManifestKey(labels[1]))
	l, err := a.gather(t.Context(), &Config{}, r)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range l.list {
		if b.Label != labels[i] || (b.Error != "") != (i == 1) || (b.System == 1) != (i != 1) {
			t.Errorf("%+v", b)
		}
	}
	var text bytes.Buffer
	a.writeListing(l, &text)
	if n := strings.Count(text.String(), "unreadable"); n != 1 || !strings.Contains(text.String(), labels[1]+": it cannot be read: ") {
		t.Errorf("%s", text.String())
	}
}

package wal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// dataDir is a data directory as far as a push looks at one.
type dataDir struct {
	path    string
	content map[string][]byte
	names   []string // in PostgreSQL's order
}

// mixedNames are files of every kind, across the end of a run of names, in
// PostgreSQL's order.
var mixedNames = []string{
	"00000002.history",
	"000000010000000000000FFE",
	"000000010000000000000FFF",
	"000000010000000000000FFF.00000028.backup",
	"000000010000000100000000",
	"000000010000000100000001.partial",
	"000000020000000100000001",
	"000000020000000100000002",
}

func newDataDir(t testing.TB, names ...string) *dataDir {
	t.Helper()
	d := &dataDir{path: t.TempDir(), content: map[string][]byte{}, names: names}
	if err := os.MkdirAll(filepath.Join(d.path, "pg_wal", "archive_status"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		content := fmt.Appendf(nil, "1\t0/%X\tfile %d\n", i+1, i)
		if n := walName(t, name); n.Kind == postgres.WALSegment || n.Kind == postgres.WALPartial {
			content = segmentBytes(segment(t, n.Segment, 1<<20), testSystem, uint64(i))
		}
		d.put(t, name, content)
		d.ready(t, name)
	}
	return d
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, "pg_wal", name) }

func (d *dataDir) memoryFile(name string) string {
	return filepath.Join(d.path, SpoolDir, pushedDir, name)
}

func (d *dataDir) put(t testing.TB, name string, content []byte) {
	t.Helper()
	d.content[name] = content
	if err := os.WriteFile(d.file(name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *dataDir) ready(t testing.TB, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.path, "pg_wal", "archive_status", name+readySuffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// later is a clock by which every file is old enough to be remembered.
func later() time.Time { return time.Now().Add(time.Second) }

func (a *archive) memory(d *dataDir) PushMemory {
	return PushMemory{DataDir: d.path, Repository: a.cluster.Repository, Address: "file:///there", System: testSystem, Now: later}
}

func (a *archive) ahead(d *dataDir) Ahead {
	return Ahead{Memory: a.memory(d), Sealers: 2, Begin: time.Minute, Finish: time.Minute}
}

// pushAhead pushes a file of d as archive_command does.
func (a *archive) pushAhead(t testing.TB, d *dataDir, name string) int {
	t.Helper()
	_, others, err := PushAhead(t.Context(), a.Repo, d.file(name), PushOptions{System: testSystem}, a.ahead(d))
	if err != nil {
		t.Fatal(err)
	}
	return others
}

// has says whether the archive holds the file, and fails when it is another.
func (a *archive) has(t testing.TB, d *dataDir, name string) bool {
	t.Helper()
	key := repo.WALKey(testSystem, walName(t, name))
	if _, err := a.store.Stat(t.Context(), key); err != nil {
		return false
	}
	r := a.open(t, a.store, "db2", a.identity)
	got, _, err := r.ReadEnvelope(t.Context(), key, repo.KindWAL, 1<<21)
	if err != nil || !bytes.Equal(got, d.content[name]) {
		t.Errorf("%s is archived as %d other bytes, %v", name, len(got), err)
	}
	return true
}

// expectTrueMemory makes sure that whatever is remembered is in the archive.
func (a *archive) expectTrueMemory(t testing.TB, d *dataDir) (remembered int) {
	t.Helper()
	for _, name := range d.names {
		if _, known := a.memory(d).Recall(d.file(name)); known {
			remembered++
			if !a.has(t, d, name) {
				t.Errorf("%s is remembered and not archived", name)
			}
		}
	}
	return remembered
}

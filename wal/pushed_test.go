package wal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// What changes a file, or what the memory is about, ends the memory.
func TestPushMemoryIsNeverFalse(t *testing.T) {
	t.Parallel()
	const name, other = "000000010000000000000001", "000000010000000000000002"
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rewrite := func(d *dataDir) {
		info, err := os.Stat(d.file(name))
		check(err)
		check(os.WriteFile(d.file(name), d.content[name], 0o600))
		check(os.Chtimes(d.file(name), info.ModTime(), info.ModTime()))
	}
	tests := map[string]func(d *dataDir, m *PushMemory){
		"another repository": func(_ *dataDir, m *PushMemory) { m.Repository = repo.NewID() },
		"no repository":      func(_ *dataDir, m *PushMemory) { m.Repository = "" },
		"another address":    func(_ *dataDir, m *PushMemory) { m.Address += "/else" },
		"another system":     func(_ *dataDir, m *PushMemory) { m.System++ },
		"too old": func(_ *dataDir, m *PushMemory) {
			m.Now = func() time.Time { return later().Add(pushedAge + time.Second) }
		},
		"a clock set back":                      func(_ *dataDir, m *PushMemory) { m.Now = func() time.Time { return later().Add(-time.Hour) } },
		"written again, with its old time":      func(d *dataDir, _ *PushMemory) { rewrite(d) },
		"longer":                                func(d *dataDir, _ *PushMemory) { check(os.Truncate(d.file(name), 2<<20)) },
		"gone":                                  func(d *dataDir, _ *PushMemory) { check(os.Remove(d.file(name))) },
		"recycled: another file under its name": func(d *dataDir, _ *PushMemory) { check(os.Rename(d.file(other), d.file(name))) },
		"recycled: the same file, renamed there": func(d *dataDir, _ *PushMemory) {
			check(os.Rename(d.file(name), d.file(other)))
			check(os.Rename(d.file(other), d.file(name)))
		},
		"a link to the same file": func(d *dataDir, _ *PushMemory) {
			check(os.Rename(d.file(name), d.file("x")))
			check(os.Symlink("x", d.file(name)))
		},
		"a copied data directory": func(d *dataDir, m *PushMemory) {
			info, err := os.Stat(d.file(name))
			check(err)
			m.DataDir = filepath.Join(t.TempDir(), "copy")
			check(os.CopyFS(m.DataDir, os.DirFS(d.path)))
			d.path = m.DataDir
			check(os.Chtimes(d.file(name), info.ModTime(), info.ModTime()))
		},
		"the memory of another file": func(d *dataDir, _ *PushMemory) { check(os.Rename(d.memoryFile(other), d.memoryFile(name))) },
		"a link instead of a memory": func(d *dataDir, _ *PushMemory) {
			check(os.Rename(d.memoryFile(name), d.memoryFile("x")))
			check(os.Symlink("x", d.memoryFile(name)))
		},
		"no memory": func(d *dataDir, _ *PushMemory) { check(os.Remove(d.memoryFile(name))) },
	}
	for what, change := range tests {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			d := newDataDir(t, name, other)
			a.pushAhead(t, d, name)
			m := a.memory(d)
			if _, known := m.Recall(d.file(name)); !known {
				t.Fatal("it is not remembered at all")
			}
			change(d, &m)
			if _, known := m.Recall(d.file(name)); known {
				t.Error("it is still remembered as durable")
			}
		})
	}
}

// A crash of the machine may leave any part of a memory, or zeros.
func TestTornPushMemory(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	a := newArchive(t, mem.New())
	d := newDataDir(t, name)
	a.pushAhead(t, d, name)
	whole, err := os.ReadFile(d.memoryFile(name))
	if err != nil {
		t.Fatal(err)
	}
	m := a.memory(d)
	recall := func(text []byte) bool {
		if err := os.WriteFile(d.memoryFile(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, known := m.Recall(d.file(name))
		return known
	}
	for i := range whole {
		if recall(whole[:i]) {
			t.Fatalf("the first %d bytes of %d are believed", i, len(whole))
		}
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		if recall(changed) {
			t.Fatalf("with byte %d changed it is believed", i)
		}
		changed[i] = 0
		if recall(changed) {
			t.Fatalf("with byte %d zero it is believed", i)
		}
	}
	if recall(append(bytes.Clone(whole), '\n')) || !recall(whole) {
		t.Error("more than the whole is believed, or the whole is not")
	}
}

// A file that may still change within a tick of the clock, and one that does
// change while it is pushed, are archived and not remembered.
func TestPushMemoryOfChangingFiles(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	a := newArchive(t, mem.New())
	d := newDataDir(t, name)
	ahead := a.ahead(d)
	info, err := os.Stat(d.file(name))
	if err != nil {
		t.Fatal(err)
	}
	ahead.Memory.Now = func() time.Time { return info.ModTime().Add(pushedYoung / 2) }
	if _, _, err := PushAhead(t.Context(), a.Repo, d.file(name), PushOptions{System: testSystem}, ahead); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(d.memoryFile(name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was just written to is remembered: %v", err)
	}

	touching := &hookStore{Store: a.store, before: func(context.Context, string) error {
		now := time.Now()
		return os.Chtimes(d.file(name), now, now)
	}}
	r := a.open(t, touching, "db1")
	if _, _, err := PushAhead(t.Context(), r, d.file(name), PushOptions{System: testSystem}, a.ahead(d)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(d.memoryFile(name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that changed while it was stored is remembered: %v", err)
	}
}

// What a killed push was writing is removed, and not while it may be written.
func TestPushMemoryLeftovers(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	a := newArchive(t, mem.New())
	d := newDataDir(t, name)
	a.pushAhead(t, d, name)
	for left, age := range map[string]time.Duration{"old": time.Hour, "young": 0} {
		path := d.memoryFile(pushedTemp + left)
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	a.pushAhead(t, d, name)
	_, old := os.Lstat(d.memoryFile(pushedTemp + "old"))
	_, young := os.Lstat(d.memoryFile(pushedTemp + "young"))
	if !errors.Is(old, os.ErrNotExist) || young != nil {
		t.Errorf("old: %v, young: %v", old, young)
	}
}

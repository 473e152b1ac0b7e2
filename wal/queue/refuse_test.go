package queue

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Whatever is not the whole, genuine segment of this server is not used.
func TestQueueRefuses(t *testing.T) {
	fresh := func(t *testing.T) *recovering {
		r := newRecovering(t, "000000010000000000000001", 3, 1<<20)
		r.asked(t, r.names[0], true)
		if n, err := r.fill(atOnce); n != 2 || err != nil {
			t.Fatalf("%d fetched, %v", n, err)
		}
		return r
	}
	second := func(r *recovering) string { return filepath.Join(r.dir, r.names[1]) }
	for what, damage := range map[string]func(*recovering) error{
		"a byte less": func(r *recovering) error { return os.Truncate(second(r), 1<<20-1) },
		"a page less": func(r *recovering) error { return os.Truncate(second(r), 1<<20-8192) },
		"nothing":     func(r *recovering) error { return os.Truncate(second(r), 0) },
		"too much":    func(r *recovering) error { return os.Truncate(second(r), 2<<20) },
		"the next":    func(r *recovering) error { return os.Rename(filepath.Join(r.dir, r.names[2]), second(r)) },
		"another system's": func(r *recovering) error {
			return os.WriteFile(second(r), segmentBytes(segment(t, r.names[1], 1<<20), testSystem+1), 0o600)
		},
		"another size": func(r *recovering) error {
			seg := segment(t, r.names[1], 2<<20)
			return os.WriteFile(second(r), segmentBytes(seg, testSystem), 0o600)
		},
		"a directory": func(r *recovering) error { return errors.Join(os.Remove(second(r)), os.Mkdir(second(r), 0o700)) },
	} {
		r := fresh(t)
		if err := damage(r); err != nil {
			t.Fatal(err)
		}
		took, _, err := r.take(t, r.names[1])
		if _, ok := errors.AsType[*DamagedError](err); !ok || took {
			t.Errorf("%s: taken: %v, %v", what, took, err)
		}
		if _, err := os.Lstat(second(r)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", what, err)
		}
	}
	for off := range postgres.SegmentHeaderSize { // every bit that the header's check can see
		r := fresh(t)
		flipped := slices.Clone(r.content[r.names[1]])
		flipped[off] ^= 1
		if _, err := postgres.CheckSegment(r.names[1], 1<<20, flipped[:postgres.SegmentHeaderSize]); err == nil {
			continue // as the flags and the length of a record's rest
		}
		if err := os.WriteFile(second(r), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if took, _, err := r.take(t, r.names[1]); took || err == nil {
			t.Errorf("a bit of byte %d flipped: taken: %v, %v", off, took, err)
		}
	}
	r := fresh(t)
	if err := errors.Join(os.Remove(second(r)), os.Symlink(filepath.Join(r.dir, r.names[2]), second(r))); err != nil {
		t.Fatal(err)
	}
	if took, _, _ := r.take(t, r.names[1]); took {
		t.Error("a symbolic link was taken")
	}
}

// Neither another source, nor a copy of the data directory, nor another system
// in the same directory uses what was fetched.
func TestQueueIsOneServers(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 3, 1<<20)
	r.asked(t, r.names[0], true)
	if _, err := queueOf(t, r.dataDir, 1<<20, "elsewhere").Fill(context.Background(), nil, 0); err != nil { // it must not come to open
		t.Error(err)
	}
	if _, err := r.fill(atOnce); err != nil {
		t.Fatal(err)
	}
	twin := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(twin, os.DirFS(r.dataDir)); err != nil {
		t.Fatal(err)
	}
	other, err := New(r.dataDir, postgres.ControlFile{SystemID: testSystem + 1, WALSegmentSize: 1 << 20}, "here")
	if err != nil {
		t.Fatal(err)
	}
	for what, q := range map[string]*Queue{
		"a copy":         queueOf(t, twin, 1<<20, "here"),
		"another source": queueOf(t, r.dataDir, 1<<20, "elsewhere"),
		"another system": other,
	} {
		dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		if took, _, err := q.Take(context.Background(), walName(t, r.names[1]), dest); took || err != nil {
			t.Errorf("%s: taken: %v, %v", what, took, err)
		}
		if _, err := q.Fill(context.Background(), nil, 0); err != nil { // it must not come to open
			t.Errorf("%s: %v", what, err)
		}
	}
	if took, _, err := r.take(t, r.names[1]); !took || err != nil {
		t.Errorf("its own: taken: %v, %v", took, err)
	}
	q := queueOf(t, r.dataDir, 1<<20, "elsewhere")
	if fill, err := q.Asked(walName(t, r.names[0]), true); !fill || err != nil {
		t.Errorf("fill %v, %v", fill, err)
	}
	if files := r.files(t); len(files) > 0 {
		t.Errorf("another source's segments stayed: %v", files)
	}
}

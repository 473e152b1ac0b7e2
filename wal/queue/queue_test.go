package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
)

const testSystem postgres.SystemID = 7300000000000000001

var (
	segment = waltest.Segment
	walName = waltest.Name
)

func segmentBytes(seg postgres.Segment, system postgres.SystemID) []byte {
	return waltest.SegmentBytes(seg, system, 1)
}

// recovering is a data directory with a queue, and what is archived.
type recovering struct {
	*Queue
	content map[string][]byte // by name
	names   []string
}

// newRecovering archives n segments of a size from first on.
func newRecovering(t testing.TB, first string, n int, size postgres.SegmentSize) *recovering {
	t.Helper()
	r := &recovering{content: map[string][]byte{}}
	seg := segment(t, first, size)
	for range n {
		r.content[seg.Name()] = segmentBytes(seg, testSystem)
		r.names = append(r.names, seg.Name())
		seg = seg.Next()
	}
	r.Queue = queueOf(t, t.TempDir(), size, "here")
	return r
}

func queueOf(t testing.TB, dataDir string, size postgres.SegmentSize, source string) *Queue {
	t.Helper()
	q, err := New(dataDir, postgres.ControlFile{SystemID: testSystem, WALSegmentSize: size}, source)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (r *recovering) asked(t testing.TB, name string, waited bool) (fill bool) {
	t.Helper()
	fill, err := r.Asked(walName(t, name), waited)
	if err != nil {
		t.Fatal(err)
	}
	return fill
}

// fill fills the queue from what is archived; before is called with each name.
func (r *recovering) fill(before func(string)) (int, error) {
	source := func(_ context.Context, name postgres.WALName, to *os.File) error {
		before(name.Segment)
		content, ok := r.content[name.Segment]
		if !ok {
			return fs.ErrNotExist
		}
		_, err := to.Write(content)
		return err
	}
	return r.Fill(context.Background(), func(context.Context) (Source, error) { return source, nil }, 0)
}

func atOnce(string) {}

// take takes a segment and makes sure that it is the archived one.
func (r *recovering) take(t testing.TB, name string) (took, waited bool, err error) {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	took, waited, err = r.Take(context.Background(), walName(t, name), dest)
	got, readErr := os.ReadFile(dest)
	switch {
	case took && err != nil:
		t.Errorf("%s: taken with an error: %v", name, err)
	case took && !bytes.Equal(got, r.content[name]):
		t.Errorf("%s: %d other bytes were handed over: %v", name, len(got), readErr)
	case !took && !errors.Is(readErr, fs.ErrNotExist):
		t.Errorf("%s: not taken, and there is a file: %v", name, readErr)
	}
	return took, waited, err
}

// files are the segments and parts in the queue.
func (r *recovering) files(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != askedFile && e.Name() != fillingLock {
			names = append(names, e.Name())
		}
	}
	return names
}

// expectEmpty makes sure that nothing at all is left of the queue.
func (r *recovering) expectEmpty(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(r.dir))
	if len(entries) > 0 || notThere(err) != nil {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// Recovery through the queue, with all sizes and over the end of a run of
// names, gets every segment as it was archived; the window grows when
// PostgreSQL waits, and is bounded.
func TestQueueFeedsRecovery(t *testing.T) {
	for _, c := range []struct {
		first string
		size  postgres.SegmentSize
		n     int
		limit int
	}{
		{"0000000100000000000000F8", 16 << 20, 12, 16}, // ends at FF
		{"000000010000000000000FE0", 1 << 20, 80, 64},  // ends at FFF
		{"00000001000000070000003D", 64 << 20, 6, 4},   // ends at 3F
	} {
		t.Run(fmt.Sprint(int64(c.size)>>20, " MiB"), func(t *testing.T) {
			r := newRecovering(t, c.first, c.n, c.size)
			if r.limit() != c.limit {
				t.Errorf("at most %d segments, want %d", r.limit(), c.limit)
			}
			ahead := 0
			for i, name := range r.names {
				took, _, err := r.take(t, name)
				if err != nil || took != (i > 0) {
					t.Fatalf("%s: taken: %v, %v", name, took, err)
				}
				if !r.asked(t, name, i < 7) {
					continue
				}
				if _, err := r.fill(atOnce); err != nil {
					t.Fatal(err)
				}
				files := r.files(t)
				if !slices.Equal(files, r.names[i+1:min(len(r.names), i+1+len(files))]) {
					t.Fatalf("after %s the queue holds %v", name, files)
				}
				ahead = max(ahead, len(files))
			}
			if want := min(c.limit, c.n-6, 32); ahead < want || ahead > c.limit {
				t.Errorf("at most %d segments were ahead, the limit is %d", ahead, c.limit)
			}
			if err := r.Clear(); err != nil {
				t.Error(err)
			}
			r.expectEmpty(t)
		})
	}
}

func TestQueueWindow(t *testing.T) {
	for size, want := range map[postgres.SegmentSize]int{1 << 20: 64, 4 << 20: 64, 16 << 20: 16, 64 << 20: 4, 1 << 30: 1} {
		if got := queueOf(t, t.TempDir(), size, "here").limit(); got != want {
			t.Errorf("segments of %d bytes: at most %d, want %d", size, got, want)
		}
	}
	r := newRecovering(t, "000000010000000000000001", 1, 1<<20)
	window := func() int {
		a, err := r.readAsked()
		if err != nil {
			t.Fatal(err)
		}
		return a.window
	}
	for _, step := range []struct {
		name   string
		waited bool
		fill   bool
		window int
	}{
		{"000000010000000000000010", true, true, 2},  // the checkpoint's
		{"00000001000000000000000C", true, false, 2}, // earlier: where redo begins
		{"00000001000000000000000C", true, false, 2}, // the same again
		{"00000001000000000000000D", true, true, 4},  // recovery goes on
		{"00000001000000000000000E", true, true, 8},
		{"00000001000000000000000F", false, true, 16}, // nothing is ahead
		{"000000010000000000000020", false, true, 2},  // a leap
		{"000000020000000000000021", true, true, 2},   // another timeline
	} {
		if fill := r.asked(t, step.name, step.waited); fill != step.fill || window() != step.window {
			t.Errorf("%s, waited %v: fill %v with a window of %d, want %v with %d", step.name, step.waited, fill, window(), step.fill, step.window)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, askedFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fill := r.asked(t, "000000020000000000000022", false); !fill || window() != 2 {
		t.Errorf("after a torn line: fill %v with a window of %d", fill, window())
	}
}

// What recovery has passed, by a leap or because it fetched it itself, goes.
func TestAskedRemovesWhatIsPassed(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 5, 1<<20)
	r.asked(t, r.names[0], true)
	if _, err := r.fill(atOnce); err != nil {
		t.Fatal(err)
	}
	r.asked(t, r.names[1], true)
	if files := r.files(t); !slices.Equal(files, r.names[2:3]) {
		t.Errorf("after %s the queue holds %v", r.names[1], files)
	}
	r.asked(t, "000000010000000000000000", true) // far from it
	r.asked(t, "000000010000000000000FF0", true)
	if files := r.files(t); len(files) > 0 {
		t.Errorf("after a leap the queue holds %v", files)
	}
}

func TestFillLeavesRoom(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 3, 1<<20)
	r.asked(t, r.names[0], true)
	n, err := r.Fill(context.Background(), nil, 1<<60)
	if n != 0 || err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("%d fetched, %v", n, err)
	}
}

// A queue that cannot be written is no queue.
func TestQueueThatCannotBe(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 1, 1<<20)
	if err := os.WriteFile(filepath.Join(r.dataDir, SpoolDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if took, _, err := r.take(t, r.names[0]); took || err == nil {
		t.Errorf("taken: %v, %v", took, err)
	}
	if fill, err := r.Asked(walName(t, r.names[0]), true); fill || err == nil {
		t.Errorf("fill %v, %v", fill, err)
	}
}

// pg_wal may be on another file system.
func TestTakeAcrossFileSystems(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "lifeboat-test-")
	if err != nil {
		t.Skip("there is no second file system to write to: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	r := newRecovering(t, "000000010000000000000001", 3, 1<<20)
	r.asked(t, r.names[0], true)
	if _, err := r.fill(atOnce); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(other, "RECOVERYXLOG")
	took, _, err := r.Take(context.Background(), walName(t, r.names[1]), dest)
	got, readErr := os.ReadFile(dest)
	if !took || err != nil || !bytes.Equal(got, r.content[r.names[1]]) {
		t.Errorf("taken: %v, %v; %d bytes, %v", took, err, len(got), readErr)
	}
	if files := r.files(t); !slices.Equal(files, r.names[2:]) {
		t.Errorf("the queue holds %v", files)
	}
}

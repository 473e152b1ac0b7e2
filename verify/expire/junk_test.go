package expire_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

func (w *world) segmentKey(tl postgres.Timeline, no int) string {
	name, err := postgres.ParseWALName(postgres.Segment{Timeline: tl, No: uint64(no), Size: seg}.Name())
	w.check(err)
	return repo.WALKey(system, name)
}

// replace puts bytes in the place of an object, as old as that was.
func (w *world) replace(key, raw string) {
	made := w.store.made[key]
	w.check(w.store.Delete(context.Background(), key))
	w.check(w.store.Create(context.Background(), key, strings.NewReader(raw)))
	w.store.made[key] = made
}

func (w *world) raw(key string) string {
	rc, err := w.store.Open(context.Background(), key, 0, -1)
	w.check(err)
	raw, err := io.ReadAll(rc)
	w.check(err)
	w.check(rc.Close())
	return string(raw)
}

// A backup whose WAL is something else is not found restorable: the newest that is
// stays, with all WAL after it.
func TestRunOverJunk(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	labels := []string{first.backup(20, 100, ""), first.backup(10, 110, ""), first.backup(3, 120, "")}
	elsewhere := newWorld(t)
	elsewhere.wal(1, 121, 121)
	for name, junk := range map[string]string{
		"junk":                       "junk",
		"junk of the same length":    strings.Repeat("x", len(first.raw(first.segmentKey(1, 121)))),
		"another segment":            first.raw(first.segmentKey(1, 119)),
		"one of another repository":  elsewhere.raw(elsewhere.segmentKey(1, 121)),
		"the header alone is signed": strings.SplitAfter(first.raw(first.segmentKey(1, 121)), "\n")[0],
	} {
		t.Run(name, func(t *testing.T) {
			w := first.fork(t)
			w.replace(w.segmentKey(1, 121), junk)
			res, err := w.expire(w.store, expire.Policy{KeepLast: 1}, false)
			w.check(err)
			if got := w.labels(); !slices.Equal(got, labels[1:]) || res.Plan.Decisions[0].Broken == nil {
				t.Errorf("%v are left, not %v; of the newest: %v", got, labels[1:], res.Plan.Decisions[0].Broken)
			}
			if _, err := w.store.Stat(t.Context(), w.segmentKey(1, 115)); err != nil {
				t.Errorf("the WAL after the newest that is restorable: %v", err)
			}
		})
	}
}

// Junk under the names of a timeline neither keeps backups nor makes the real one look
// as if it were over.
func TestRunOverATimelineOfJunk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	labels := []string{w.backup(20, 100, ""), w.backup(10, 110, ""), w.backup(9, 130, "")}
	w.at(8, func() { // a restore to before the newest backup; nothing has been written since
		history := fmt.Sprintf("1\t%s\tx\n", postgres.LSN(115*seg))
		_, err := w.repo.CreateEnvelope(t.Context(), repo.WALKey(system, postgres.WALName{Kind: postgres.WALHistory, Timeline: 2}), repo.KindWAL,
			strings.NewReader(history), int64(len(history)))
		w.check(err)
		w.wal(2, 115, 117)
	})
	w.at(0, func() {
		w.check(w.store.Create(t.Context(), w.segmentKey(9, 200), strings.NewReader("junk")))
		w.check(w.store.Create(t.Context(), repo.WALKey(system, postgres.WALName{Kind: postgres.WALHistory, Timeline: 9}), strings.NewReader("junk")))
	})
	_, err := w.expire(w.store, expire.Policy{KeepLast: 1}, false)
	w.check(err)
	if got := w.labels(); !slices.Equal(got, labels[1:]) {
		t.Errorf("%v are left, not %v", got, labels[1:])
	}
}

// sleeping is a store in which one object is listed and cannot be read, as one that a
// lifecycle rule has put to sleep.
type sleeping struct {
	storage.Store
	key string
}

func (s sleeping) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if key == s.key {
		return nil, fmt.Errorf("open %s: %w", key, storage.ErrDenied)
	}
	return s.Store.Open(ctx, key, off, n)
}

// What is only listed proves nothing, and the backup stays.
func TestRunOverUncheckedWAL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	labels := []string{w.backup(20, 100, ""), w.backup(10, 110, ""), w.backup(3, 120, "")}
	res, err := w.expire(sleeping{w.store, w.segmentKey(1, 121)}, expire.Policy{KeepLast: 1}, false)
	w.check(err)
	if got := w.labels(); !slices.Equal(got, labels[1:]) || !slices.Contains(res.Plan.Decisions[0].Why, "it is not known whether its WAL is archived") {
		t.Errorf("%v are left, not %v: %q", got, labels[1:], res.Plan.Decisions[0].Why)
	}
}

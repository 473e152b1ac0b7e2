package check_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// Checks of every hour do not hide the weekly one that read every byte.
func TestSummariesGoBackToAFullRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began := s.now.Add(-48 * time.Hour)
	for i := range 40 {
		at := began.Add(time.Duration(i) * time.Hour)
		res := &check.Result{Began: at, Ended: at.Add(time.Second)}
		s.check(check.Record(t.Context(), s.repo, res, check.Options{Read: i == 5 || i == 10}))
	}
	all, err := check.Summaries(t.Context(), s.repo)
	s.check(err)
	if oldest := all[len(all)-1]; len(all) != 30 || !oldest.Read || !oldest.Began.Equal(began.Add(10*time.Hour)) {
		t.Errorf("%d summaries, the oldest %+v", len(all), oldest)
	}
}

// killed is a store for a check that is killed when it has read so many packs:
// from then on nothing of it gets there.
type killed struct {
	storage.Store
	left atomic.Int32
	stop func() // called then
}

func (k *killed) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(key, repo.PacksPrefix) && k.left.Add(-1) == 0 {
		k.stop()
	}
	if k.left.Load() <= 0 {
		return nil, storage.ErrUnavailable
	}
	return k.Store.Open(ctx, key, off, n)
}

func (k *killed) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if k.left.Load() <= 0 {
		return storage.ErrUnavailable
	}
	return k.Store.Create(ctx, key, body)
}

// Names that anybody can put behind those of checks do not hide them.
func TestSummariesBesideJunk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.check(check.Record(t.Context(), s.repo, &check.Result{Began: s.now, Ended: s.now}, check.Options{Read: true}))
	for n := range 250 {
		key := repo.CheckSummaryKey(fmt.Sprintf("20990131T020000Z-%08x", n))
		s.check(s.store.Create(t.Context(), key, strings.NewReader("junk")))
	}
	all, err := check.Summaries(t.Context(), s.repo)
	if err != nil || len(all) != 1 {
		t.Errorf("%d summaries, %v", len(all), err)
	}
}

// A check that is killed has noted what it read up to minutes before; one that
// is stopped, all. Each pack takes a minute here.
func TestGoingOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kill bool
		want int64 // packs that are not read again
	}{"killed": {true, 12}, "stopped": {false, 13}} {
		s := newSite(t)
		s.wal(1, 3, 4)
		s.backup(day, 3, 20)
		clock := s.now
		o := check.Options{Read: true, Jobs: 1, Now: func() time.Time { clock = clock.Add(time.Minute); return clock }}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		k := &killed{Store: s.store, stop: cancel}
		k.left.Store(14)
		r := s.open(k, s.keys)
		if !c.kill {
			r, k.stop = s.open(&stopped{k}, s.keys), cancel
		}
		if _, err := check.Run(ctx, r, o); err == nil {
			t.Fatalf("%s: it came to its end", name)
		}
		o.Since = s.now.Add(-time.Hour)
		res := s.run(o)
		if res.Skipped.Objects != c.want || res.Read.Objects != 22-c.want || len(res.Findings) != 0 {
			t.Errorf("%s: %+v left out, %+v read, %v", name, res.Skipped, res.Read, found(res))
		}
	}
}

// stopped is a killed store that still takes what is noted.
type stopped struct{ *killed }

func (s *stopped) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	return s.Store.Create(ctx, key, body)
}

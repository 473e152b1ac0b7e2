package check_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// replace puts other bytes of the same size under a key.
func (s *site) replace(key string) {
	s.t.Helper()
	rc, err := s.store.Open(s.t.Context(), key, 0, -1)
	s.check(err)
	raw, err := io.ReadAll(rc)
	s.check(err)
	s.check(rc.Close())
	s.check(s.store.Delete(s.t.Context(), key))
	s.check(s.store.Create(s.t.Context(), key, bytes.NewReader(bytes.Repeat([]byte("x"), len(raw)))))
}

func segmentKey(t *testing.T, no uint64) string {
	x := postgres.Segment{Timeline: 1, No: no, Size: seg}
	return repo.WALKey(system, waltest.Name(t, x.Name()))
}

// An object that was stored again after it was read is read again.
func TestSinceReadsWhatWasStoredAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 6)
	_, packs := s.backup(day, 3, 3)
	since := time.Now()
	first := s.run(check.Options{Read: true, Now: time.Now})
	if len(first.Findings) != 0 || first.Recorded == "" {
		t.Fatalf("%v, recorded %q", found(first), first.Recorded)
	}
	again := check.Options{Read: true, Now: time.Now, Since: since}
	if res := s.run(again); res.Skipped.Objects != first.Read.Objects || len(res.Findings) != 0 {
		t.Fatalf("unchanged: %+v left out of %+v, %v", res.Skipped, first.Read, found(res))
	}
	s.replace(packs[1])
	if res := s.run(again); !slices.Equal(found(res), []string{"pack-damaged " + packs[1]}) {
		t.Errorf("a pack: %v", found(res))
	}
	// Nor does it help to store the records again.
	for o, err := range s.store.List(t.Context(), repo.ChecksPrefix) {
		s.check(err)
		rc, err := s.store.Open(t.Context(), o.Key, 0, -1)
		s.check(err)
		raw, err := io.ReadAll(rc)
		s.check(err)
		s.check(s.store.Delete(t.Context(), o.Key))
		s.check(s.store.Create(t.Context(), o.Key, bytes.NewReader(raw)))
	}
	if res := s.run(again); !slices.Equal(found(res), []string{"pack-damaged " + packs[1]}) {
		t.Errorf("a pack, and the records stored again: %v", found(res))
	}
}

// S3 tells times by the second: what was stored again in the very second in which the check
// began that read it is read again.
func TestSinceReadsWhatWasStoredInTheSameSecond(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t, s3test.Options{})
	store, err := s3.New(t.Context(), s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint, PathStyle: true, Prefix: "main"})
	if err != nil {
		t.Fatal(err)
	}
	s := newSiteOn(t, store)
	s.wal(1, 3, 6)
	_, packs := s.backup(day, 3, 2)
	stored := func(key string, at time.Time) {
		t.Helper()
		s.check(os.Chtimes(filepath.Join(server.Data, "main", filepath.FromSlash(key)), at, at))
	}
	for o, err := range store.List(t.Context(), "") {
		s.check(err)
		stored(o.Key, time.Now().Add(-time.Minute))
	}
	since := time.Now()
	first := s.run(check.Options{Read: true, Now: time.Now})
	again := check.Options{Read: true, Now: time.Now, Since: since}
	if res := s.run(again); len(first.Findings) != 0 || res.Skipped.Objects != first.Read.Objects || first.Read.Objects == 0 {
		t.Fatalf("unchanged: %v; %+v left out of %+v", found(first), res.Skipped, first.Read)
	}
	began, err := store.Stat(t.Context(), strings.TrimSuffix(first.Recorded, "/")+"/part-000001")
	s.check(err)
	s.replace(packs[1])
	stored(packs[1], began.ModTime.Truncate(time.Second))
	if res := s.run(again); !slices.Equal(found(res), []string{"pack-damaged " + packs[1]}) || res.Skipped.Objects != first.Read.Objects-1 {
		t.Errorf("%v, %+v left out of %+v", found(res), res.Skipped, first.Read)
	}
}

// Junk under the name of a segment is a finding without reading all of it, and no
// WAL, whatever its size.
func TestJunkUnderTheNamesOfSegments(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*site)
		want  []uint64
	}{
		"the next three names": {func(s *site) {
			for no := uint64(7); no <= 9; no++ {
				s.check(s.store.Create(t.Context(), segmentKey(t, no), strings.NewReader("junk")))
			}
		}, []uint64{7, 8, 9}},
		"the middle, of the same size": {func(s *site) { s.replace(segmentKey(t, 5)) }, []uint64{5}},
		"another segment": {func(s *site) {
			rc, err := s.store.Open(t.Context(), segmentKey(t, 6), 0, -1)
			s.check(err)
			raw, err := io.ReadAll(rc)
			s.check(err)
			s.check(s.store.Create(t.Context(), segmentKey(t, 7), bytes.NewReader(raw)))
		}, []uint64{7}},
		"the header alone": {func(s *site) {
			rc, err := s.store.Open(t.Context(), segmentKey(t, 5), 0, -1)
			s.check(err)
			raw, err := io.ReadAll(rc)
			s.check(err)
			s.check(s.store.Delete(t.Context(), segmentKey(t, 5)))
			s.check(s.store.Create(t.Context(), segmentKey(t, 5), bytes.NewReader(raw[:bytes.IndexByte(raw, '\n')+1])))
		}, []uint64{5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.wal(1, 3, 6)
			label, _ := s.backup(day, 3, 1)
			c.spoil(s)
			res := s.run(check.Options{})
			var want []string
			for _, no := range c.want {
				want = append(want, "wal-damaged "+segmentKey(t, no))
			}
			if !slices.Equal(found(res), want) || !slices.Contains(res.Findings[0].Backups, label) {
				t.Errorf("%v, want %v", found(res), want)
			}
		})
	}
}

package check_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

const (
	system = postgres.SystemID(7000000000000000001)
	seg    = 1 << 20
)

// site is a repository to check, and all keys to it.
type site struct {
	t     testing.TB
	store storage.Store
	repo  *repo.Repo
	keys  repo.Keys
	now   time.Time
}

func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteOn(t, mem.New())
}

// newSiteOn is a site in a store that is empty.
func newSiteOn(t testing.TB, store storage.Store) *site {
	t.Helper()
	s := &site{t: t, store: store, now: time.Now().UTC().Truncate(time.Second)}
	cluster, err := repo.NewClusterKey("shop", repo.NewID())
	s.check(err)
	recovery, err := repo.NewRecoveryKey(cluster)
	s.check(err)
	s.keys = repo.Keys{Cluster: cluster, Identities: recovery.Identities, Trusted: recovery.Signers}
	for _, text := range recovery.Recipients() {
		r, err := repo.ParseRecipient(text)
		s.check(err)
		s.keys.Recipients = append(s.keys.Recipients, r)
	}
	s.repo, err = repo.Create(t.Context(), s.store, s.keys, "db1", s.now)
	s.check(err)
	s.check(s.repo.RegisterSystem(t.Context(), system, []byte("{}")))
	return s
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// open opens a store with some of the keys.
func (s *site) open(store storage.Store, keys repo.Keys) *repo.Repo {
	s.t.Helper()
	r, err := repo.Open(s.t.Context(), store, keys, "checker")
	s.check(err)
	return r
}

// wal archives the segments from first to last.
func (s *site) wal(tl postgres.Timeline, first, last uint64) {
	s.t.Helper()
	for no := first; no <= last; no++ {
		x := postgres.Segment{Timeline: tl, No: no, Size: seg}
		s.put(waltest.Name(s.t, x.Name()), waltest.SegmentBytes(x, system, 1))
	}
}

func (s *site) put(name postgres.WALName, raw []byte) {
	s.t.Helper()
	_, err := s.repo.CreateEnvelope(s.t.Context(), repo.WALKey(system, name), repo.KindWAL, bytes.NewReader(raw), int64(len(raw)))
	s.check(err)
}

// backup commits a backup of timeline 1 from the segment first to the one after
// it, with n packs of one file each, and returns their keys.
func (s *site) backup(ago time.Duration, first uint64, n int) (label string, packs []string) {
	s.t.Helper()
	ctx := s.t.Context()
	stop := s.now.Add(-ago)
	label = fmt.Sprintf("%s-%06x", stop.Format("20060102T150405Z"), first)
	m := s.repo.NewManifestWriter()
	w, err := s.repo.NewPackWriter(repo.NewPackBuffers(1), repo.Fastest)
	s.check(err)
	var files []repo.FileEntry
	for i := range n {
		raw := []byte(fmt.Sprint(label, i))
		ref, err := w.Add(ctx, raw)
		s.check(err)
		p, err := w.Finish()
		s.check(err)
		s.check(s.repo.StorePack(ctx, p))
		s.check(m.Add(repo.PackEntry{PackRef: p.PackRef, Frames: []repo.FrameEntry{{FrameRef: ref, To: []repo.Span{{File: i, Len: len(raw)}}}}}))
		packs = append(packs, repo.PackKey(p.ID))
		p.Release()
		files = append(files, repo.FileEntry{Type: repo.Regular, Path: fmt.Sprintf("base/%d", i), Mode: 0o600, Size: int64(len(raw))})
	}
	info := repo.Info{Label: label, System: system, Timeline: 1, StartLSN: postgres.LSN(first*seg + 40), StopLSN: postgres.LSN((first+1)*seg + 80),
		StartTime: stop, StopTime: stop, PGVersion: 150000, SegSize: seg, BlockSize: 8192, Source: "db1"}
	s.check(m.Commit(ctx, &info, files))
	return label, packs
}

// run checks the repository with all keys.
func (s *site) run(o check.Options) *check.Result {
	s.t.Helper()
	return s.runOn(s.repo, o)
}

func (s *site) runOn(r *repo.Repo, o check.Options) *check.Result {
	s.t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return s.now }
	}
	res, err := check.Run(s.t.Context(), r, o)
	s.check(err)
	return res
}

// found are the codes and objects of the findings.
func found(res *check.Result) []string {
	out := []string{}
	for _, f := range res.Findings {
		out = append(out, fmt.Sprintf("%s %s", f.Code, f.Object))
	}
	return out
}

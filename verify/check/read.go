package check

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// reader is the part of a check that reads objects.
type reader struct {
	*work
	record *recorder
	done   int64 // bytes

	packs   repo.PackSet // those to read
	seed    maphash.Seed
	opened  map[int][]uint32 // frames that were opened of a pack, as hashes
	readers chan *repo.PackReader
}

// archiveObject is an object of the archive to read, or a block summary.
type archiveObject struct {
	system postgres.SystemID // 0: a block summary
	key    string
	size   int64
}

// read reads what was chosen, several objects at a time: 32 MiB of memory each
// at most.
func (w *work) read(ctx context.Context) error {
	rd := &reader{work: w, record: newRecorder(w), seed: maphash.MakeSeed(), opened: map[int][]uint32{}, packs: w.list.packs.NewSet()}
	if !w.options.Read {
		return nil
	}
	seen, err := w.readBefore(ctx)
	if err != nil {
		return err
	}
	objects := rd.choose(seen)
	rd.record.begin(ctx)
	defer func() { w.result.Recorded = rd.record.flush(ctx) }()
	if w.result.Identity {
		if err := rd.openPacks(ctx); err != nil {
			return err
		}
	}
	// Without an identity all, and with one those that no manifest names that could
	// be read.
	if err := rd.hashPacks(ctx); err != nil {
		return err
	}
	return rd.readArchive(ctx, objects)
}

// choose picks the objects to read: a share of all, by the seed, without those
// that were read before.
func (rd *reader) choose(seen map[[16]byte]time.Time) []archiveObject {
	var packs []int
	var objects []archiveObject
	take := func(key string, size int64, stored time.Time) bool {
		rd.result.Wanted.add(size)
		if limit, ok := seen[shortName(key)]; ok && storedAt(stored).Before(limit) {
			rd.result.Skipped.add(size)
			return false
		}
		return true
	}
	for i, p := range rd.list.packs {
		// Where a manifest could not be read, a pack that none names may be its.
		if (rd.sealed || rd.live.Has(i)) && take(p.Key(), p.Size, time.Unix(0, p.Nano)) {
			packs = append(packs, i)
		}
	}
	for id := range rd.indexes {
		for o := range rd.list.List(context.Background(), repo.SystemWALPrefix(id)) {
			key, _, ours := rd.repo.ArchiveKey(o.Key)
			if ours && take(o.Key, o.Size, o.ModTime) {
				objects = append(objects, archiveObject{id, key, o.Size})
			}
		}
	}
	for o := range rd.list.List(context.Background(), repo.SummaryPrefix) {
		if _, _, ok := repo.ParseBlocks(path.Base(o.Key)); ok && take(o.Key, o.Size, o.ModTime) {
			objects = append(objects, archiveObject{0, o.Key, o.Size})
		}
	}
	slices.SortFunc(objects, func(a, b archiveObject) int { return strings.Compare(a.key, b.key) })
	// A key that is taken by junk and what lies beside it are read as one.
	objects = slices.CompactFunc(objects, func(a, b archiveObject) bool { return a.key == b.key })
	all := len(packs) + len(objects)
	want := int(math.Ceil(rd.options.Sample * float64(all)))
	chosen := rand.New(rand.NewPCG(rd.options.Seed, 0)).Perm(all)[:want]
	slices.Sort(chosen)
	var out []archiveObject
	for _, i := range chosen {
		if i < len(packs) {
			rd.packs.Add(packs[i])
			continue
		}
		out = append(out, objects[i-len(packs)])
	}
	return out
}

// hashPacks compares packs with their names; no identity is needed.
func (rd *reader) hashPacks(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rd.options.Jobs)
	for i, p := range rd.list.packs {
		if !rd.packs.Has(i) || rd.result.Identity && rd.live.Has(i) {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			id := strings.TrimPrefix(p.Key(), repo.PacksPrefix)
			err := rd.repo.CheckPack(gctx, repo.PackRef{ID: id, Size: p.Size}, nil, nil)
			return rd.tell(err, p.Key(), p.Size, !rd.result.Identity, func() { rd.damaged(PackDamaged, id, err) })
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// openPacks goes through the manifests, the oldest first, and opens each frame
// that one names and that was not opened yet.
func (rd *reader) openPacks(ctx context.Context) error {
	rd.readers = make(chan *repo.PackReader, rd.options.Jobs)
	for range rd.options.Jobs {
		pr, err := rd.repo.NewPackReader()
		if err != nil {
			return err
		}
		defer pr.Close()
		rd.readers <- pr
	}
	for _, b := range rd.backups {
		if err := rd.openBackup(ctx, b.Label); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return ctx.Err()
}

func (rd *reader) openBackup(ctx context.Context, label string) error {
	m, err := rd.repo.OpenManifest(ctx, label)
	if err != nil {
		return err
	}
	defer m.Close()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rd.options.Jobs)
	for p, err := range m.Packs() {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		i, ok := rd.list.packs.Find(p.ID)
		if !ok || !rd.packs.Has(i) || rd.isBad(p.ID) {
			continue
		}
		first, frames := rd.fresh(i, p)
		if len(frames) == 0 || gctx.Err() != nil {
			continue
		}
		g.Go(func() error { return rd.openPack(gctx, p.PackRef, frames, first) })
	}
	return g.Wait()
}

// fresh are the frames of a pack that were not opened yet. What a later backup
// still needs of a pack is mostly what an older one needed of it.
func (rd *reader) fresh(i int, p repo.PackEntry) (first bool, frames []repo.FrameRef) {
	have, known := rd.opened[i]
	for _, f := range p.Frames {
		sum := uint32(maphash.Comparable(rd.seed, f.FrameRef))
		if !slices.Contains(have, sum) {
			frames = append(frames, f.FrameRef)
			rd.opened[i] = append(rd.opened[i], sum)
		}
	}
	return !known, frames
}

func (rd *reader) openPack(ctx context.Context, ref repo.PackRef, frames []repo.FrameRef, first bool) error {
	pr := <-rd.readers
	defer func() { rd.readers <- pr }()
	err := rd.repo.CheckPack(ctx, ref, frames, pr)
	if err == nil {
		rd.mu.Lock()
		rd.result.Frames += int64(len(frames))
		rd.mu.Unlock()
		if !first {
			return nil // it is counted and recorded already
		}
	}
	return rd.tell(err, repo.PackKey(ref.ID), ref.Size, true, func() {
		code := FrameDamaged
		if again := rd.repo.CheckPack(ctx, ref, nil, nil); again != nil {
			code = PackDamaged
		}
		rd.damaged(code, ref.ID, err)
	})
}

// damaged notes a pack; what it spoils is looked for afterwards.
func (rd *reader) damaged(code Code, id string, err error) {
	if errors.Is(err, repo.ErrMissing) {
		code = PackMissing // since the listing
	}
	rd.findPack(code, id, err.Error(), true)
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.bad.unblamed = true
}

// readArchive reads WAL and block summaries.
func (rd *reader) readArchive(ctx context.Context, objects []archiveObject) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rd.options.Jobs)
	for _, o := range objects {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if o.system == 0 {
				_, _, err := rd.repo.CheckEnvelope(gctx, o.key, repo.KindBlocks)
				return rd.tell(err, o.key, o.size, true, func() { rd.find(BlocksDamaged, o.key, err).Points = "none: the next backup looks at the pages instead" })
			}
			rest := strings.TrimPrefix(o.key, repo.SystemWALPrefix(o.system))
			err := rd.indexes[o.system].CheckObject(gctx, rd.repo, rest)
			return rd.tell(err, o.key, o.size, true, func() { rd.damagedWAL(o, err) })
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// damagedWAL says which backups a damaged object of the archive spoils.
func (w *work) damagedWAL(o archiveObject, err error) {
	name, ok := repo.ParseWALKey(o.system, o.key)
	if !ok {
		return
	}
	f := w.find(WALDamaged, o.key, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch name.Kind {
	case postgres.WALHistory:
		f.Code, f.Do = HistoryDamaged, advice(HistoryDamaged)
		f.Points = "those on timeline " + name.Timeline.String() + " and its descendants"
		return
	case postgres.WALPartial, postgres.WALBackup:
		f.Points = "none: recovery does not read it"
		return
	}
	seg, bad := postgres.ParseSegment(name.Segment, w.indexes[o.system].SegmentSize())
	if bad != nil {
		f.Points = "not known: its place is not"
		return
	}
	for _, b := range w.backups {
		if b.System == o.system && b.StartLSN < seg.End() {
			f.spoil(b.Label)
		}
	}
	f.Points = fmt.Sprintf("all after %s, and none from a backup that is consistent only after it", seg.Start())
}

// tell counts what was read, or says what is wrong with it; it is recorded when
// it was read as thoroughly as can be. It returns the error of a store that
// failed.
func (rd *reader) tell(err error, key string, size int64, thorough bool, finding func()) error {
	switch {
	case err == nil:
		rd.mu.Lock()
		rd.result.Read.add(size)
		rd.done += size
		done, total := rd.done, int64(float64(rd.result.Wanted.Bytes-rd.result.Skipped.Bytes)*rd.options.Sample)
		rd.mu.Unlock()
		rd.options.Observe(Progress{"read", min(done, total), total})
		if thorough {
			rd.record.add(key)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil // expired, or merged, since the listing
	case errors.Is(err, repo.ErrWrongIdentity):
		rd.notOpened(key)
		return nil
	case !wal.AboutObject(err):
		return err
	}
	finding()
	return nil
}

// recheck looks which backups the packs spoil that turned out to be damaged, and
// drops what is about backups that were expired meanwhile.
func (w *work) recheck(ctx context.Context) error {
	if err := w.blame(ctx); err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, f := range w.result.Findings {
		for _, label := range f.Backups {
			if _, known := gone[label]; known {
				continue
			}
			there, err := w.repo.Exists(ctx, label) // also one whose manifest is just being sealed again
			if err != nil {
				return err
			}
			gone[label] = !there
		}
	}
	packs := map[*Finding]bool{}
	for _, f := range w.bad.findings {
		packs[f] = true
	}
	w.result.Findings = slices.DeleteFunc(w.result.Findings, func(f *Finding) bool {
		had := len(f.Backups)
		f.Backups = slices.DeleteFunc(f.Backups, func(l string) bool { return gone[l] })
		// No manifest names a pack any more that was expired while it was to be read.
		// Where one could not be read that is not known of a pack that is there.
		return len(f.Backups) == 0 && (had > 0 || packs[f] && (!w.sealed || f.Code == PackMissing))
	})
	w.result.Backups = slices.DeleteFunc(w.result.Backups, func(b BackupResult) bool { return gone[b.Label] })
	return nil
}

// blame looks in all manifests for the packs that turned out to be damaged as they were
// read; those that are missing were seen on the way.
func (w *work) blame(ctx context.Context) error {
	if !w.bad.unblamed {
		return nil
	}
	for _, b := range w.backups {
		m, err := w.repo.OpenManifest(ctx, b.Label)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for p, err := range m.Packs() {
			if err != nil {
				return errors.Join(err, m.Close())
			}
			if f := w.bad.byID[p.ID]; f != nil {
				w.badPack(f, p, m.Files, b.Label)
			}
		}
		if err := m.Close(); err != nil {
			return err
		}
	}
	return nil
}

package wal

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// mergeAt is how many slices, one after another, are made one. A segment that
// is filled commit by commit has thousands of them, and recovery would wait
// for each; so it has at most this many of each level, and each byte is stored
// once more a level.
const mergeAt = 64

// piece is a slice that is stored; its level is how often it was merged.
type piece struct {
	from, to int64
	level    int
}

// merge begins to make one slice of the last ones, when there are enough of
// one level. That is a help to recovery and decides nothing.
func (t *tail) merge(ctx context.Context) {
	if t.merging || len(t.parts) == 0 {
		return
	}
	p := t.parts[len(t.parts)-1]
	run := p.run()
	if len(run) < mergeAt || p.complete() {
		return
	}
	t.merging, p.merging = true, true
	from, to := run[0].from, run[len(run)-1].to
	go t.storeMerge(ctx, p, run, p.buf[from:to])
}

// run is the last pieces of one level that are as many as a merge takes, of
// the lowest level that has so many; nil if none has.
func (p *part) run() []piece {
	end := len(p.pieces)
	for end > 0 {
		begin := end
		for begin > 0 && p.pieces[begin-1].level == p.pieces[end-1].level {
			begin--
		}
		if end-begin >= mergeAt {
			return append([]piece(nil), p.pieces[begin:end]...)
		}
		end = begin
	}
	return nil
}

// merged puts the new slice in the place of those that it was made of.
func (p *part) merged(of []piece, err error) {
	if err != nil {
		return
	}
	for i, x := range p.pieces {
		if x == of[0] {
			one := piece{of[0].from, of[len(of)-1].to, of[0].level + 1}
			p.pieces = append(append(p.pieces[:i:i], one), p.pieces[i+len(of):]...)
			return
		}
	}
}

func (t *tail) storeMerge(ctx context.Context, p *part, of []piece, raw []byte) {
	err := t.createSlice(ctx, p.seg, of[0].from, raw)
	for _, x := range of {
		if err != nil || ctx.Err() != nil {
			break
		}
		// What cannot be removed costs a little room and does no harm.
		_ = t.repo.Store().Delete(ctx, repo.SliceKey(t.system, p.seg.Timeline, p.seg.Name(), x.from, x.to))
	}
	t.report(stored{part: p, what: storedMerge, of: of, err: err})
}

// disposeLimit is how long the removal of one segment's slices may take.
const disposeLimit = time.Minute

// dispose removes the slices of a segment that is durable whole, beside other
// work. Those that stay behind, because the store does not allow it or the
// process ends, cost a little room: nothing reads them.
func (t *tail) dispose(seg postgres.Segment) {
	t.removing.Add(1)
	go func() {
		defer t.removing.Done()
		ctx, cancel := context.WithTimeout(context.Background(), disposeLimit)
		defer cancel()
		_ = removeSlices(ctx, t.repo, t.system, seg)
	}()
}

// removeSlices deletes the slices of a segment, which is stored whole.
func removeSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, seg postgres.Segment) error {
	all, err := listSlices(ctx, r, system, seg.Timeline, seg.Name())
	if err != nil {
		return err
	}
	for _, s := range all {
		key := repo.SliceKey(system, seg.Timeline, seg.Name(), s.from, s.to)
		if err := r.Store().Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

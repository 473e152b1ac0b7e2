package backup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// layer is an older state of the same files, of which parts may still hold:
// the base, or what an interrupted backup has stored.
type layer struct {
	label   string
	since   postgres.LSN // where it began: what WAL changed from there on does not hold
	changes changes
	bad     blocks.Set       // pages that were bad: they are read again
	files   []repo.FileEntry // as they were; of the base those that are in the plan
	number  []int            // of each, in what the packs name
	count   int              // of all files that the packs name
	byPath  map[string]int
	packs   iter.Seq2[repo.PackEntry, error]
	covered []runs // of each file, what the packs hold; nil: all of every file
	renew   renewal
	used    int // packs of which something was taken over
	close   func() error
}

func (l *layer) index() {
	l.byPath = make(map[string]int, len(l.files))
	for i, f := range l.files {
		l.byPath[f.Path] = i
	}
}

// maxID is how many bytes a fileID has at most.
const maxID = 64

// baseLayer reads the head of the base's manifest. It keeps what is of files of the
// plan, and no more of that than this backup can compare with: whoever holds the
// cluster's key says how much else there is.
func baseLayer(ctx context.Context, r *repo.Repo, info *repo.Info, ch changes, renew renewal, plan []*copyFile) (*layer, error) {
	l := &layer{label: info.Label, since: info.StartLSN, changes: ch, renew: renew}
	planned := make(map[string]*copyFile, len(plan))
	for _, f := range plan {
		planned[f.path] = f
	}
	m, err := r.OpenManifestEach(ctx, info.Label, func(i int, e repo.FileEntry) {
		f := planned[e.Path]
		if f == nil {
			return
		}
		l.files, l.number = append(l.files, f.older(e)), append(l.number, i)
	})
	if err != nil {
		return nil, fmt.Errorf("read the base %s: %w", info.Label, err)
	}
	l.count, l.packs, l.close = m.Files.Len(), m.Packs(), m.Close
	l.index()
	l.readAgain(info.BadPages)
	return l, nil
}

// readAgain has pages read again that were bad.
func (l *layer) readAgain(bad []repo.BadPage) {
	for _, p := range bad {
		if rel, ok := postgres.ParseRelationPath(p.Path); ok {
			l.bad.Add(blocks.Fork{RelFile: rel.RelFile, Fork: rel.Fork}, p.Block, p.Block+1)
		}
	}
}

// resumeWithin is how old an interrupted backup may be. Who expires removes
// packs that nothing names once they are a day old.
const resumeWithin = 20 * time.Hour

// resumeMost is how many interrupted backups are taken up: one that fails again
// and again must not cost more each time.
const resumeMost = 3

// interrupted finds backups of these very files, on this timeline, that were
// not committed and noted what they had stored, and are newer than the base:
// the newest first. Their parts are joined.
func (c *copier) interrupted(ctx context.Context, base *repo.Info) ([]repo.Part, error) {
	if c.source == "" {
		return nil, nil
	}
	open, err := c.repo.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	var out []repo.Part
	planned := make(map[string]*copyFile, len(c.plan))
	for _, f := range c.plan {
		planned[f.path] = f
	}
	for _, u := range slices.Backward(open) {
		if len(out) == resumeMost || base != nil && u.Label <= base.Label {
			break
		}
		if u.Label == c.label || !u.Has(repo.PartKey(u.Label, 1)) {
			continue
		}
		p, err := c.joinParts(ctx, u, planned)
		if err != nil {
			return nil, err
		}
		if c.continues(p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// continues says whether what an interrupted backup stored can be part of this one.
func (c *copier) continues(p repo.Part) bool {
	control := c.facts.control
	sameFiles := p.Source == c.source && p.System == control.SystemID && p.BlockSize == int(control.BlockSize) && p.Catalog == control.CatalogVersion && p.Checksums == c.facts.checksums()
	sameLine := p.Timeline == c.start.Timeline && p.StartLSN <= c.start.LSN
	return sameFiles && sameLine && openedBy(p.Recipients, c.repo.RecipientIDs()) &&
		c.o.Now().Sub(p.StartTime) < resumeWithin && (p.Full || !c.o.Full)
}

// joinParts makes one part of all that a backup has noted of files of the plan. What cannot
// be read is left out: it is read from the files again. So is what cannot be needed, or is
// noted twice: whoever holds the cluster's key says how much there is.
func (c *copier) joinParts(ctx context.Context, u repo.Directory, planned map[string]*copyFile) (all repo.Part, err error) {
	known := map[string]int{}
	bad := map[repo.BadPage]bool{}
	defer func() { all.BadPages = slices.AppendSeq([]repo.BadPage(nil), maps.Keys(bad)) }()
	var spans []int64 // that may still come, of each file
	for n := 1; u.Has(repo.PartKey(u.Label, n)); n++ {
		p, err := c.repo.Part(ctx, u.Label, n)
		if unreadable(err) {
			continue
		}
		if err != nil {
			return all, err
		}
		if all.Label == "" {
			all = p
			all.Files, all.Packs, all.BadPages = nil, nil, nil
		}
		for _, b := range p.BadPages {
			if plan := planned[b.Path]; plan != nil {
				b.Path = plan.path
				bad[b] = true
			}
		}
		if len(bad) > 2*repo.MaxBadPages { // no more than MaxBadPages are named, again and again
			break
		}
		number := make([]int, len(p.Files))
		for i, f := range p.Files {
			at, there := known[f.Path]
			if plan := planned[f.Path]; !there && plan != nil {
				at, there = len(all.Files), true
				known[plan.path] = at
				all.Files = append(all.Files, plan.older(f))
				spans = append(spans, plan.size/int64(c.facts.control.BlockSize)+2)
			}
			if number[i] = at; !there {
				number[i] = -1
			}
		}
		for _, e := range p.Packs {
			if e := needed(e, number, spans); len(e.Frames) > 0 {
				all.Packs = append(all.Packs, e)
			}
		}
	}
	return all, nil
}

// needed is what a pack holds of files with a number, of each no more spans than there
// may still come.
func needed(e repo.PackEntry, number []int, spans []int64) repo.PackEntry {
	out := repo.PackEntry{PackRef: e.PackRef, Day: e.Day}
	for _, f := range e.Frames {
		var to []repo.Span
		for _, s := range f.To {
			n := number[s.File]
			if n < 0 || spans[n] == 0 {
				continue
			}
			spans[n]--
			s.File = n
			to = append(to, s)
		}
		if len(to) > 0 {
			out.Frames = append(out.Frames, repo.FrameEntry{FrameRef: f.FrameRef, To: to})
		}
	}
	return out
}

// older is what a layer says of the file, no more of it than can be compared with.
func (f *copyFile) older(e repo.FileEntry) repo.FileEntry {
	e.Path = f.path
	if len(e.ID) > maxID {
		e.ID = ""
	}
	if most := (f.slices() + 1) * sumText; len(e.Sum) > most {
		e.Sum = strings.Clone(e.Sum[:most])
	}
	return e
}

// partLayer makes a layer of what an interrupted backup has noted.
func partLayer(p repo.Part, ch changes) *layer {
	l := &layer{label: p.Label, since: p.StartLSN, changes: ch, files: p.Files, count: len(p.Files), covered: make([]runs, len(p.Files)), renew: renewal{day: -1}}
	for i := range p.Files {
		l.number = append(l.number, i)
	}
	l.index()
	l.readAgain(p.BadPages)
	l.close = func() error { return nil }
	l.packs = func(yield func(repo.PackEntry, error) bool) {
		for _, e := range p.Packs {
			if !yield(e, nil) {
				return
			}
		}
	}
	for _, e := range p.Packs {
		for _, f := range e.Frames {
			for _, s := range f.To {
				l.covered[s.File] = append(l.covered[s.File], run{s.Off, s.Off + int64(s.Len)})
			}
		}
	}
	for i, c := range l.covered {
		l.covered[i] = union(c...)
	}
	return l
}

// A backup notes what it has stored when that is at least partBytes and a
// sixteenth of all that it has stored: so much is sent again at most, and the
// parts of a large backup are few. At partMost it does so anyway, and when the
// packs hold many scattered pages: a part must stay far below what is read of one.
const (
	partBytes = 32 << 20
	partMost  = 64 << 30
	partSpans = 1 << 16 // some 40 bytes each, or a few hundred where each is a file
)

// spansOf is how many spans a pack holds.
func spansOf(e repo.PackEntry) (n int) {
	for _, f := range e.Frames {
		n += len(f.To)
	}
	return n
}

// partDue says whether it is time for the next part.
func (c *copier) partDue() bool {
	return c.unnoted >= min(max(partBytes, c.newBytes/16), partMost) || c.unspans >= partSpans
}

// notePart notes the packs that were stored since the last part, when it is
// time to, or at once. After an error they are noted the next time.
//
// A part names the pages that were bad so far, or perhaps just being written: who
// takes the packs over reads those again, since a backup must not be silent about
// a bad page that it holds. Of more than can be named nothing is noted any more.
func (c *copier) notePart(ctx context.Context, atOnce bool) error {
	c.parting.Lock()
	defer c.parting.Unlock()
	c.mu.Lock()
	packs, bytes, spans := c.stored, c.unnoted, c.unspans
	bad, known := c.badSoFar()
	if len(packs) == 0 || known && !atOnce && !c.partDue() {
		c.mu.Unlock()
		return nil
	}
	c.stored, c.unnoted, c.unspans = nil, 0, 0
	c.mu.Unlock()
	if !known {
		return nil // nor ever will be
	}

	err := c.repo.CreatePart(ctx, c.parts+1, c.makePart(packs, bad))
	if errors.Is(err, repo.ErrPartTooLarge) {
		return nil // one pack can hold so many small files; they are sent again then
	}
	if err == nil {
		c.parts++
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored, c.unnoted, c.unspans = append(packs, c.stored...), c.unnoted+bytes, c.unspans+spans
	return err
}

// lastWords is how long a backup that fails may take to note what it has
// stored.
const lastWords = 10 * time.Second

// noteRest notes what was stored and not noted, when the backup fails. One that
// is killed does without.
func (c *copier) noteRest(ctx context.Context) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if err := c.notePart(end, true); err != nil {
		c.o.warn("what was stored last is sent again by the next backup: %v", err)
	}
}

// badSoFar is the pages that could not be read whole, and whether those are all.
// c.mu is held.
func (c *copier) badSoFar() (pages []repo.BadPage, known bool) {
	pages = slices.Clone(c.bad)
	for _, b := range c.written {
		pages = append(pages, b.BadPage)
	}
	return pages, c.badCount == int64(len(c.bad)) && len(pages) <= repo.MaxBadPages
}

// makePart is a part of these packs. Spans name files by their numbers in it.
func (c *copier) makePart(packs []repo.PackEntry, bad []repo.BadPage) repo.Part {
	p := repo.Part{Label: c.label, Source: c.source, System: c.facts.control.SystemID, Timeline: c.start.Timeline, StartLSN: c.start.LSN, StartTime: c.start.Time,
		BlockSize: int(c.facts.control.BlockSize), Catalog: c.facts.control.CatalogVersion, Checksums: c.facts.checksums(), Full: c.o.Full, Recipients: c.repo.RecipientIDs(), BadPages: bad}
	number := map[int]int{}
	for _, e := range packs {
		noted := repo.PackEntry{PackRef: e.PackRef, Day: e.Day}
		for _, f := range e.Frames {
			spans := slices.Clone(f.To)
			for i, s := range spans {
				at, there := number[s.File]
				if !there {
					at = len(p.Files)
					number[s.File] = at
					p.Files = append(p.Files, c.files.get(s.File))
				}
				spans[i].File = at
			}
			noted.Frames = append(noted.Frames, repo.FrameEntry{FrameRef: f.FrameRef, To: spans})
		}
		p.Packs = append(p.Packs, noted)
	}
	return p
}

// dropParts removes the parts of a backup that is committed. Who may not delete
// leaves them to whoever expires the backup.
func (c *copier) dropParts(ctx context.Context) {
	for n := range c.parts {
		if c.repo.Store().Delete(ctx, repo.PartKey(c.label, n+1)) != nil {
			return
		}
	}
}

// resumed says, for the report, what was taken over from interrupted backups.
func resumed(layers []*layer) string {
	var labels []string
	packs := 0
	for _, l := range layers {
		if l.covered != nil && l.used > 0 {
			labels = append(labels, l.label)
			packs += l.used
		}
	}
	if len(labels) == 0 {
		return ""
	}
	return fmt.Sprintf("%d packs of the interrupted %s are used again", packs, strings.Join(labels, ", "))
}

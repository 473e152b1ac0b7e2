package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// HeaderCheck says how the signed headers of archived objects are read. The zero
// value reads all of them.
type HeaderCheck struct {
	// Known are those that were read before, and gets those that are read now; nil
	// for none.
	Known *Headers
	// Want says which objects are wanted, by their names, or of a slice by that of
	// its segment; nil: all. The others are only listed.
	Want func(postgres.WALName) bool
	// Within is how long it may take; 0 is for ever. What has not been read by then
	// is only listed.
	Within time.Duration
	// AtOnce is how many are read at the same time; 0 is 48.
	AtOnce int
	// Observe is told how many were read of those that are to be; it may be nil.
	Observe func(done, total int)
}

// headersAtOnce is for stores that are far away. BenchmarkStatusOf10000 measures it on
// near ones (docs/wal.md).
const headersAtOnce = 48

// BadObject is an archived object that is not what it is called.
type BadObject struct {
	Key  string
	Name postgres.WALName // of a slice, that of its segment
	Err  error            // repo.AboutObject or *HeaderError
}

// HeaderCount is how much of an archive was looked at.
type HeaderCount struct {
	Objects   int   // WAL files and slices that are listed
	Checked   int   // of them, those of which the header holds, now or by what is known from before
	Read      int   // headers that were read now
	Bad       int   // objects that are not what they are called
	Unchecked int   // objects that are only listed
	Why       error // why, as far as it is an error; nil when they were not wanted or the time was over
}

// LoadChecked is LoadIndexSeeing, and counts as archived only what the signed header
// says of itself: a name in a listing can be anybody's. What is bad is as if it were
// not there, but no end of the archive either; Bad has it. What could not be read is
// there, and Unchecked says so.
//
// A store that fails while headers are read is no error; the rest is unchecked then.
func LoadChecked(ctx context.Context, r *repo.Repo, system postgres.SystemID, seen func(storage.Info), c HeaderCheck) (*Index, error) {
	for try := 1; ; try++ {
		ix, err := loadIndex(ctx, r, system, seen, &c)
		// Segments that have gone since they were listed were expired, or slices merged.
		if !errors.Is(err, errSliceGone) || try == replacedTimes {
			return ix, err
		}
		seen = func(storage.Info) {}
	}
}

// headerRun is the reading of one archive's headers.
type headerRun struct {
	HeaderCheck
	index *Index
	repo  *repo.Repo

	mu   sync.Mutex
	done int
	why  error
	gone bool
}

// checkHeaders reads the headers of what was listed, the newest first, and takes
// what is bad out of the index. errSliceGone when objects have gone meanwhile.
func (ix *Index) checkHeaders(ctx context.Context, r *repo.Repo, listed []storage.Info, c HeaderCheck) error {
	run := &headerRun{HeaderCheck: c, index: ix, repo: r}
	if run.Known == nil {
		run.Known = NewHeaders(r.TrustID())
	}
	ix.headers = &HeaderCount{Objects: len(listed)}
	todo := run.pick(listed)
	inTime, cancel := ctx, context.CancelFunc(func() {})
	if c.Within > 0 {
		inTime, cancel = context.WithTimeout(ctx, c.Within)
	}
	defer cancel()
	run.readAll(inTime, todo)
	if err := ctx.Err(); err != nil {
		return err
	}
	ix.headers.Why = run.why
	slices.SortFunc(ix.bad, func(a, b BadObject) int { return strings.Compare(a.Key, b.Key) })
	if run.gone {
		return errSliceGone
	}
	return nil
}

// pick returns what is to be read, and counts the rest.
func (run *headerRun) pick(listed []storage.Info) []storage.Info {
	var todo []storage.Info
	for _, o := range listed {
		known := run.Known.holds(o)
		name, _ := repo.ParseWALKey(run.index.system, o.Key)
		switch {
		case known:
			run.index.headers.Checked++
		case run.Want != nil && !run.Want(name):
			run.index.leaveUnchecked(o.Key, name)
		default:
			todo = append(todo, o)
		}
	}
	// Histories first, since the way hangs on them; then what a restore to the end needs.
	slices.SortFunc(todo, func(a, b storage.Info) int {
		if x, y := strings.HasSuffix(a.Key, ".history"), strings.HasSuffix(b.Key, ".history"); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Key, a.Key)
	})
	return todo
}

func (run *headerRun) readAll(ctx context.Context, todo []storage.Info) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.SetLimit(cmp.Or(run.AtOnce, headersAtOnce))
	for _, o := range todo {
		g.Go(func() error {
			if ctx.Err() == nil {
				h, err := readListed(ctx, run.repo, o)
				run.note(ctx, o, h, err, stop)
			} else {
				run.note(ctx, o, repo.Header{}, ctx.Err(), stop)
			}
			if run.Observe != nil {
				run.mu.Lock()
				run.done++
				done := run.done
				run.mu.Unlock()
				run.Observe(done, len(todo))
			}
			return nil
		})
	}
	_ = g.Wait() // what failed is noted
}

// note takes the outcome of one header. A store that fails ends the reading: one
// that does not answer would be waited for once for each object. What it refuses
// concerns that object, as one that a lifecycle rule has put to sleep.
func (run *headerRun) note(ctx context.Context, o storage.Info, h repo.Header, err error, stop func()) {
	run.mu.Lock()
	defer run.mu.Unlock()
	ix := run.index
	name, _ := repo.ParseWALKey(ix.system, o.Key)
	if err == nil {
		err = run.Known.changed(o, h)
	}
	switch {
	case err == nil:
		ix.headers.Checked++
		ix.headers.Read++
		run.Known.add(o, h)
	case errors.Is(err, fs.ErrNotExist):
		run.gone = true
	case AboutObject(err):
		ix.headers.Bad++
		ix.headers.Read++
		ix.drop(o.Key, name, err)
	default:
		ix.leaveUnchecked(o.Key, name)
		if ctx.Err() == nil {
			run.why = cmp.Or(run.why, err)
			if !errors.Is(err, storage.ErrDenied) {
				stop()
			}
		}
	}
}

// readListed reads the header of an archived object, which must be signed for that
// very name, fit the number of bytes that is listed, and hold as many as its name
// says.
func readListed(ctx context.Context, r *repo.Repo, o storage.Info) (repo.Header, error) {
	h, err := r.CheckListed(ctx, o, repo.KindWAL)
	if err != nil {
		return h, err
	}
	file := o.Key[strings.LastIndexByte(strings.TrimSuffix(o.Key, "/"), '/')+1:]
	if _, from, to, ok := repo.ParseSlice(lastTwo(o.Key)); ok {
		if h.Size != to-from {
			err = &repo.CorruptError{Object: o.Key, Reason: fmt.Sprintf("holds %d bytes, its name says %d", h.Size, to-from)}
		}
		return h, err
	}
	name, parse := postgres.ParseWALName(file)
	switch {
	case parse != nil:
		return h, &HeaderError{Name: file, Err: parse}
	case name.Kind == postgres.WALHistory || name.Kind == postgres.WALBackup:
		if h.Size > maxSmallFile {
			err = &repo.CorruptError{Object: o.Key, Reason: fmt.Sprintf("holds %d bytes, at most %d are expected", h.Size, int64(maxSmallFile))}
		}
	case !postgres.SegmentSize(h.Size).Valid():
		err = &HeaderError{Name: file, Reason: fmt.Sprintf("%d bytes are no segment", h.Size)}
	}
	return h, err
}

// lastTwo are the last two parts of a key: the directory of slices and the slice.
func lastTwo(key string) string {
	last := strings.LastIndexByte(key, '/')
	if last < 0 {
		return key
	}
	return key[strings.LastIndexByte(key[:last], '/')+1:]
}

// leaveUnchecked notes an object that is only listed.
func (ix *Index) leaveUnchecked(key string, name postgres.WALName) {
	ix.headers.Unchecked++
	if t := ix.timelines[name.Timeline]; t != nil {
		if t.unchecked == nil {
			t.unchecked = map[string]bool{}
		}
		t.unchecked[key[len(repo.WALPrefix(ix.system, name.Timeline)):]] = true
	}
}

// drop takes a bad object out. The segment stays known as bad: PostgreSQL would ask
// for it, and be stopped.
func (ix *Index) drop(key string, name postgres.WALName, err error) {
	ix.bad = append(ix.bad, BadObject{key, name, err})
	t := ix.timelines[name.Timeline]
	if t == nil {
		return
	}
	if t.bad == nil {
		t.bad = map[string]error{}
	}
	rest := key[len(repo.WALPrefix(ix.system, name.Timeline)):]
	t.bad[rest] = err
	switch {
	case rest != name.String():
		// A slice: chainSlices sees whether the segment needs it.
	case name.Kind == postgres.WALSegment:
		delete(t.sizes, name.Segment)
	case name.Kind == postgres.WALPartial:
		t.partials = slices.DeleteFunc(t.partials, func(s string) bool { return s == name.Segment })
	case name.Kind == postgres.WALHistory:
		t.historyErr = fmt.Errorf("read the history of timeline %s: %w", name.Timeline, err)
	}
}

// Bad are the objects that are not what they are called, by their keys.
func (ix *Index) Bad() []BadObject { return ix.bad }

func (ix *Index) isBad(key string) bool {
	_, bad := slices.BinarySearchFunc(ix.bad, key, func(b BadObject, key string) int { return strings.Compare(b.Key, key) })
	return bad
}

// Headers is how much of the archive was looked at; nothing, if it was only listed.
func (ix *Index) Headers() HeaderCount {
	if ix.headers == nil {
		return HeaderCount{}
	}
	return *ix.headers
}

// BadSegment is why a segment, or a slice that it is made of, is not what it is
// called; nil when it is, or nothing of it is there.
func (ix *Index) BadSegment(seg postgres.Segment) error {
	if t := ix.timelines[seg.Timeline]; t != nil {
		return t.bad[seg.Name()]
	}
	return nil
}

// Unchecked says whether the segment is only listed, or a slice that it is made of.
func (ix *Index) Unchecked(seg postgres.Segment) bool {
	t := ix.timelines[seg.Timeline]
	if t == nil || len(t.unchecked) == 0 {
		return false
	}
	if t.unchecked[seg.Name()] {
		return true
	}
	return slices.ContainsFunc(t.sliced[seg.Name()].use, func(s slice) bool { return t.unchecked[repo.SliceName(seg.Name(), s.from, s.to)] })
}

// UncheckedIn counts the segments that are only listed, of those that recovery along
// the path reads for the WAL between two positions.
func (ix *Index) UncheckedIn(p Path, from, to postgres.LSN) (n int) {
	if ix.headers == nil || ix.headers.Unchecked == 0 || ix.size == 0 {
		return 0
	}
	for seg, ok := range ix.Segments(p, from, to) {
		if ok && ix.Unchecked(seg) {
			n++
		}
	}
	return n
}

// stopped says whether PostgreSQL, asking along the path for the segment of a
// number, meets a bad one: not the end of the archive.
func (ix *Index) stopped(p Path, no uint64) bool {
	seg := postgres.Segment{No: no, Size: ix.size}
	for _, s := range p.Spans {
		seg.Timeline = s.Timeline
		if s.Begin < seg.End() && ix.BadSegment(seg) != nil {
			return true
		}
	}
	return false
}

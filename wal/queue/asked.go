package queue

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

const (
	// askedFile holds, in one line, whose queue it is, the segment that
	// PostgreSQL asked for last and the window.
	askedFile = "asked"

	// The window is how many segments the queue may hold. It begins small,
	// because many a recovery needs few, and doubles each time that PostgreSQL
	// had to wait.
	firstWindow = 2
	maxWindow   = 64
	maxFetched  = 256 << 20 // bytes, but always one segment
)

// asked is what askedFile says.
type asked struct {
	owner  string
	last   postgres.Segment
	window int
}

// limit is the largest window.
func (q *Queue) limit() int {
	return int(max(1, min(maxWindow, maxFetched/q.size)))
}

func (q *Queue) readAsked() (asked, error) {
	raw, err := os.ReadFile(filepath.Join(q.dir, askedFile))
	if err != nil {
		return asked{}, err
	}
	return q.parseAsked(raw)
}

// parseAsked gives the zero value, which is nobody's, for what is not such a
// line: as when it was never written.
func (q *Queue) parseAsked(raw []byte) (asked, error) {
	var a asked
	var name string
	if n, err := fmt.Sscanf(string(raw), "%32s %24s %3d\n", &a.owner, &name, &a.window); n != 3 || err != nil {
		return asked{}, nil
	}
	var err error
	if a.last, err = postgres.ParseSegment(name, q.size); err != nil {
		return asked{}, nil
	}
	a.window = max(1, min(a.window, q.limit()))
	return a, nil
}

// writeAsked writes the line in place, always of the same length.
func (q *Queue) writeAsked(a asked) error {
	f, err := os.OpenFile(filepath.Join(q.dir, askedFile), os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%32s %24s %3d\n", a.owner, a.last.Name(), a.window), 0)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Asked notes that PostgreSQL asked for a segment and has got it, after having
// had to wait or not, and removes from the queue what does not follow it. fill
// says that a Fill would be of use now and none is under way. After an error
// the queue is of no use, and does no harm.
func (q *Queue) Asked(name postgres.WALName, waited bool) (fill bool, err error) {
	seg, err := postgres.ParseSegment(name.Segment, q.size)
	if err != nil {
		return false, err
	}
	last, err := q.readAsked()
	if notThere(err) != nil {
		return false, err
	}
	next := asked{owner: q.owner, last: seg, window: min(firstWindow, q.limit())}
	follows := false
	switch {
	case last.owner != q.owner || last.last.Timeline != seg.Timeline:
		if err := q.make(); err != nil {
			return false, err
		}
		fill = true
	case seg.No == last.last.No+1:
		next.window, fill, follows = last.window, true, true
	case seg.No > last.last.No:
		fill = true
	default:
		// Again, or an earlier one: recovery looks for its beginning, or
		// pg_rewind walks backwards. What comes next is not known.
	}
	ahead, err := q.ahead(seg)
	if err != nil {
		return false, err
	}
	if follows && (waited || ahead == 0) {
		next.window = min(2*next.window, q.limit())
	}
	if err := q.writeAsked(next); err != nil {
		return false, err
	}
	return fill && 2*ahead < next.window && !q.filling(), nil
}

// make makes the directory, empty.
func (q *Queue) make() error {
	if err := q.Clear(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(q.dir), q.dir} {
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// ahead counts the segments that follow seg in the queue without a gap, and
// removes those that recovery will not want soon.
func (q *Queue) ahead(seg postgres.Segment) (int, error) {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries { // sorted by name
		have, err := postgres.ParseSegment(e.Name(), q.size)
		if err != nil {
			continue // the files beside them
		}
		if have == (postgres.Segment{Timeline: seg.Timeline, No: seg.No + uint64(n) + 1, Size: q.size}) {
			n++
		}
		if have.Timeline == seg.Timeline && have.No > seg.No && have.No <= seg.No+uint64(q.limit()) {
			continue
		}
		if err := notThere(os.Remove(filepath.Join(q.dir, e.Name()))); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// filling says whether a Fill is under way.
func (q *Queue) filling() bool {
	f, err := os.Open(filepath.Join(q.dir, fillingLock))
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f, syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// isPart says whether a file is one on its way.
func isPart(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), PartSuffix) }

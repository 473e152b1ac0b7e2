package wal

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// What looking ahead may take, whatever the size of a segment.
const (
	// aheadMemory bounds the bytes that are sealed, or being sealed, and not
	// stored yet. A segment becomes a third or less, mostly: that is half a
	// dozen on their way to a store that is far.
	aheadMemory = 48 << 20

	// aheadSpool is how much of one file is in memory; what goes beyond, a
	// large segment or one that does not compress, is in a temporary file.
	aheadSpool = 12 << 20

	// aheadRaw bounds the sum of the files under way: one of 1 GiB at a time,
	// four of 64 MiB; and aheadFiles their number.
	aheadRaw   = 256 << 20
	aheadFiles = 32

	// aheadLinger is how long a push waits for what does not stop when told to.
	aheadLinger = time.Second
)

// Ahead says how far a push looks ahead.
type Ahead struct {
	Memory  PushMemory
	Sealers int           // files sealed at once
	Blocks  bool          // make block summaries
	Begin   time.Duration // how long after its own file is durable a push begins others
	Finish  time.Duration // and when it gives up those that are not done
}

// PushAhead is Push for PostgreSQL's archive_command: it archives the file at
// path, and meanwhile the others in pg_wal that PostgreSQL wants archived, and
// remembers those that are durable. It returns how many those are.
//
// The own file comes first: nothing else is read before it is sealed, and
// nothing else is stored before the store has acknowledged it. So a server
// whose own file is refused, because another primary archives here, stores
// nothing else either.
//
// What goes wrong with another file ends the looking ahead and nothing more:
// its own push will meet it. When ctx ends after the own file is durable, that
// is a success too.
func PushAhead(ctx context.Context, r *repo.Repo, path string, o PushOptions, a Ahead) (stored repo.Stored, others int, err error) {
	if !a.Memory.covers(path) {
		stored, err = Push(ctx, r, path, o)
		return stored, 0, err
	}
	opened := a.Memory.Now()
	src, err := openSource(path)
	if err != nil {
		return stored, 0, fmt.Errorf("push %s: %w", filepath.Base(path), err)
	}
	own, err := src.seal(ctx, r, o, repo.SealOptions{})
	if err != nil {
		return stored, 0, err
	}
	defer own.Close()

	l := newLookAhead(ctx, r, o, a)
	sum := l.summary(own.name, own.src.size)
	defer sum.give()
	go sum.make(ctx, own.src.File)
	defer l.stop()
	go l.run(own.name, tokens{sealers: max(a.Sealers, 1), raw: aheadRaw, memory: aheadMemory - own.Memory()})
	if stored, err = own.store(ctx, r); err != nil {
		l.stop()
		l.wait()
		return stored, 0, err
	}
	// A push that is killed before it is remembered is made again, and makes
	// its summary then. A summary that the store does not take is no reason to fail.
	_ = sum.store(ctx, own.system)
	_ = a.Memory.remember(own.name, own.facts, opened, stored.Header.SHA256) // else it is pushed again
	l.freed <- tokens{memory: own.Memory()}
	own.Close()
	l.proceed()
	return stored, int(l.stored.Load()), nil
}

// LookAhead is what PushAhead does beside its own file, which is durable in this
// repository already: for a call that still has to wait for another repository.
// It returns how many others are durable now, at once when none was left.
func LookAhead(ctx context.Context, r *repo.Repo, path string, o PushOptions, a Ahead) (others int) {
	own, err := postgres.ParseWALName(filepath.Base(path))
	if err != nil || !a.Memory.covers(path) {
		return 0
	}
	l := newLookAhead(ctx, r, o, a)
	defer l.stop()
	go l.run(own, tokens{sealers: max(a.Sealers, 1), raw: aheadRaw, memory: aheadMemory})
	l.proceed()
	return int(l.stored.Load())
}

// tokens are what a file takes: a sealer while it is sealed, its size while it
// is under way, and its memory, which is known better once it is sealed.
type tokens struct {
	sealers     int
	raw, memory int64
}

func (t *tokens) add(o tokens) {
	t.sealers, t.raw, t.memory = t.sealers+o.sealers, t.raw+o.raw, t.memory+o.memory
}

func (t *tokens) take(o tokens) { t.add(tokens{-o.sealers, -o.raw, -o.memory}) }

func (t tokens) cover(o tokens) bool {
	return t.sealers >= o.sealers && t.raw >= o.raw && t.memory >= o.memory
}

// lookAhead pushes the files that PostgreSQL will ask for next.
type lookAhead struct {
	repo    *repo.Repo
	options PushOptions
	Ahead

	ctx     context.Context // of what is under way
	stop    context.CancelFunc
	begin   context.Context // of what may be begun
	refrain context.CancelFunc

	durable chan struct{} // closed when the own file is
	done    chan struct{} // closed when nothing is under way
	sums    *summaries    // nil for none
	freed   chan tokens
	failed  atomic.Bool // a file was not stored: none after it is
	stored  atomic.Int64
}

func newLookAhead(ctx context.Context, r *repo.Repo, o PushOptions, a Ahead) *lookAhead {
	l := &lookAhead{repo: r, options: o, Ahead: a,
		durable: make(chan struct{}), done: make(chan struct{}), freed: make(chan tokens, 4*aheadFiles)}
	l.ctx, l.stop = context.WithCancel(ctx)
	l.begin, l.refrain = context.WithCancel(l.ctx)
	if a.Blocks {
		l.sums = newSummaries(r, a.Memory.DataDir)
	}
	return l
}

// summary announces the block summary of a file that is a whole segment.
func (l *lookAhead) summary(name postgres.WALName, size int64) *summary {
	seg, err := postgres.ParseSegment(name.Segment, postgres.SegmentSize(size))
	if err != nil || name.Kind != postgres.WALSegment {
		return nil
	}
	return l.sums.begin(seg)
}

// proceed lets what is sealed be stored, goes on for a while, and returns when
// nothing is under way any more.
func (l *lookAhead) proceed() {
	defer time.AfterFunc(l.Begin, l.refrain).Stop()
	defer time.AfterFunc(l.Finish, l.stop).Stop()
	close(l.durable)
	l.wait()
}

// wait returns when all is done, or when it was stopped and something hangs.
func (l *lookAhead) wait() {
	select {
	case <-l.done:
		return
	case <-l.ctx.Done():
	}
	linger := time.NewTimer(aheadLinger)
	defer linger.Stop()
	select {
	case <-l.done:
	case <-linger.C:
	}
}

// run goes through the files that are ready, but for the own one, in
// PostgreSQL's order, and starts each as soon as there is room for it.
func (l *lookAhead) run(own postgres.WALName, free tokens) {
	defer close(l.done)
	names, err := readyFiles(l.Memory.DataDir)
	if err != nil {
		return // no data directory that archives
	}
	ready := map[string]bool{own.String(): true, own.Timeline.HistoryName(): true} // PushHistory asks for the latter
	for _, name := range names {
		ready[name.String()] = true
	}
	l.Memory.prune(ready)

	var group sync.WaitGroup
	defer group.Wait()
	for _, name := range names {
		if _, known := l.Memory.recall(name); known || name == own {
			continue
		}
		facts := l.Memory.facts(name)
		if !facts.settled(l.Memory.Now()) {
			continue // it could not be remembered
		}
		wanted := tokens{sealers: 1, raw: min(max(facts.size, aheadRaw/aheadFiles), aheadRaw), memory: min(facts.size, aheadSpool)}
		for !free.cover(wanted) || l.begin.Err() != nil {
			select {
			case t := <-l.freed:
				free.add(t)
			case <-l.begin.Done():
				return
			}
		}
		free.take(wanted)
		sum := l.summary(name, facts.size)
		group.Go(func() { l.push(name, wanted, sum) })
	}
}

// push archives one file and remembers it.
func (l *lookAhead) push(name postgres.WALName, held tokens, sum *summary) {
	defer sum.give()
	opened := l.Memory.Now()
	if l.confirm(name, opened) {
		l.freed <- held
		return
	}
	f, err := l.seal(name)
	if err != nil {
		l.fail()
		return // nothing is begun any more, so nobody waits for the tokens
	}
	defer f.Close()
	sum.make(l.ctx, f.src.File)
	l.freed <- tokens{sealers: held.sealers, memory: held.memory - f.Memory()}
	defer func() { l.freed <- tokens{raw: held.raw, memory: f.Memory()} }()
	select {
	case <-l.durable:
	case <-l.ctx.Done():
		return
	}
	if l.failed.Load() {
		return
	}
	stored, err := f.store(l.ctx, l.repo)
	if err != nil {
		l.fail()
		return
	}
	l.stored.Add(1)
	if !sum.store(l.ctx, f.system) {
		return // its own push makes the summary
	}
	_ = l.Memory.remember(name, f.facts, opened, stored.Header.SHA256) // else its own push asks the store
}

// confirm asks the store for the header of a file that was remembered too long ago,
// and remembers it again if it is there. While another repository is down, the
// server's backlog stays ready for hours: to seal all of it again every few minutes,
// to be told that it is there, would cost as much as the outage.
func (l *lookAhead) confirm(name postgres.WALName, opened time.Time) bool {
	sum, _, known := l.Memory.look(name)
	if !known || l.options.System == 0 {
		return false
	}
	facts := l.Memory.facts(name)
	h, err := l.repo.Header(l.ctx, repo.WALKey(l.options.System, name))
	return err == nil && h.SHA256 == sum && l.Memory.remember(name, facts, opened, sum) == nil
}

// seal opens the file as a name found in pg_wal, which must lead nowhere else.
func (l *lookAhead) seal(name postgres.WALName) (*sealedFile, error) {
	src, err := openSource(filepath.Join(l.Memory.walDir(), name.String()), syscall.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return src.seal(l.ctx, l.repo, l.options, repo.SealOptions{Workers: 1, Memory: aheadSpool})
}

// fail ends the looking ahead: nothing is begun any more, and what is sealed
// is not stored.
func (l *lookAhead) fail() {
	l.failed.Store(true)
	l.refrain()
}

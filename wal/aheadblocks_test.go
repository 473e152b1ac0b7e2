package wal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// realWAL is segments of a server, which follow one another, for pushes that
// make block summaries.
type realWAL struct {
	system  postgres.SystemID
	names   []string
	content [][]byte
}

func newRealWAL(t *testing.T, segments int) realWAL {
	c := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{"wal_keep_size": "64MB"}})
	c.Exec(t, "create table words as select i, md5(i::text) w from generate_series(1, 80000) i; select pg_switch_wal()")
	control, err := ReadControl(t.Context(), c.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	w := realWAL{system: control.SystemID}
	seg := segment(t, c.QueryString(t, "select pg_walfile_name(pg_current_wal_lsn() - 6000000)"), 1<<20)
	for range segments {
		raw, err := os.ReadFile(filepath.Join(c.DataDir(), "pg_wal", seg.Name()))
		if err != nil {
			t.Fatal(err)
		}
		w.names, w.content = append(w.names, seg.Name()), append(w.content, raw)
		seg = seg.Next()
	}
	return w
}

func (w realWAL) dataDir(t *testing.T) *dataDir {
	d := newDataDir(t)
	d.names = w.names
	for i, name := range w.names {
		d.put(t, name, w.content[i])
		d.ready(t, name)
	}
	return d
}

// push is the push of a file as archive_command makes it: one that is remembered
// is left out.
func (w realWAL) push(ctx context.Context, a *archive, r *repo.Repo, d *dataDir, name string) error {
	ahead := a.ahead(d)
	ahead.Memory.System, ahead.Blocks = w.system, true
	if _, known := ahead.Memory.Recall(d.file(name)); known {
		return nil
	}
	_, _, err := PushAhead(ctx, r, d.file(name), PushOptions{System: w.system}, ahead)
	return err
}

// summarized is where the summaries of the segments begin and end, by name.
func (w realWAL) summarized(t *testing.T, a *archive) map[string][2]postgres.LSN {
	t.Helper()
	out := map[string][2]postgres.LSN{}
	prefix := repo.BlocksPrefix(w.system, 1)
	for info, err := range a.store.List(t.Context(), prefix) {
		from, to, ok := repo.ParseBlocks(strings.TrimPrefix(info.Key, prefix))
		if err != nil || !ok {
			t.Fatal(info.Key, err)
		}
		out[postgres.SegmentAt(1, to-1, 1<<20).Name()] = [2]postgres.LSN{from, to}
	}
	return out
}

// expectSummaries fails where a file is remembered whose summary is not there.
func (w realWAL) expectSummaries(t *testing.T, what string, a *archive, d *dataDir, but string) (remembered int) {
	t.Helper()
	memory, have := a.memory(d), w.summarized(t, a)
	memory.System = w.system
	for _, name := range d.names {
		_, known := memory.Recall(d.file(name))
		if _, ok := have[name]; known && !ok && name != but {
			t.Errorf("%s: %s is remembered, and its summary is not there", what, name)
		}
		if known {
			remembered++
		}
	}
	return remembered
}

// Whatever operation fails while a push looks ahead: a segment that is remembered
// has its block summary, and when all are pushed the summaries have no hole. Only
// a push whose own summary the store did not take, of itself or in an outage, leaves
// one, since its segment is archived.
func TestSummariesUnderFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("seals much: run in full, without the race detector")
	}
	w := newRealWAL(t, 3)
	own := w.names[0]
	var a *archive
	var d *dataDir
	sweep(t, func(_ fault.Mode, broken func(storage.Store) *fault.Store) (*fault.Store, error) {
		a, d = newArchive(t, mem.New()), w.dataDir(t)
		s := broken(a.store)
		r, err := a.writer(s)
		if err == nil {
			err = w.push(t.Context(), a, r, d, own)
		}
		if !s.Fired() && w.expectSummaries(t, "no fault", a, d, "") != len(w.names) {
			t.Error("without a fault not all are remembered")
		}
		return s, err
	}, func(mode fault.Mode, fired string, err error) {
		what, but := mode.String()+", "+fired, ""
		if mode == fault.Outage {
			but = own
		}
		if _, key, _ := strings.Cut(fired, " "+repo.BlocksPrefix(w.system, 1)); key != "" {
			if _, to, ok := repo.ParseBlocks(key); ok && postgres.SegmentAt(1, to-1, 1<<20).Name() == own {
				but = own
			}
		}
		w.expectSummaries(t, what, a, d, but)
		for _, name := range w.names { // PostgreSQL tries again, and goes on
			if err := w.push(t.Context(), a, a.Repo, d, name); err != nil {
				t.Fatal(err)
			}
		}
		have := w.summarized(t, a)
		for i, name := range w.names {
			if name != but && have[name][1] == 0 || i > 0 && w.names[i-1] != but && have[name][0] != have[w.names[i-1]][1] {
				t.Errorf("%s: there is a hole at %s: %v", what, name, have)
			}
		}
	})
}

// A push is told to end when another segment is durable and its summary is on the
// way.
func TestSummaryIsCutOff(t *testing.T) {
	t.Parallel()
	w := newRealWAL(t, 2)
	a, d := newArchive(t, mem.New()), w.dataDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	summaries := 0
	r := a.open(t, &hookStore{Store: a.store, before: func(opCtx context.Context, key string) error {
		if strings.HasPrefix(key, "blocks/") {
			if summaries++; summaries == 2 { // that of the own file came before
				cancel()
				return context.Cause(opCtx)
			}
		}
		return nil
	}}, "db1")
	if err := w.push(ctx, a, r, d, w.names[0]); err != nil {
		t.Fatal(err)
	}
	if n := w.expectSummaries(t, "cut off", a, d, ""); n != 1 || summaries != 2 {
		t.Errorf("%d segments are remembered, %d summaries were sent", n, summaries)
	}
	if err := w.push(t.Context(), a, a.Repo, d, w.names[1]); err != nil {
		t.Fatal(err)
	}
	if have := w.summarized(t, a); len(have) != 2 || have[w.names[0]][1] != have[w.names[1]][0] {
		t.Errorf("after its own push: %v", have)
	}
}

// A stream makes the summaries that pushes of the same segments make, one after
// the other without a hole, also where the store fails for a segment, which is there
// in slices, while the next one is stored.
func TestStreamMakesTheSummariesOfPushes(t *testing.T) {
	t.Parallel()
	w := newRealWAL(t, 4)
	pushed, d := newArchive(t, mem.New()), w.dataDir(t)
	for _, name := range w.names {
		check(t, w.push(t.Context(), pushed, pushed.Repo, d, name))
	}
	want := w.summarized(t, pushed)
	if len(want) != len(w.names) {
		t.Fatalf("pushes made %v", want)
	}

	a := newArchive(t, mem.New())
	next := make(chan struct{})
	var failed atomic.Bool
	r := a.open(t, &hookStore{Store: a.store, before: func(_ context.Context, key string) error {
		switch {
		case strings.HasSuffix(key, "/"+w.names[2]):
			close(next)
		case strings.HasSuffix(key, "/"+w.names[1]) && !failed.Load():
			<-next
			failed.Store(true)
			return errFlaky
		}
		return nil
	}}, "db1")
	var wait waiting
	tl := newTail(r, w.system, 1<<20, tailPolicy{atOnce: true}, wait.wake)
	tl.sums = newSummaries(r, "")
	begin := segment(t, w.names[0], 1<<20).Start()
	check(t, tl.begin(t.Context(), 1, begin, begin))
	clock, deadline := time.Unix(1800000000, 0), time.Now().Add(time.Minute)
	for sent := 0; len(w.summarized(t, a)) < len(w.names); clock = clock.Add(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute the stream has made %v", w.summarized(t, a))
		}
		if sent < len(w.content) && !tl.full() {
			check(t, tl.add(t.Context(), begin+postgres.LSN(sent)<<20, w.content[sent]))
			sent++
		} else {
			wait.sleep(t.Context(), time.Millisecond)
		}
		if err := tl.collect(clock); err != nil && !errors.Is(err, errFlaky) {
			t.Fatal(err)
		}
		// It is tried again when the next one is done.
		if _, done := w.summarized(t, a)[w.names[2]]; done || !failed.Load() {
			tl.step(t.Context(), clock)
		}
	}
	tl.removing.Wait()
	got := w.summarized(t, a)
	for i, name := range w.names {
		if i > 0 && got[name] != want[name] || got[name][1] != want[name][1] || !failed.Load() {
			t.Errorf("%s: the stream's summary is of %v, that of a push of %v", name, got[name], want[name])
			continue
		}
		if i > 0 && !sameSet(w.load(t, a, got[name]), w.load(t, pushed, got[name])) {
			t.Errorf("%s: the stream's summary names other pages than that of a push", name)
		}
	}
}

func (w realWAL) load(t *testing.T, a *archive, of [2]postgres.LSN) *blocks.Set {
	t.Helper()
	s, err := blocks.Load(t.Context(), a.Repo, w.system, 1, of[0], of[1])
	check(t, err)
	return s.Set
}

// A segment that changes more pages than a summary may name is archived, and remembered
// as one that needs no other push. Who asks what has changed is told of the hole.
func TestSummaryTooLarge(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	d := newDataDir(t, "000000010000000000000003", "000000010000000000000004", "000000010000000000000005")
	ahead := a.ahead(d)
	ahead.Blocks = true
	l := newLookAhead(t.Context(), a.Repo, PushOptions{System: testSystem}, ahead)
	defer l.stop()
	close(l.durable)
	for i, pages := range []uint32{1, 4<<20 + 1, 1} {
		seg := segment(t, d.names[i], 1<<20)
		sum := l.sums.begin(seg)
		set := new(blocks.Set)
		set.Add(blocks.Fork{RelFile: postgres.RelFile{Tablespace: 1663, Database: 5, Number: 16384}}, 0, pages)
		sum.made = &blocks.Summary{From: seg.Start(), To: seg.End(), Set: set} // of the file none can be made
		l.push(walName(t, d.names[i]), tokens{}, sum)
	}
	if n := a.expectTrueMemory(t, d); n != len(d.names) {
		t.Errorf("%d segments are remembered, not %d", n, len(d.names))
	}
	first, last := segment(t, d.names[0], 1<<20), segment(t, d.names[2], 1<<20)
	_, got, err := blocks.Collect(t.Context(), a.Repo, blocks.Range{System: testSystem, Size: 1 << 20, Path: postgres.History{Timeline: 1}.Path(),
		From: first.Start(), To: last.End(), Workers: 1})
	if hole, ok := errors.AsType[*blocks.HoleError](err); !ok || hole.At != first.End() {
		t.Errorf("%+v, %v", got, err)
	}
}

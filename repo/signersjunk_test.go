package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync/atomic"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// counting counts what is read under keys/.
type counting struct {
	storage.Store
	opened atomic.Int64
}

func (s *counting) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	s.opened.Add(1)
	return s.Store.Open(ctx, key, off, n)
}

// crowded lists names under keys/ that are not stored one by one.
type crowded struct {
	storage.Store
	from, to int
}

func (s crowded) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	if prefix != keysPrefix {
		return s.Store.List(ctx, prefix)
	}
	return func(yield func(storage.Info, error) bool) {
		n := s.from
		junk := func(before string) bool {
			for ; n <= s.to && statementKey(n) < before; n++ {
				if !yield(storage.Info{Key: statementKey(n), Size: 100}, nil) {
					return false
				}
			}
			return true
		}
		for info, err := range s.Store.List(ctx, prefix) {
			if err != nil || !junk(info.Key) {
				return
			}
			if n <= s.to && info.Key == statementKey(n) {
				n++
			}
			if !yield(info, err) {
				return
			}
		}
		junk("l")
	}
}

func (s crowded) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if n, rest := numberOf(key); rest == "" && n >= s.from && n <= s.to {
		return fmt.Errorf("create %s: %w", key, fs.ErrExist)
	}
	return s.Store.Create(ctx, key, body)
}

func (s crowded) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if number, rest := numberOf(key); rest == "" && number >= s.from && number <= s.to {
		return io.NopCloser(bytes.NewReader([]byte("junk"))), nil
	}
	return s.Store.Open(ctx, key, off, n)
}

// What nobody who is believed has signed decides nothing, whatever it says of itself.
func TestUnsignedStatementsDecideNothing(t *testing.T) {
	for what, object := range map[string]string{
		"of a later format":                `{"statement":{"format":2},"signature":"AA"}` + "\n",
		"of a later format, with a number": `{"statement":{"format":2,"number":777},"signature":"AA"}` + "\n",
		"junk":                             "junk", "empty": "",
	} {
		w := newWorld(t)
		for _, n := range []int{1, 2, 777, lastNumber} {
			check(t, w.store.Create(t.Context(), statementKey(n), bytes.NewReader([]byte(object))))
		}
		for who, keys := range map[string]Keys{"reader": w.readerKeys(), "writer": w.writerKeys(t)} {
			if _, err := Open(t.Context(), w.store, keys, "x"); err != nil {
				t.Errorf("%s, %s: %v", what, who, err)
			}
		}
		_, writer := w.successor(t)
		check(t, writer.Retire(t.Context(), w.cluster.Signing.Public(), testTime))
		signers, ignored := w.readAgain(t, w.readerKeys()).Signers()
		if len(signers) != 2 || signers[0].Retired == nil || len(ignored) != 0 {
			t.Errorf("%s: %+v, not believed %+v", what, signers, ignored)
		}
	}
}

// Who shares the key of this host and has a later program keeps nobody from archiving.
// Any other signer could have retired this host's.
func TestLaterStatement(t *testing.T) {
	w := newWorld(t)
	next, _ := w.successor(t)
	later := func(by SigningKey) {
		s := Statement{Format: 2, Repository: w.cluster.Repository, Cluster: "shop", Number: 2, Made: testTime, Signer: by.Public().String()}
		w.put(t, statementKey(2), s.marshal(by))
	}
	for _, c := range []struct {
		by      SigningKey
		archive bool
	}{{*w.cluster.Signing, true}, {*next.Signing, false}} {
		later(c.by)
		var format *FormatError
		if _, err := Open(t.Context(), w.store, w.writerKeys(t), "x"); !errors.As(err, &format) {
			t.Errorf("opened: %v", err)
		}
		r, err := OpenToArchive(t.Context(), w.store, w.writerKeys(t), "x")
		if (err == nil) != c.archive || err != nil && !errors.As(err, &format) {
			t.Errorf("opened to archive: %v", err)
		}
		if err == nil {
			check(t, r.CheckSigning(t.Context()))
		}
	}
}

// A statement of a later format that names a signer who is believed, and that somebody else
// has signed, decides nothing either.
func TestForgedLaterStatement(t *testing.T) {
	w := newWorld(t)
	stranger, err := NewClusterKey("shop", w.cluster.Repository)
	check(t, err)
	s := Statement{Format: 2, Repository: w.cluster.Repository, Cluster: "shop", Number: 1, Made: testTime, Signer: w.cluster.Signing.Public().String()}
	w.put(t, statementKey(1), s.marshal(*stranger.Signing))
	for who, keys := range map[string]Keys{"reader": w.readerKeys(), "writer": w.writerKeys(t)} {
		if _, err := Open(t.Context(), w.store, keys, "x"); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
}

// Tens of thousands of objects, a million with LIFEBOAT_SOAK, under every number that comes next: keys are rotated and retired,
// and no reader opens more than the first thousand.
func TestCountlessStatements(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	last := 30_000
	if os.Getenv("LIFEBOAT_SOAK") != "" {
		last = 1_000_000
	}
	junk := &counting{Store: crowded{w.store, 1, last}}
	writer, err := Open(t.Context(), junk, w.writerKeys(t), "db1")
	check(t, err)
	next, err := NewClusterKey("shop", w.cluster.Repository)
	check(t, err)
	check(t, writer.AddSigner(t.Context(), next.Signing.Public(), testTime))
	successor, err := Open(t.Context(), junk, Keys{Cluster: next, Recipients: recipientsOf(t, w.recovery), Trusted: w.cluster.Signers}, "db2")
	check(t, err)
	check(t, successor.Retire(t.Context(), w.cluster.Signing.Public(), testTime))

	junk.opened.Store(0)
	reader, err := Open(t.Context(), junk, w.readerKeys(), "drill")
	check(t, err)
	if n := junk.opened.Load(); n > openNumbers+10 {
		t.Errorf("%d objects were opened", n)
	}
	signers, _ := reader.Signers()
	if len(signers) != 2 || signers[0].Retired == nil || signers[0].Retired.Statements != last+1 {
		t.Errorf("%+v", signers)
	}
	// A signpost that is made up, or moved, points nowhere.
	thief, err := NewClusterKey("shop", w.cluster.Repository)
	check(t, err)
	m := writer.Marker()
	forged := m.signpost(last+3, *thief.Signing)
	moved := statementKey(last+3) + m.signpost(last+1, *w.cluster.Signing)[len(statementKey(1)):]
	late := m.signpost(last+3, *w.cluster.Signing) // by who is retired
	for _, name := range []string{forged, moved, late, statementKey(last + 3)} {
		check(t, w.store.Create(t.Context(), name, bytes.NewReader([]byte("x"))))
	}
	junk.opened.Store(0)
	check(t, reader.loadTrust(t.Context()))
	if n := junk.opened.Load(); n > openNumbers+2 {
		t.Errorf("%d objects were opened beside forged signposts", n)
	}
}

// A place in which junk has the numbers takes the statements all the same, and those
// who copy without a signing key leave no number free below.
func TestCopySignersBesideJunk(t *testing.T) {
	w := newWorld(t)
	check(t, w.store.Create(t.Context(), statementKey(1), bytes.NewReader([]byte("junk"))))
	next, writer := w.successor(t)
	check(t, writer.Retire(t.Context(), w.cluster.Signing.Public(), testTime))
	for what, junk := range map[string]bool{"empty": false, "junk": true} {
		place := mem.New()
		to, err := writer.OpenCopy(t.Context(), place)
		check(t, err)
		if junk {
			for n := 1; n < 5; n++ {
				check(t, place.Create(t.Context(), statementKey(n), bytes.NewReader([]byte("junk"))))
			}
		}
		check(t, writer.CopySigners(t.Context(), to))
		check(t, writer.CopySigners(t.Context(), to)) // there already
		r, err := Open(t.Context(), place, Keys{Cluster: next}, "x")
		check(t, err)
		signers, _ := r.Signers()
		if len(signers) != 2 || to.who().cuts[w.cluster.Signing.Public().String()] == nil {
			t.Errorf("%s: %+v", what, signers)
		}
		if free, err := freeNumber(t.Context(), place, 0); err != nil || free <= r.who().highestThatCounts() {
			t.Errorf("%s: number %d is free below %d (%v)", what, free, r.who().highestThatCounts(), err)
		}
	}
}

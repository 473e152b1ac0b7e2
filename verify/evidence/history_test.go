package evidence_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// What somebody without a key puts among the evidence, large and in many copies, takes
// little memory, and the chain is seen through it.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	ctx, store, mine, foreign := t.Context(), mem.New(), newKey(t), newKey(t)
	repository := strings.Repeat("ab", 16)
	put := func(second int, key repo.SigningKey, detail string) {
		d := sample(second)
		d.Checks[0].Detail = detail
		if _, err := evidence.Put(ctx, store, d, key); err != nil {
			t.Fatal(err)
		}
	}
	put(1, mine, "")
	put(2, foreign, strings.Repeat("x", 1<<20))
	put(3, mine, "")
	junk := bytes.Repeat([]byte("["), evidence.MaxDocument)
	const copies = 9 // together more than what is kept
	for i := range copies {
		if err := store.Create(ctx, evidence.Key(evidence.NewID(time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC))), bytes.NewReader(junk)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := evidence.History(ctx, store, repository, time.Time{}, []repo.PublicKey{mine.Public()})
	if err != nil || len(all) != copies+3 {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	if !slices.IsSortedFunc(all, func(a, b evidence.Entry) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("the entries are not in their order")
	}
	kept, docs := 0, []*evidence.Document{}
	for _, e := range all {
		if kept += len(e.Raw); e.Err == nil {
			docs = append(docs, e.Doc)
		}
	}
	if kept > 64<<20 {
		t.Errorf("%d bytes of what nobody vouches for are kept", kept)
	}
	if len(docs) != 3 || len(docs[0].Drill.Checks) != 1 || docs[0].Raw == nil || len(docs[1].Drill.Checks) != 0 || docs[1].Raw != nil {
		t.Fatalf("documents %+v", docs)
	}
	if broken := evidence.CheckChain(docs); len(broken) != 0 {
		t.Errorf("the chain is broken: %v", broken)
	}
}

// A walk hands out all, in order, or ends with an error; who has seen enough ends it.
func TestWalk(t *testing.T) {
	t.Parallel()
	store := mem.New()
	key := newKey(t)
	const docs = 40 // more than are read ahead
	for i := range docs {
		if _, err := evidence.Put(t.Context(), store, sample(i), key); err != nil {
			t.Fatal(err)
		}
	}
	repository := strings.Repeat("ab", 16)
	walk := func(store storage.Store, most int) (n int, err error) {
		last := ""
		for e, e2 := range evidence.Walk(t.Context(), store, repository, time.Time{}) {
			if e2 != nil {
				return n, e2
			}
			if e.ID <= last || e.Err != nil {
				t.Errorf("%s after %s: %v", e.ID, last, e.Err)
			}
			last = e.ID
			if n++; n == most {
				break
			}
		}
		return n, nil
	}
	for _, most := range []int{1, docs} {
		if n, err := walk(store, most); n != most || err != nil {
			t.Errorf("%d of %d documents, %v", n, most, err)
		}
	}
	ids, err := evidence.List(t.Context(), store, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the store fails")
	if n, err := walk(failing{store, evidence.Key(ids[20]), broken}, docs); n != 20 || !errors.Is(err, broken) {
		t.Errorf("%d documents and %v before the store fails", n, err)
	}
}

// failing is a store that fails when one object is read.
type failing struct {
	storage.Store
	key string
	err error
}

func (f failing) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if key == f.key {
		return nil, f.err
	}
	return f.Store.Open(ctx, key, off, n)
}

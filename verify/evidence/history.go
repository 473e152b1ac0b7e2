package evidence

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// Entry is one document of the history, or why it cannot be used.
type Entry struct {
	ID  string
	Doc *Document
	Err error
	Raw []byte // as it lies in the store; History leaves some out
}

// Walk reads the documents of a repository that began at or after since, oldest first,
// some ahead of the one that it hands out. One that cannot be used is an Entry with an
// error; an error of its own, after which nothing comes, when the store fails.
func Walk(ctx context.Context, store storage.Store, repository string, since time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ids, err := List(ctx, store, since)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		w := &walker{store: store, repository: repository}
		for a := range w.ahead(ctx, ids) {
			r := <-a
			if !yield(r.entry, r.err) || r.err != nil {
				return
			}
			ids = ids[1:]
		}
		if len(ids) > 0 {
			yield(Entry{}, fmt.Errorf("read drill %s: %w", ids[0], context.Cause(ctx)))
		}
	}
}

// What is read ahead, and what of it is decoded at the same time: decoding takes many
// times the size of a document, and what anybody can put there may be as large as one
// can be.
const (
	readAhead = 16
	smallDocs = 256 << 10 // bytes; of larger ones one is decoded at a time
)

type walker struct {
	store      storage.Store
	repository string
	large      sync.Mutex
}

type readEntry struct {
	entry Entry
	err   error
}

// ahead starts to read the documents, in their order, until ctx ends.
func (w *walker) ahead(ctx context.Context, ids []string) <-chan chan readEntry {
	out := make(chan chan readEntry, readAhead-2)
	go func() {
		defer close(out)
		for _, id := range ids {
			one := make(chan readEntry, 1)
			select {
			case out <- one:
			case <-ctx.Done():
				return
			}
			go func() {
				e, err := w.read(ctx, id)
				one <- readEntry{e, err}
			}()
		}
	}()
	return out
}

func (w *walker) read(ctx context.Context, id string) (Entry, error) {
	raw, err := readRaw(ctx, w.store, id)
	if err != nil {
		return Entry{}, err
	}
	if len(raw) > smallDocs {
		w.large.Lock()
		defer w.large.Unlock()
	}
	doc, err := Parse(raw)
	switch {
	case err != nil:
	case doc.Drill.ID != id:
		err = fmt.Errorf("it is the document of drill %s", doc.Drill.ID)
	case doc.Drill.Repository != w.repository:
		err = errors.New("it is a document of another repository")
	}
	if err != nil {
		doc = nil
	}
	return Entry{ID: id, Doc: doc, Err: err, Raw: raw}, nil
}

// mostForeign bounds, in bytes, what History keeps as it lies in the store of what no
// key vouches for.
const mostForeign = 64 << 20

// History is what Walk reads, for who needs all of it. What anybody can put into the
// repository takes little memory: of a document that none of keys has signed only what
// links it to others is kept, and the bytes of those and of what cannot be used up to 64
// MiB together. Without keys nothing is known of who signed, and every document is kept.
func History(ctx context.Context, store storage.Store, repository string, since time.Time, keys []repo.PublicKey) ([]Entry, error) {
	var all []Entry
	left := mostForeign
	for e, err := range Walk(ctx, store, repository, since) {
		if err != nil {
			return nil, err
		}
		if e.Err == nil && (len(keys) == 0 || e.Doc.TrustedBy(keys)) {
			e.Raw = nil // the document has it
		} else {
			if e.Doc != nil {
				e.Doc = e.Doc.link()
			}
			if left -= len(e.Raw); left < 0 {
				e.Raw = nil
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// link is a document of which only the place in the chain is left.
func (d *Document) link() *Document {
	return &Document{Drill: Drill{ID: d.Drill.ID, Repository: d.Drill.Repository, Previous: d.Drill.Previous}, Key: d.Key, SHA256: d.SHA256}
}

package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

const prefix = "drills/"

// Key is where the document of a drill lies.
func Key(id string) string { return prefix + id }

const idTime = "20060102T150405Z"

var idPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$`)
})

// NewID makes the id of a drill that starts now: ids sort by time.
func NewID(now time.Time) string {
	return now.UTC().Format(idTime) + "-" + repo.NewID()[:8]
}

// CheckID says whether id can name a drill.
func CheckID(id string) error {
	if !idPattern().MatchString(id) {
		return fmt.Errorf("%.60q is not the id of a drill (they look like 20260131T020000Z-1a2b3c4d)", id)
	}
	return nil
}

// Began is the time in an id.
func Began(id string) time.Time {
	t, _ := time.Parse(idTime, id[:min(len(id), len(idTime))])
	return t
}

// ErrSecret means that evidence was not stored because it holds a secret key:
// everybody who can read the bucket could read it.
var ErrSecret = errors.New("the evidence holds a secret key: it was not stored")

// Put links the drill to the newest document of the repository, signs it and
// stores it; it is never overwritten. The one drill that may run at a time must
// hold a lease, or two documents name the same one before them. Ids ascend along
// the chain: one that would not, because clocks differ or two drills began in the
// same second, is replaced. ErrSecret when a text in it is a secret key.
func Put(ctx context.Context, store storage.Store, d *Drill, key repo.SigningKey) (*Document, error) {
	ids, err := List(ctx, store, time.Time{})
	if err != nil {
		return nil, err
	}
	d.Previous = nil
	if len(ids) > 0 {
		before, err := readRaw(ctx, store, ids[len(ids)-1])
		if err != nil {
			return nil, fmt.Errorf("link to the drill before: %w", err)
		}
		newest := ids[len(ids)-1]
		d.Previous = &Link{ID: newest, SHA256: sumOf(before)}
		if d.ID <= newest {
			d.ID = NewID(Began(newest).Add(time.Second))
		}
	}
	doc, err := Sign(d, key)
	if err != nil {
		return nil, err
	}
	if repo.HoldsSecret(doc.Raw) {
		return nil, ErrSecret
	}
	if err := store.Create(ctx, Key(d.ID), bytes.NewReader(doc.Raw)); err != nil {
		return nil, fmt.Errorf("store the evidence: %w", err)
	}
	return doc, nil
}

// List returns the ids of all documents that began at or after since, oldest
// first. Other names under drills/ are nothing of ours.
func List(ctx context.Context, store storage.Store, since time.Time) ([]string, error) {
	var ids []string
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list the drills: %w", err)
		}
		id := strings.TrimPrefix(info.Key, prefix)
		if CheckID(id) == nil && !Began(id).Before(since) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Sum is the SHA-256 of a document as it lies in the store, in hexadecimal: what
// Document.SHA256 is of one that was read. fs.ErrNotExist when it is not there.
func Sum(ctx context.Context, store storage.Store, id string) (string, error) {
	raw, err := readRaw(ctx, store, id)
	if err != nil {
		return "", err
	}
	return sumOf(raw), nil
}

func readRaw(ctx context.Context, store storage.Store, id string) ([]byte, error) {
	rc, err := store.Open(ctx, Key(id), 0, MaxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read drill %s: it is gone: %w", id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read drill %s: %w", id, err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(rc)
	if err != nil {
		return nil, fmt.Errorf("read drill %s: %w", id, err)
	}
	return raw, nil
}

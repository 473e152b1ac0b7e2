// Package storage is the one interface between Lifeboat and the place where
// a repository lies, and the few words that go with it.
//
// A store is a flat map from keys to objects, and it is write-once: nothing
// that was created is ever changed. The implementations are in the packages
// below: file, s3, mem and, to make the others fail on purpose, fault.
// Package storetest holds all of them to the same contract.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Store is a write-once object store.
//
// After Create returns nil the object is durable and visible to every reader;
// after an error it is absent or complete, never partial. A key is valid when
// CheckKey accepts it; every method refuses another with an error.
//
// Errors: fs.ErrExist and fs.ErrNotExist (by errors.Is) mean just what the
// methods below say. fs.ErrNotExist is only ever returned when the store
// itself said that the object is not there: a missing bucket, a missing root
// directory, a refused login and a broken connection are other errors, because
// "not in the archive" decides whether PostgreSQL ends recovery.
// fs.ErrPermission means that the store refused for lack of rights.
//
// A Store is safe for concurrent use.
type Store interface {
	// Create stores the whole of body, from its start, under key.
	// It returns fs.ErrExist, and leaves what is there, when the key is taken.
	// Of several concurrent calls for one key exactly one succeeds.
	// The body may be read and rewound several times.
	Create(ctx context.Context, key string, body io.ReadSeeker) error

	// Open reads n bytes of the object from byte off on; n < 0 reads to the
	// end. A range that begins past the end, or ends there early, yields the
	// bytes that are there. fs.ErrNotExist when there is no such object.
	// A read that breaks off midway is an error, never a silent io.EOF.
	Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// Stat describes one object. fs.ErrNotExist when it is not there.
	Stat(ctx context.Context, key string) (Info, error)

	// List yields every object whose key starts with prefix, in ascending
	// byte order of the keys. A prefix need not end at a slash. The first
	// error ends the sequence. No objects is an empty sequence, not an error.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes the object; one that is not there is no error.
	Delete(ctx context.Context, key string) error
}

// Info describes an object.
type Info struct {
	Key     string
	Size    int64     // bytes
	ModTime time.Time // by the store's clock

	// Tag is another number whenever the object was written again, also where size
	// and time are the same: from the ETag of S3, or from what the kernel says of
	// a file, which not even its owner can set. 0 where the store does not tell.
	Tag uint64
}

// ErrKey is returned, wrapped, for a key that CheckKey refuses.
var ErrKey = errors.New("invalid object key")

// MaxKey is the longest key in bytes.
const MaxKey = 512

// CheckKey says whether key can name an object: parts of letters, digits and
// "._-+=" joined by single slashes, none of them "." or "..", at most MaxKey
// bytes. The narrow alphabet needs no escaping in a URL, a path or a shell.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes long, 1 to %d are allowed", ErrKey, len(key), MaxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%w %q: empty, \".\" or \"..\" between slashes", ErrKey, key)
		}
	}
	for i := range len(key) {
		c := key[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("/._-+=", c) >= 0:
		default:
			return fmt.Errorf("%w %q: byte %#x", ErrKey, key, c)
		}
	}
	return nil
}

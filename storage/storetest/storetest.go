// Package storetest holds a storage.Store to the contract that
// storage.Store's comment states.
//
// It needs no testing package, because `lifeboat check-repository` runs it on
// a user's own bucket or directory: all it touches lies under a scratch prefix,
// and it removes that when it is done. Package suite, below, runs it as tests.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Result is the outcome of one check.
type Result struct {
	Name string
	Err  error         // nil when the store keeps its promise
	Took time.Duration // by the local clock
}

// cleanupTime bounds the removal of the scratch objects, which goes on when
// the caller's context has ended.
const cleanupTime = time.Minute

// Check runs every check on store and returns one result each, in a fixed
// order. It creates objects (about 50 of some bytes and one of 20 MiB) under
// prefix, a valid key that holds nothing else, and deletes them at the end.
// The last result, "clean up", says whether that worked. When ctx ends, the
// checks that are left fail with its error.
func Check(ctx context.Context, store storage.Store, prefix string) []Result {
	return CheckTwo(ctx, store, store, prefix)
}

// CheckTwo is Check with a second handle on the same store, through which
// objects made with the first one must be visible.
func CheckTwo(ctx context.Context, store, second storage.Store, prefix string) []Result {
	if err := storage.CheckKey(prefix); err != nil {
		return []Result{{Name: "scratch prefix", Err: err}}
	}
	var results []Result
	for _, c := range checks {
		s := &scratch{Store: store, second: second, root: prefix + "/" + c.directory + "/"}
		results = append(results, timed(c.name, func() error { return c.run(ctx, s) }))
	}
	return append(results, timed("clean up", func() error { return cleanUp(ctx, store, prefix+"/") }))
}

// Paging checks that a listing of n objects is complete and in order, also
// where the store answers in pages (S3: 1000 keys each). It is apart from
// Check because it makes n small objects.
func Paging(ctx context.Context, store storage.Store, prefix string, n int) []Result {
	if err := storage.CheckKey(prefix); err != nil {
		return []Result{{Name: "scratch prefix", Err: err}}
	}
	s := &scratch{Store: store, second: store, root: prefix + "/paging/"}
	return []Result{
		timed(fmt.Sprintf("list %d objects", n), func() error { return checkPaging(ctx, s, n) }),
		timed("clean up", func() error { return cleanUp(ctx, store, prefix+"/") }),
	}
}

func timed(name string, run func() error) Result {
	begin := time.Now()
	err := run()
	return Result{Name: name, Err: err, Took: time.Since(begin)}
}

// cleanUp deletes what lies under prefix and sees that it is gone.
func cleanUp(ctx context.Context, store storage.Store, prefix string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	keys, err := keysOf(ctx, store, prefix)
	if err != nil {
		return err
	}
	err = parallel(len(keys), func(i int) error { return store.Delete(ctx, keys[i]) })
	if err != nil {
		return err
	}
	if left, err := keysOf(ctx, store, prefix); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("%d objects are left after their deletion", len(left)))
	}
	return nil
}

// scratch is a store whose checks keep to one directory of it.
type scratch struct {
	storage.Store
	second storage.Store
	root   string // ends at a slash
}

func (s *scratch) create(ctx context.Context, name, body string) error {
	return s.Create(ctx, s.root+name, bytes.NewReader([]byte(body)))
}

func (s *scratch) createAll(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := s.create(ctx, name, "body of "+name); err != nil {
			return err
		}
	}
	return nil
}

func (s *scratch) read(ctx context.Context, name string, off, n int64) ([]byte, error) {
	return readFrom(ctx, s.Store, s.root+name, off, n)
}

// wantBody reads all of an object and compares.
func (s *scratch) wantBody(ctx context.Context, name, want string) error {
	got, err := s.read(ctx, name, 0, -1)
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("%s holds %s, want %s", name, short(got), short([]byte(want)))
	}
	return nil
}

func readFrom(ctx context.Context, store storage.Store, key string, off, n int64) ([]byte, error) {
	body, err := store.Open(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(body)
	return got, errors.Join(err, body.Close())
}

func keysOf(ctx context.Context, store storage.Store, prefix string) ([]string, error) {
	var keys []string
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

// short shows the bytes of a small body and the size of a large one.
func short(b []byte) string {
	if len(b) > 64 {
		return fmt.Sprintf("%d bytes", len(b))
	}
	return fmt.Sprintf("%q", b)
}

// wantError says what is wrong when err is not of the wanted kind.
func wantError(what string, err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s: no error, want %q", what, want)
	}
	return fmt.Errorf("%s: want %q, got: %w", what, want, err)
}

package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest"
)

// broken is a good store but for the methods that are set.
type broken struct {
	storage.Store
	create func(ctx context.Context, key string, body io.ReadSeeker) error
	open   func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	stat   func(ctx context.Context, key string) (storage.Info, error)
	list   func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error]
	delete func(ctx context.Context, key string) error
}

func (b *broken) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if b.create != nil {
		return b.create(ctx, key, body)
	}
	return b.Store.Create(ctx, key, body)
}

func (b *broken) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if b.open != nil {
		return b.open(ctx, key, off, n)
	}
	return b.Store.Open(ctx, key, off, n)
}

func (b *broken) Stat(ctx context.Context, key string) (storage.Info, error) {
	if b.stat != nil {
		return b.stat(ctx, key)
	}
	return b.Store.Stat(ctx, key)
}

func (b *broken) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	if b.list != nil {
		return b.list(ctx, prefix)
	}
	return b.Store.List(ctx, prefix)
}

func (b *broken) Delete(ctx context.Context, key string) error {
	if b.delete != nil {
		return b.delete(ctx, key)
	}
	return b.Store.Delete(ctx, key)
}

// Each way to break the contract must be seen by some check.
func TestBrokenStoresAreFound(t *testing.T) {
	for name, breakIt := range map[string]func(good storage.Store, b *broken){
		"overwrites": func(good storage.Store, b *broken) {
			b.create = func(ctx context.Context, key string, body io.ReadSeeker) error {
				if storage.CheckKey(key) == nil && ctx.Err() == nil {
					_ = good.Delete(ctx, key)
				}
				return good.Create(ctx, key, body)
			}
		},
		"overwrites in a race": func(good storage.Store, b *broken) {
			b.create = func(ctx context.Context, key string, body io.ReadSeeker) error {
				if _, err := good.Stat(ctx, key); err == nil {
					return fs.ErrExist
				} else if !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				time.Sleep(time.Millisecond)
				if err := good.Create(ctx, key, body); !errors.Is(err, fs.ErrExist) {
					return err
				}
				return nil // as a store without conditional writes would
			}
		},
		"does not rewind": func(good storage.Store, b *broken) {
			b.create = func(ctx context.Context, key string, body io.ReadSeeker) error {
				rest, err := io.ReadAll(body)
				if err != nil {
					return err
				}
				return good.Create(ctx, key, bytes.NewReader(rest))
			}
		},
		"keeps half a body": func(good storage.Store, b *broken) {
			b.create = func(ctx context.Context, key string, body io.ReadSeeker) error {
				if _, err := body.Seek(0, io.SeekStart); err != nil {
					return err
				}
				part, failed := io.ReadAll(body)
				return errors.Join(good.Create(ctx, key, bytes.NewReader(part)), failed)
			}
		},
		"misses the last byte": func(good storage.Store, b *broken) {
			b.open = func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
				if n > 1 {
					n--
				}
				return good.Open(ctx, key, off, n)
			}
		},
		"range past the end is an error": func(good storage.Store, b *broken) {
			b.open = func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
				if info, err := good.Stat(ctx, key); err == nil && off > info.Size {
					return nil, errors.New("416")
				}
				return good.Open(ctx, key, off, n)
			}
		},
		"n = 0 is to the end": func(good storage.Store, b *broken) {
			b.open = func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
				if n == 0 {
					n = -1
				}
				return good.Open(ctx, key, off, n)
			}
		},
		"missing is another error": func(good storage.Store, b *broken) {
			b.stat = func(ctx context.Context, key string) (storage.Info, error) {
				info, err := good.Stat(ctx, key)
				if errors.Is(err, fs.ErrNotExist) {
					err = errors.New("404")
				}
				return info, err
			}
		},
		"missing is empty": func(good storage.Store, b *broken) {
			b.open = func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
				body, err := good.Open(ctx, key, off, n)
				if errors.Is(err, fs.ErrNotExist) {
					return io.NopCloser(strings.NewReader("")), nil
				}
				return body, err
			}
		},
		"lists directory by directory": func(good storage.Store, b *broken) {
			b.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
				return sorted(good.List(ctx, prefix), func(x, y storage.Info) int {
					return slices.Compare(strings.Split(x.Key, "/"), strings.Split(y.Key, "/"))
				})
			}
		},
		"lists whole directories": func(good storage.Store, b *broken) {
			b.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
				if storage.CheckPrefix(prefix) == nil {
					prefix = prefix[:strings.LastIndexByte(prefix, '/')+1]
				}
				return good.List(ctx, prefix)
			}
		},
		"lists without sizes": func(good storage.Store, b *broken) {
			b.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
				return func(yield func(storage.Info, error) bool) {
					for info, err := range good.List(ctx, prefix) {
						info.Size = 0
						if !yield(info, err) {
							return
						}
					}
				}
			}
		},
		"deletes nothing": func(_ storage.Store, b *broken) {
			b.delete = func(ctx context.Context, key string) error {
				return errors.Join(storage.CheckKey(key), ctx.Err())
			}
		},
		"missing cannot be deleted": func(good storage.Store, b *broken) {
			b.delete = func(ctx context.Context, key string) error {
				if _, err := good.Stat(ctx, key); err != nil {
					return err
				}
				return good.Delete(ctx, key)
			}
		},
		"takes any key": func(_ storage.Store, b *broken) {
			b.delete = func(ctx context.Context, key string) error {
				if storage.CheckKey(key) != nil {
					return nil
				}
				return b.Store.Delete(ctx, key)
			}
		},
		"ignores the context": func(good storage.Store, b *broken) {
			b.create = func(ctx context.Context, key string, body io.ReadSeeker) error {
				return good.Create(context.WithoutCancel(ctx), key, body)
			}
		},
		"an ended context means absent": func(good storage.Store, b *broken) {
			b.stat = func(ctx context.Context, key string) (storage.Info, error) {
				info, err := good.Stat(ctx, key)
				if errors.Is(err, context.Canceled) {
					err = errors.Join(err, fs.ErrNotExist)
				}
				return info, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			good := mem.New()
			b := &broken{Store: good}
			breakIt(good, b)
			failed := failures(storetest.Check(context.Background(), b, "scratch"))
			if len(failed) == 0 {
				t.Error("no check found it")
			}
			t.Log(failed)
		})
	}
}

func TestSecondHandleIsUsed(t *testing.T) {
	failed := failures(storetest.CheckTwo(context.Background(), mem.New(), mem.New(), "scratch"))
	if !slices.Equal(failed, []string{"visible to another handle"}) {
		t.Errorf("two stores that have nothing in common: %q", failed)
	}
}

func TestPagingFindsShortListings(t *testing.T) {
	good := mem.New()
	b := &broken{Store: good}
	b.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
		return func(yield func(storage.Info, error) bool) {
			n := 0
			for info, err := range good.List(ctx, prefix) {
				if n++; n > 1000 || !yield(info, err) {
					return
				}
			}
		}
	}
	if failed := failures(storetest.Paging(context.Background(), b, "scratch", 1001)); len(failed) == 0 {
		t.Error("a listing that ends after the first page was not found")
	}
}

// A user's bucket is left as it was found.
func TestCheckCleansUp(t *testing.T) {
	ctx := context.Background()
	s := mem.New()
	for _, key := range []string{"mine", "scratch-not", "scratch.txt"} {
		if err := s.Create(ctx, key, strings.NewReader(key)); err != nil {
			t.Fatal(err)
		}
	}
	if failed := failures(storetest.Check(ctx, s, "scratch")); len(failed) > 0 {
		t.Errorf("a good store fails %q", failed)
	}
	var left []string
	for info, err := range s.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, info.Key)
	}
	if !slices.Equal(left, []string{"mine", "scratch-not", "scratch.txt"}) {
		t.Errorf("left: %q", left)
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var created atomic.Int32
	good := mem.New()
	b := &broken{Store: good}
	b.create = func(ctx context.Context, key string, body io.ReadSeeker) error {
		if created.Add(1) == 10 {
			cancel()
		}
		return good.Create(ctx, key, body)
	}
	results := storetest.Check(ctx, b, "scratch")
	if failed := failures(results); len(failed) == 0 {
		t.Error("an ended context fails no check")
	}
	last := results[len(results)-1]
	if last.Name != "clean up" || last.Err != nil {
		t.Errorf("%s: %v", last.Name, last.Err)
	}
	for info := range good.List(context.Background(), "") {
		t.Errorf("left: %s", info.Key)
	}
}

func TestCheckRefusesBadPrefix(t *testing.T) {
	for _, prefix := range []string{"", "a/", "../a"} {
		if results := storetest.Check(context.Background(), mem.New(), prefix); len(results) != 1 || !errors.Is(results[0].Err, storage.ErrKey) {
			t.Errorf("Check under %q: %v", prefix, results)
		}
	}
}

func failures(results []storetest.Result) []string {
	var failed []string
	for _, r := range results {
		if r.Err != nil {
			failed = append(failed, r.Name)
		}
	}
	return failed
}

func sorted(list iter.Seq2[storage.Info, error], compare func(x, y storage.Info) int) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var all []storage.Info
		for info, err := range list {
			if err != nil {
				yield(info, err)
				return
			}
			all = append(all, info)
		}
		slices.SortFunc(all, compare)
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

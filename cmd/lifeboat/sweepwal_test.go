package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// segments are the archived segments, oldest first.
func (s *sweepSite) segments(t *testing.T) (system postgres.SystemID, names []postgres.WALName) {
	t.Helper()
	systems, err := s.repo(t, s.store).Systems(context.Background())
	if err != nil || len(systems) != 1 {
		t.Fatalf("systems %v, %v", systems, err)
	}
	for info, err := range s.store.List(context.Background(), repo.SystemWALPrefix(systems[0])) {
		if err != nil {
			t.Fatal(err)
		}
		name, err := postgres.ParseWALName(filepath.Base(info.Key))
		if err != nil {
			t.Fatal(err)
		}
		if name.Kind == postgres.WALSegment {
			names = append(names, name)
		}
	}
	if len(names) < 3 {
		t.Fatalf("only %d segments are archived", len(names))
	}
	return systems[0], names
}

func (s *sweepSite) sweepPush(t *testing.T) {
	ctx := context.Background()
	system, names := s.segments(t)
	name := names[len(names)/2]
	path := filepath.Join(t.TempDir(), name.Segment)
	if err := wal.Fetch(ctx, s.repo(t, s.store), system, name, path); err != nil {
		t.Fatal(err)
	}
	want := hashOf(t, path)
	var store storage.Store
	push := func(store storage.Store) error {
		r, err := repo.OpenWriter(ctx, func(context.Context) (storage.Store, error) { return store, nil }, s.keys, "db1")
		if err != nil {
			return err
		}
		_, err = wal.Push(ctx, r, path, wal.PushOptions{System: system})
		return err
	}
	// Each run begins with an empty archive.
	switched := &switchedStore{}
	faultSweep(t, switched, 1, func(broken storage.Store) error {
		store = s.copyStore(t, []string{repo.MarkerKey}, "")
		switched.Store = store
		return push(broken)
	}, func(_ fault.Mode, when string, err error) {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: the push says %v", when, err)
		}
		if err := push(store); err != nil {
			t.Errorf("%s: the push after it: %v", when, err)
		}
		back := filepath.Join(t.TempDir(), "back")
		if err := wal.Fetch(ctx, s.repo(t, store), system, name, back); err != nil {
			t.Errorf("%s: the fetch after it: %v", when, err)
		} else if hashOf(t, back)[10:] != want[10:] {
			t.Errorf("%s: other bytes came back", when)
		}
	})
}

func (s *sweepSite) sweepFetch(t *testing.T) {
	system, names := s.segments(t)
	middle := names[len(names)/2]
	archive := []string{repo.MarkerKey, "wal/"}
	for what, store := range map[string]*mem.Store{
		"there": s.copyStore(t, archive, ""),
		"gap":   s.copyStore(t, archive, repo.WALKey(system, middle)),
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fetched")
			fetch := func(store storage.Store) error {
				if err := os.RemoveAll(path); err != nil {
					return err
				}
				r, err := repo.Open(context.Background(), store, s.keys, "db1")
				if err == nil {
					err = wal.Fetch(context.Background(), r, system, middle, path)
				}
				if _, gap := errors.AsType[*wal.GapError](err); gap && what == "gap" {
					return nil // that is the truth
				}
				return err
			}
			if err := fetch(store); err != nil {
				t.Fatal(err)
			}
			var want string
			if what == "there" {
				want = hashOf(t, path)
			}
			faultSweep(t, store, 1, fetch, func(_ fault.Mode, when string, err error) {
				_, statErr := os.Lstat(path)
				switch {
				case errors.Is(err, wal.ErrNotArchived):
					t.Errorf("%s: the fault is taken for the end of the archive: %v", when, err)
				case err != nil && !errors.Is(err, storage.ErrUnavailable):
					t.Errorf("%s: the fetch says %v", when, err)
				case err != nil && statErr == nil:
					t.Errorf("%s: a file is there after an error", when)
				case err == nil && want != "" && hashOf(t, path) != want:
					t.Errorf("%s: another file came", when)
				}
			})
		})
	}
}

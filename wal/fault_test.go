package wal

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

var faultModes = []fault.Mode{fault.Before, fault.After, fault.Truncate, fault.Outage}

// sweep makes the first operation of work fail, then the second, and so on
// until none is left, in each way. It calls check with what work returned.
func sweep(t *testing.T, work func(mode fault.Mode, broken func(storage.Store) *fault.Store) (*fault.Store, error), check func(mode fault.Mode, fired string, err error)) {
	t.Helper()
	for _, mode := range faultModes {
		fired := 0
		for n := int64(1); ; n++ {
			s, err := work(mode, func(inner storage.Store) *fault.Store {
				return fault.New(inner, fault.Fault{At: n, Mode: mode, Err: storage.ErrUnavailable})
			})
			if !s.Fired() {
				if err != nil && !errors.Is(err, ErrNotArchived) {
					t.Errorf("%v: without a fault: %v", mode, err)
				}
				break
			}
			fired++
			check(mode, s.FiredAt(), err)
		}
		if fired == 0 {
			t.Errorf("%v: no operation failed", mode)
		}
	}
}

func TestPushUnderFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	const name = "000000010000000000000001"
	content := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	path := writeFile(t, name, content)
	var a *archive
	sweep(t, func(_ fault.Mode, broken func(storage.Store) *fault.Store) (*fault.Store, error) {
		a = newArchive(t, mem.New())
		s := broken(a.store)
		r, err := a.writer(s)
		if err != nil {
			return s, err
		}
		_, err = Push(context.Background(), r, path, PushOptions{System: testSystem})
		return s, err
	}, func(_ fault.Mode, fired string, err error) {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s failed, and the push said %v", fired, err)
		}
		a.push(t, name, content) // running again succeeds
		if got := a.fetch(t, name); !bytes.Equal(got, content) {
			t.Errorf("after %s failed, other bytes are archived", fired)
		}
	})
}

func TestFetchUnderFaults(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000001")
	a.pushSegment(t, "000000010000000000000003")
	for _, name := range []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000004", "00000002.history"} {
		absent := errors.Is(tryFetch(t, a.Repo, testSystem, name), ErrNotArchived)
		sweep(t, func(_ fault.Mode, broken func(storage.Store) *fault.Store) (*fault.Store, error) {
			s := broken(a.store)
			r, err := repo.Open(context.Background(), s, a.keys(a.identity), "db1")
			if err == nil {
				err = tryFetch(t, r, testSystem, name)
			}
			if _, gap := errors.AsType[*GapError](err); gap && !s.Fired() {
				err = nil
			}
			return s, err
		}, func(mode fault.Mode, fired string, err error) {
			// That there is any WAL of the system is known from the first name
			// in the listing, whatever happens behind it.
			known := fired == "list "+repo.SystemWALPrefix(testSystem)
			// And that an object is not there is said before an answer can get
			// lost or break off.
			said := strings.HasPrefix(fired, "open wal/") && (mode == fault.After || mode == fault.Truncate)
			if err == nil || errors.Is(err, ErrNotArchived) && !(absent && (known || said)) {
				t.Errorf("%s: %s failed, and the fetch said %v", name, fired, err)
			}
		})
	}
}

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

// Without a fault, and with one that only waits, it is a store like any other.
func TestContract(t *testing.T) {
	for name, f := range map[string]fault.Fault{
		"none":  {},
		"delay": {At: 20, Mode: fault.Delay, Wait: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			s := fault.New(mem.New(), f)
			suite.Run(t, func(*testing.T) storage.Store { return s })
			if s.Fired() != (f.At > 0) {
				t.Errorf("fired: %v", s.Fired())
			}
		})
	}
}

const body = "0123456789"

// full is a store with four objects.
func full(t *testing.T) *mem.Store {
	t.Helper()
	s := mem.New()
	for _, key := range []string{"a", "b", "c", "d"} {
		if err := s.Create(context.Background(), key, strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// operations are one of each kind; what they return beside the error is text.
var operations = []struct {
	name string
	run  func(s storage.Store) (string, error)
}{
	{"create new", func(s storage.Store) (string, error) {
		return "", s.Create(context.Background(), "new", strings.NewReader(body))
	}},
	{"open a", func(s storage.Store) (string, error) {
		r, err := s.Open(context.Background(), "a", 2, -1)
		if err != nil {
			return "", err
		}
		got, err := io.ReadAll(r)
		return string(got), errors.Join(err, r.Close())
	}},
	{"stat a", func(s storage.Store) (string, error) {
		info, err := s.Stat(context.Background(), "a")
		return info.Key, err
	}},
	{"list ", func(s storage.Store) (string, error) {
		var all string
		for info, err := range s.List(context.Background(), "") {
			if err != nil {
				return all, err
			}
			all += info.Key
		}
		return all, nil
	}},
	{"delete a", func(s storage.Store) (string, error) { return "", s.Delete(context.Background(), "a") }},
}

func has(t *testing.T, s storage.Store, key string) bool {
	t.Helper()
	_, err := s.Stat(context.Background(), key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestModes(t *testing.T) {
	special := errors.New("special")
	for _, mode := range []fault.Mode{fault.Before, fault.After, fault.Outage} {
		for _, op := range operations {
			t.Run(fmt.Sprintf("%v/%s", mode, op.name), func(t *testing.T) {
				inner := full(t)
				s := fault.New(inner, fault.Fault{At: 2, Mode: mode, Err: special})
				if !has(t, s, "b") || s.Fired() || s.Ops() != 1 {
					t.Fatalf("the first operation: fired %v, %d operations", s.Fired(), s.Ops())
				}
				got, err := op.run(s)
				if !errors.Is(err, special) || !s.Fired() || s.FiredAt() != op.name {
					t.Errorf("error %v, fired at %q", err, s.FiredAt())
				}
				done := mode == fault.After
				if op.name == "list " && (got == "abcd") != done {
					t.Errorf("the listing gave %q", got)
				}
				if strings.HasPrefix(op.name, "create") && has(t, inner, "new") != done {
					t.Errorf("the object is there: %v", !done)
				}
				if strings.HasPrefix(op.name, "delete") && has(t, inner, "a") == done {
					t.Errorf("the object is there: %v", done)
				}
				_, err = s.Stat(context.Background(), "b")
				if (err != nil) != (mode == fault.Outage) {
					t.Errorf("the operation after: %v", err)
				}
			})
		}
	}
}

func TestTruncate(t *testing.T) {
	for _, op := range operations {
		s := fault.New(full(t), fault.Fault{At: 1, Mode: fault.Truncate})
		got, err := op.run(s)
		switch op.name {
		case "open a":
			if got != "2345" || !errors.Is(err, fault.ErrInjected) {
				t.Errorf("%s: %q, %v", op.name, got, err)
			}
		case "list ":
			if got != "ab" || !errors.Is(err, fault.ErrInjected) {
				t.Errorf("%s: %q, %v", op.name, got, err)
			}
		default:
			if err != nil || s.Fired() || s.Ops() != 0 {
				t.Errorf("%s: %v, fired %v, %d operations", op.name, err, s.Fired(), s.Ops())
			}
		}
	}
}

func TestDelayEndsWithContext(t *testing.T) {
	s := fault.New(full(t), fault.Fault{At: 1, Mode: fault.Delay, Wait: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Stat(ctx, "a"); !errors.Is(err, context.Canceled) || !s.Fired() {
		t.Errorf("%v, fired %v", err, s.Fired())
	}
}

// The sweep of the package comment hits each operation once, and ends.
func TestSweep(t *testing.T) {
	work := func(s storage.Store) error {
		for _, op := range operations {
			if _, err := op.run(s); err != nil {
				return err
			}
		}
		return nil
	}
	var hit []string
	for n := int64(1); ; n++ {
		s := fault.New(full(t), fault.Fault{At: n})
		err := work(s)
		if !s.Fired() {
			if err != nil || s.Ops() != n-1 {
				t.Errorf("without a fault: %v, %d operations", err, s.Ops())
			}
			break
		}
		if !errors.Is(err, fault.ErrInjected) {
			t.Errorf("fault %d: %v", n, err)
		}
		hit = append(hit, s.FiredAt())
	}
	if want := []string{"create new", "open a", "stat a", "list ", "delete a"}; !slices.Equal(hit, want) {
		t.Errorf("hit %q, want %q", hit, want)
	}
}

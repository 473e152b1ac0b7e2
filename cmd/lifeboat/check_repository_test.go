package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest"
)

// Every check of storetest is explained, and nothing else is.
func TestCheckMeanings(t *testing.T) {
	t.Parallel()
	left := map[string]bool{}
	for name := range checkMeanings {
		left[name] = true
	}
	for _, r := range storetest.Check(context.Background(), mem.New(), "check/names") {
		if !left[r.Name] {
			t.Errorf("check %q has no meaning", r.Name)
		}
		delete(left, r.Name)
	}
	for name := range left {
		t.Errorf("there is no check %q", name)
	}
}

// oddStore is a store with faults.
type oddStore struct {
	storage.Store
	noDelete, overwrites bool
}

func (s oddStore) Delete(ctx context.Context, key string) error {
	if s.noDelete {
		return fmt.Errorf("delete %s: %w", key, storage.ErrDenied)
	}
	return s.Store.Delete(ctx, key)
}

func (s oddStore) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if s.overwrites && storage.CheckKey(key) == nil && ctx.Err() == nil {
		if err := s.Store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return s.Store.Create(ctx, key, body)
}

func checked(s storage.Store) (*checkReport, string) {
	r := &checkReport{Outcome: checkOK, Scratch: scratchPrefix()}
	r.checkStore(context.Background(), s, s)
	var text strings.Builder
	r.write(&text)
	return r, text.String()
}

// A database host may not delete. That is no failure, and it is said what stays.
func TestCheckWithoutDelete(t *testing.T) {
	t.Parallel()
	inner := mem.New()
	r, text := checked(oddStore{Store: inner, noDelete: true})
	if err := r.failure(); err != nil || r.Outcome != checkOK {
		t.Errorf("%v, outcome %s\n%s", err, r.Outcome, text)
	}
	if r.count(checkNoDelete) < 3 || r.count(checkOK) < 8 {
		t.Errorf("%d checks met a deletion, %d passed\n%s", r.count(checkNoDelete), r.count(checkOK), text)
	}
	there := 0
	for _, err := range inner.List(context.Background(), r.Scratch+"/") {
		if err != nil {
			t.Fatal(err)
		}
		there++
	}
	if r.Left != there || there == 0 || !strings.Contains(text, fmt.Sprintf("%d objects of these checks, about 20 MiB, stay under %s/", there, r.Scratch)) {
		t.Errorf("%d objects stay, %d are reported\n%s", there, r.Left, text)
	}
}

// A server that ignores If-None-Match is found out.
func TestCheckOfAStoreThatOverwrites(t *testing.T) {
	t.Parallel()
	r, text := checked(oddStore{Store: mem.New(), overwrites: true})
	own, ok := errors.AsType[*commandError](r.failure())
	if !ok || own.code != exitFailed || own.hint == "" || r.Outcome != checkFailed {
		t.Fatalf("%v\n%s", r.failure(), text)
	}
	if !strings.Contains(text, "a taken key keeps its object: no backup and no WAL is ever overwritten") || !strings.Contains(own.Error(), "a taken key keeps its object") {
		t.Errorf("%v\n%s", own, text)
	}
	if r.Left != 0 {
		t.Errorf("%d objects stay", r.Left)
	}
}

// A backup takes away what crashes left in a directory, but not what is new.
func TestSweep(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	store, err := file.Init(root)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "new": 23 * time.Hour} {
		path := filepath.Join(root, "~tmp", name)
		if err := os.WriteFile(path, []byte("half of a pack"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	var stderr strings.Builder
	a := &app{ui: &ui{stderr: &stderr}, now: func() time.Time { return now }}
	a.sweep(context.Background(), store)
	left, err := os.ReadDir(filepath.Join(root, "~tmp"))
	if err != nil || len(left) != 1 || left[0].Name() != "new" || !strings.Contains(stderr.String(), "removed 1 unfinished file") {
		t.Errorf("%v, %v, %q", left, err, stderr.String())
	}
	a.sweep(context.Background(), mem.New()) // has nothing of the kind
}

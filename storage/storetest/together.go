package storetest

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

func checkRace(ctx context.Context, s *scratch) error {
	const writers, rounds = 16, 3
	for round := range rounds {
		name := fmt.Sprintf("contested-%d", round)
		var won atomic.Int32
		var winner atomic.Value
		var gate sync.WaitGroup // until all are there
		gate.Add(writers)
		err := parallelBy(writers, writers, func(i int) error {
			body := fmt.Sprintf("written by %d", i)
			gate.Done()
			gate.Wait()
			err := s.create(ctx, name, body)
			if err == nil {
				won.Add(1)
				winner.Store(body)
				return nil
			}
			return wantError("Create that lost", err, fs.ErrExist)
		})
		if err != nil {
			return err
		}
		if won.Load() != 1 {
			return fmt.Errorf("%d of %d concurrent creates of one key succeeded", won.Load(), writers)
		}
		if err := s.wantBody(ctx, name, winner.Load().(string)); err != nil {
			return err
		}
	}
	return nil
}

func checkSecond(ctx context.Context, s *scratch) error {
	if err := s.create(ctx, "a", "hello"); err != nil {
		return err
	}
	got, err := readFrom(ctx, s.second, s.root+"a", 0, -1)
	if err != nil {
		return err
	}
	if string(got) != "hello" {
		return fmt.Errorf("the second handle reads %s", short(got))
	}
	keys, err := keysOf(ctx, s.second, s.root)
	if err != nil {
		return err
	}
	if !slices.Equal(keys, []string{s.root + "a"}) {
		return fmt.Errorf("the second handle lists %q", keys)
	}
	err = s.second.Create(ctx, s.root+"a", strings.NewReader("x"))
	if err := wantError("Create through the second handle", err, fs.ErrExist); err != nil {
		return err
	}
	if err := s.second.Delete(ctx, s.root+"a"); err != nil {
		return err
	}
	_, err = s.Stat(ctx, s.root+"a")
	return wantError("Stat after deletion through the second handle", err, fs.ErrNotExist)
}

// checkMany makes, reads and deletes objects in the same directories at once. One
// object stays in each: servers that keep objects as files may fail a Create
// that meets the removal of the directory it goes to (versitygw 1.8 does).
func checkMany(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "directory/0/stays", "directory/1/stays"); err != nil {
		return err
	}
	return parallelBy(24, 8, func(i int) error {
		store := s.Store
		if i%3 == 0 {
			store = s.second
		}
		key := s.root + fmt.Sprintf("directory/%d/x%d", i%2, i)
		body := strings.Repeat(key, 100)
		if err := store.Create(ctx, key, strings.NewReader(body)); err != nil {
			return err
		}
		got, err := readFrom(ctx, store, key, 0, -1)
		if err != nil {
			return err
		}
		if string(got) != body {
			return fmt.Errorf("%s holds %s", key, short(got))
		}
		return store.Delete(ctx, key)
	})
}

// randomBytes are the same in every run, and do not compress.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// parallel runs work(0) … work(n-1), 16 at a time, and returns one error of theirs.
func parallel(n int, work func(i int) error) error { return parallelBy(n, 16, work) }

func parallelBy(n, workers int, work func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(n, workers) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = work(i)
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

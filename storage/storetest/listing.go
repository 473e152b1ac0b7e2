package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/storage"
)

func checkList(ctx context.Context, s *scratch) error {
	// '+', '-' and '.' sort before '/', the digits after it: a walk from
	// directory to directory gets that wrong.
	names := []string{
		"a+b", "a-", "a-b/c", "a.b", "a/b", "a/b.d/x", "a/c", "a/c-d/e", "a0", "a=b", "aB", "a_", "ab/c", "abc",
		"b/a/a", "b/a-", "b/b", "c",
	}
	slices.Sort(names)
	// Made in another order than listed.
	for _, i := range []int{7, 0, 16, 3, 11, 5, 1, 9, 14, 2, 17, 4, 12, 6, 8, 15, 10, 13} {
		if err := s.createAll(ctx, names[i]); err != nil {
			return err
		}
	}
	prefixes := []string{"", "a", "a/", "a/b", "a/b/", "a/b.", "a/c", "a-", "a-b", "a-b/", "ab", "ab/", "b", "b/a", "b/a/", "b/a/a", "c", "c/", "d", "nowhere/x"}
	for _, prefix := range prefixes {
		var want []string
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				want = append(want, s.root+name)
			}
		}
		got, err := keysOf(ctx, s, s.root+prefix)
		if err != nil {
			return fmt.Errorf("list(%q): %w", prefix, err)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("list(%q) gives\n%q, want\n%q", s.root+prefix, got, want)
		}
	}
	for info, err := range s.List(ctx, s.root+"a/b.d/") {
		if err != nil {
			return err
		}
		if want := int64(len("body of a/b.d/x")); info.Size != want || info.ModTime.IsZero() {
			return fmt.Errorf("list says that %s has %d bytes and is of %v, want %d bytes and a time", info.Key, info.Size, info.ModTime, want)
		}
		if one, err := s.Stat(ctx, info.Key); err != nil || one.Tag != info.Tag {
			return fmt.Errorf("stat gives %s the tag %x (%v), list %x", info.Key, one.Tag, err, info.Tag)
		}
	}
	for _, bad := range []string{"/", "//", "../", "a b"} {
		if _, err := keysOf(ctx, s, s.root+bad); !errors.Is(err, storage.ErrKey) {
			return fmt.Errorf("list(%q): %v, want %q", s.root+bad, err, storage.ErrKey)
		}
	}
	return nil
}

func checkListStop(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "a", "b/c", "b/d", "e"); err != nil {
		return err
	}
	for stop := 1; stop <= 4; stop++ {
		seen := 0
		for _, err := range s.List(ctx, s.root) {
			if err != nil {
				return err
			}
			if seen++; seen == stop {
				break
			}
		}
		if seen != stop {
			return fmt.Errorf("the listing gave %d objects, want %d at least", seen, stop)
		}
	}
	return nil
}

func checkPaging(ctx context.Context, s *scratch, n int) error {
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprintf("%s%d/%05d", s.root, i%3, i)
	}
	err := parallel(n, func(i int) error { return s.Create(ctx, want[i], strings.NewReader("x")) })
	if err != nil {
		return err
	}
	slices.Sort(want)
	got, err := keysOf(ctx, s, s.root)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("the listing of %d objects has %d, or is out of order", len(want), len(got))
	}
	return nil
}

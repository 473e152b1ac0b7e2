package storage

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestErrorsAreApart(t *testing.T) {
	kinds := []error{ErrNoStore, ErrDenied, ErrCredentials, ErrUnavailable}
	for i, a := range kinds {
		if errors.Is(a, fs.ErrNotExist) || errors.Is(a, fs.ErrExist) {
			t.Errorf("%v counts as an answer about an object", a)
		}
		for j, b := range kinds {
			if i != j && errors.Is(a, b) {
				t.Errorf("%v counts as %v", a, b)
			}
		}
	}
	if !errors.Is(ErrDenied, fs.ErrPermission) {
		t.Error("ErrDenied is not fs.ErrPermission")
	}
}

func TestCheckPrefix(t *testing.T) {
	for _, ok := range []string{"", "a", "a/", "a/b", "a/.", "a/..", "wal/7.d/0-"} {
		if err := CheckPrefix(ok); err != nil {
			t.Errorf("CheckPrefix(%q) = %v", ok, err)
		}
	}
	for _, bad := range []string{"/", "/a", "a//", "./a", "../", "a/../b", "a b", "ä", "a\x00", "~tmp/", strings.Repeat("a", MaxKey)} {
		if err := CheckPrefix(bad); !errors.Is(err, ErrKey) {
			t.Errorf("CheckPrefix(%q) = %v, want ErrKey", bad, err)
		}
	}
}

func TestCheckKey(t *testing.T) {
	for _, ok := range []string{"a", "lifeboat.json", "a/b", "wal/7/00000001/000000010000000000000001.d/0+=_-", ".a", "a/...", strings.Repeat("a", MaxKey)} {
		if err := CheckKey(ok); err != nil {
			t.Errorf("CheckKey(%q) = %v", ok, err)
		}
	}
	for _, bad := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\\b", "a b", "a\n", "a*", "ä", "a:b", strings.Repeat("a", MaxKey+1)} {
		if err := CheckKey(bad); !errors.Is(err, ErrKey) {
			t.Errorf("CheckKey(%q) = %v, want ErrKey", bad, err)
		}
	}
}

func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"a/b", "..", "a/../b", "a//b", "~tmp/x", "a\x00b", "packs/0123"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if CheckKey(key) != nil {
			return
		}
		// A valid key is a path below its root, as io/fs understands it.
		if !fs.ValidPath(key) || key == "." || strings.ContainsAny(key, "\\\x00~%?# ") {
			t.Fatalf("CheckKey accepts %q", key)
		}
		for i := range len(key) {
			if err := CheckPrefix(key[:i]); err != nil {
				t.Fatalf("CheckPrefix refuses %q, the start of %q: %v", key[:i], key, err)
			}
		}
	})
}

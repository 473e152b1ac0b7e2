package server_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// Of what a hostile server can put in the place of a file, none is followed, waited
// for or read to its end.
func TestReadForeign(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	for path, text := range map[string]string{"secret": "secret", "data/plain": "plain", "data/large": "0123456789"} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("../secret", filepath.Join(data, "link")), os.Symlink("plain", filepath.Join(data, "inside")),
		os.Symlink("..", filepath.Join(data, "up")), syscall.Mkfifo(filepath.Join(data, "pipe"), 0o600), os.Mkdir(filepath.Join(data, "directory"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"plain": nil, "link": server.ErrNotPlain, "inside": server.ErrNotPlain, "pipe": server.ErrNotPlain, "directory": server.ErrNotPlain,
		"large": server.ErrTooLarge, "none": fs.ErrNotExist,
	} {
		text, err := server.ReadForeign(data, name, 6)
		if !errors.Is(err, want) || want == nil && string(text) != "plain" {
			t.Errorf("%s: %q, %v, want %v", name, text, err, want)
		}
		if _, _, err := server.ReadForeignTail(data, name, 0, 3); want != server.ErrTooLarge && !errors.Is(err, want) {
			t.Errorf("the end of %s: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"up/secret", "../secret"} {
		if text, err := server.ReadForeign(data, name, 100); err == nil {
			t.Errorf("%s: %q was read", name, text)
		}
	}
	if tail, whole, err := server.ReadForeignTail(data, "large", 0, 3); string(tail) != "789" || whole || err != nil {
		t.Errorf("%q %t %v", tail, whole, err)
	}
}

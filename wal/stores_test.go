package wal

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

// eachStore runs a test on every store that a user can have.
func eachStore(t *testing.T, test func(t *testing.T, store storage.Store)) {
	t.Run("file", func(t *testing.T) { test(t, newFileStore(t)) })
	t.Run("s3", func(t *testing.T) {
		server := s3test.Start(t, s3test.Options{TLS: true})
		store, err := s3.New(context.Background(), s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint,
			CAFile: server.CAFile, PathStyle: true, Prefix: "main"})
		if err != nil {
			t.Fatal(err)
		}
		test(t, store)
	})
}

func newFileStore(t testing.TB) *file.Store {
	t.Helper()
	return fileStoreAt(t, filepath.Join(t.TempDir(), "repository"))
}

func fileStoreAt(t testing.TB, root string) *file.Store {
	t.Helper()
	store, err := file.Init(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// rawObject reads the bytes of an object.
var rawObject = suite.Read

// replaceObject does what no one may: it puts other bytes under a key.
func replaceObject(t testing.TB, store storage.Store, key string, raw []byte) {
	t.Helper()
	if err := store.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(context.Background(), key, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

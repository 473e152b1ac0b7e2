// Package suite runs package storetest's checks as tests, and holds what tests
// of any store share. It stands apart from storetest so that the program does
// not link the testing package.
package suite

import (
	"context"
	"io"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/storetest"
)

// pagingObjects is more than the 1000 that S3 lists in one answer.
const pagingObjects = 1100

// Run holds a store to the contract. Each call of open returns another handle
// on one and the same store, which is alive until the test ends.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	t.Helper()
	first, second := open(t), open(t)
	report(t, storetest.CheckTwo(context.Background(), first, second, "scratch/contract"))
	report(t, storetest.Paging(context.Background(), first, "scratch", pagingObjects))
}

func report(t *testing.T, results []storetest.Result) {
	t.Helper()
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			t.Logf("took %v", r.Took)
			if r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
}

// Read reads all of an object that must be there.
func Read(t testing.TB, store storage.Store, key string) []byte {
	t.Helper()
	rc, err := store.Open(context.Background(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

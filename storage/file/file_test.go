package file_test

import (
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

func TestContract(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "store")
	suite.Run(t, func(t *testing.T) storage.Store {
		s, err := file.Init(root)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

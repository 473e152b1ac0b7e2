package mem_test

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

func TestContract(t *testing.T) {
	store := mem.New()
	suite.Run(t, func(*testing.T) storage.Store { return store })
}

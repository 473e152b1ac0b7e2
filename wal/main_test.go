package wal

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m, nil) }

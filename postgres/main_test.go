package postgres_test

import (
	"os"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m, nil) }

// needOwnProgram skips a test that compares with a program of the very version
// under test, where the installation has the server alone.
func needOwnProgram(t testing.TB, name string) {
	t.Helper()
	in := servertest.Find(t)
	if _, err := os.Stat(in.Path(name)); err != nil {
		t.Skipf("this test compares with %s of PostgreSQL %d: %v", name, in.Major, err)
	}
}

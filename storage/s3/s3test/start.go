package s3test

import (
	"os"
	"strings"
	"sync"
)

// TB is what Start needs of a *testing.T or *testing.B. It keeps the testing
// package out of programs that use StartServer.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
	TempDir() string
}

// Start starts a server for a test and stops it when the test ends. All servers of a
// process have the same credentials, which stay in its environment, so that the AWS SDK
// finds these and nothing else, and tests can run side by side. It fails the test when
// there is no server program.
func Start(t TB, o Options) *Server {
	t.Helper()
	o.accessKey, o.secretKey = processKeys()
	s, err := StartServer(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	})
	if err := setEnv(s.Env()); err != nil {
		t.Fatal(err)
	}
	return s
}

// processKeys are the credentials of all servers of this process.
var processKeys = sync.OnceValues(newKeys)

// envSet is taken while the environment is set.
var envSet sync.Mutex

func setEnv(pairs []string) error {
	envSet.Lock()
	defer envSet.Unlock()
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

package s3test

import "strings"

// TB is what Start needs of a *testing.T or *testing.B. It keeps the testing
// package out of programs that use StartServer.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
	TempDir() string
	Setenv(key, value string)
}

// Start starts a server for a test, sets the environment so that the AWS SDK
// finds its credentials and nothing else, and stops it when the test ends. It
// fails the test when there is no server program.
func Start(t TB, o Options) *Server {
	t.Helper()
	s, err := StartServer(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	})
	for _, pair := range s.Env() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	return s
}

package servertest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// bindirVariable names the directory of the server programs to test with.
const bindirVariable = "LIFEBOAT_PG_BINDIR"

// defaultMajor is the version tested when nothing else is said.
const defaultMajor = 15

// patience bounds every wait for a server.
const patience = 2 * time.Minute

// Options says what server a test wants. The zero value is a fresh server of
// the version under test with PostgreSQL's own defaults.
type Options struct {
	// Major is the version; 0 means that in LIFEBOAT_PG_BINDIR, else 15. A
	// test that names a version which is not installed is skipped.
	Major int

	WALSegmentSize int  // bytes; 0 means 16 MiB
	Checksums      bool // page checksums

	// OwnSystemIdentifier runs initdb for this server alone. Otherwise servers
	// with the same segment size and checksums are copies of one data
	// directory, and so share its system identifier.
	OwnSystemIdentifier bool

	// Settings are written to postgresql.conf by New, and given on the command
	// line by Open, which leaves the files as they are.
	Settings map[string]string

	// Env is set in the server's environment, and so in that of the commands
	// that it calls, besides that of the test: NAME=VALUE each.
	Env []string

	// Stopped leaves the server stopped; Start starts it.
	Stopped bool
}

// Cluster is one server of a test. Methods that fail end the test.
type Cluster struct {
	Install server.Install

	dataDir  string
	sockDir  string
	settings map[string]string
	env      []string
	srv      *server.Server // nil when stopped
	killed   []*server.Server
}

// fastSettings cost nothing a test could notice: with fsync off only a crash
// of the whole machine loses data, and mmap keeps shared memory in the data
// directory, where a killed server's goes away with the test's directory.
var fastSettings = map[string]string{
	"fsync":                      "off",
	"dynamic_shared_memory_type": "mmap",
	"shared_buffers":             "16MB",
}

// Find returns the installation under test.
func Find(t testing.TB) server.Install {
	t.Helper()
	return find(t, 0)
}

func find(t testing.TB, major int) server.Install {
	t.Helper()
	if major != 0 {
		in, err := server.Find(major, "")
		if err != nil {
			t.Skipf("this test needs PostgreSQL %d: %v", major, err)
		}
		return in
	}
	dir := os.Getenv(bindirVariable)
	if dir == "" {
		major = defaultMajor
	}
	in, err := server.Find(major, dir)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// New makes a data directory and starts a server on it. At the end of the test
// the server is stopped and everything is gone.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	in := find(t, o.Major)
	dataDir := filepath.Join(t.TempDir(), "data")
	makeDataDir(t, in, dataDir, o)
	c := newCluster(t, in, dataDir, nil)
	c.env = o.Env
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		c.Setting(t, name, o.Settings[name])
	}
	if !o.Stopped {
		c.Start(t)
	}
	return c
}

// Open starts a server on a data directory that is there, such as a restored
// one. At the end of the test the server is stopped; the directory stays. Of
// the options Major, Settings and Stopped count.
func Open(t testing.TB, dataDir string, o Options) *Cluster {
	t.Helper()
	c := newCluster(t, find(t, o.Major), dataDir, o.Settings)
	c.env = o.Env
	if !o.Stopped {
		c.Start(t)
	}
	return c
}

func newCluster(t testing.TB, in server.Install, dataDir string, settings map[string]string) *Cluster {
	t.Helper()
	// Not t.TempDir: the name of the test would make the socket's path too long.
	sockDir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Install: in, dataDir: dataDir, sockDir: sockDir, settings: maps.Clone(fastSettings)}
	maps.Copy(c.settings, settings)
	t.Cleanup(func() { c.cleanUp(t) })
	return c
}

func (c *Cluster) cleanUp(t testing.TB) {
	if c.srv != nil {
		if t.Failed() {
			t.Logf("log of the server on %s:\n%s", c.dataDir, c.srv.LogTail())
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := c.srv.Stop(ctx, server.Immediate); err != nil {
			t.Error(err)
			c.Kill9(t)
		}
	}
	for _, srv := range c.killed {
		if err := srv.ReleaseSharedMemory(); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(c.sockDir); err != nil {
		t.Error(err)
	}
}

// Start starts the server and waits until it accepts connections.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	if err := c.TryStart(t); err != nil {
		t.Fatal(err)
	}
}

// environment is nil, which is the test's own, when nothing is added to it.
func (c *Cluster) environment() []string {
	if len(c.env) == 0 {
		return nil
	}
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	return append(own, c.env...)
}

// TryStart is Start for a test that expects the server to refuse. After an
// error nothing runs.
func (c *Cluster) TryStart(t testing.TB) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	srv, err := server.Start(ctx, c.Install, server.Options{
		DataDir: c.dataDir, SocketDir: c.sockDir, Settings: c.settings, Env: c.environment(), DieWithParent: true,
	})
	if err != nil {
		return err
	}
	if err := srv.WaitReady(ctx); err != nil {
		c.srv = srv
		c.Kill9(t)
		return err
	}
	c.srv = srv
	return nil
}

// Stop shuts the server down and waits for it.
func (c *Cluster) Stop(t testing.TB, mode server.Mode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.running(t).Stop(ctx, mode); err != nil {
		t.Fatal(err)
	}
	c.srv = nil
}

// Restart stops the server in fast mode and starts it.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.Stop(t, server.Fast)
	c.Start(t)
}

// Kill9 ends every process of the server with SIGKILL at one moment, the
// commands it runs included.
func (c *Cluster) Kill9(t testing.TB) {
	t.Helper()
	srv := c.running(t)
	if err := srv.Kill(); err != nil {
		t.Fatal(err)
	}
	c.srv, c.killed = nil, append(c.killed, srv)
}

// Server is the running server.
func (c *Cluster) Server(t testing.TB) *server.Server {
	t.Helper()
	return c.running(t)
}

func (c *Cluster) running(t testing.TB) *server.Server {
	t.Helper()
	if c.srv == nil {
		t.Fatalf("the server on %s does not run", c.dataDir)
	}
	return c.srv
}

// DataDir is the data directory.
func (c *Cluster) DataDir() string { return c.dataDir }

// SocketDir is the directory of the socket: libpq's host. It is the same for the
// life of the Cluster.
func (c *Cluster) SocketDir() string { return c.sockDir }

// ConnString is a libpq connection string for the superuser.
func (c *Cluster) ConnString() string {
	return server.ConnString(c.sockDir, server.DefaultPort, "postgres", "postgres")
}

// Log is the end of the server's log.
func (c *Cluster) Log(t testing.TB) string {
	t.Helper()
	return c.running(t).LogTail()
}

// Setting writes a parameter to postgresql.conf, where the last line counts. A
// running server reads it before Setting returns; parameters that need a
// restart wait for one.
func (c *Cluster) Setting(t testing.TB, name, value string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(c.dataDir, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value)
	if _, err := fmt.Fprintf(f, "%s = '%s'\n", name, quoted); err != nil {
		t.Fatal(err)
	}
	if c.srv == nil {
		return
	}
	const loaded = "select pg_conf_load_time()"
	before := c.QueryString(t, loaded)
	if err := c.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "the server reads its configuration", func() bool { return c.QueryString(t, loaded) != before })
}

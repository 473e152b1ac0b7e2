// Package servertest runs real PostgreSQL servers for tests.
//
// A package that starts servers calls Main from its TestMain. New then gives a
// test a fresh, running server that is gone when the test is, and Command the
// path of a program that the test binary itself plays, such as the
// archive_command of that server.
//
// The package reads the environment, which only tests may: LIFEBOAT_PG_BINDIR
// names the directory of the server programs to test with.
package servertest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// rootVariable hands the scratch directory on to the processes below.
const rootVariable = "LIFEBOAT_TEST_ROOT"

// Main runs the tests of a package, or one of its commands, and exits. It is
// for TestMain alone:
//
//	func TestMain(m *testing.M) {
//		servertest.Main(m, map[string]func() int{"lifeboat": run})
//	}
//
// When the base name of the program is a key of commands, that function runs
// and its result is the exit code. Otherwise the tests run, with a copy of the
// test binary under each command's name in PATH: the commands work in
// testscript files too.
//
// PostgreSQL refuses to run as root. When root runs the tests, the test binary
// is copied to a directory that all can read and run again by the account
// postgres, else nobody, with the same arguments, working directory and exit
// code. When the checkout lies behind a directory closed to that account, the
// process may on Linux read what the account could not; a test that needs a
// refusal to read asks Unprivileged.
//
// HOME, TMPDIR and GOCACHE lie in one scratch directory. It is removed at the
// end; what a killed run left is removed by the next one.
func Main(m *testing.M, commands map[string]func() int) {
	funcs := make(map[string]func(), len(commands))
	for name, run := range commands {
		funcs[name] = func() { os.Exit(run()) }
	}
	if _, ok := funcs[filepath.Base(os.Args[0])]; ok {
		testscript.Main(m, funcs)
	}
	if os.Getenv(rootVariable) != "" { // run again by root's process, or a fuzz worker
		testscript.Main(m, funcs)
	}

	scratch, err := makeScratch()
	if err != nil {
		fail(err)
	}
	if os.Geteuid() == 0 {
		code, err := runUnprivileged(scratch)
		err = errors.Join(err, scratch.remove())
		if err != nil {
			fail(err)
		}
		os.Exit(code)
	}
	for name, value := range scratch.environment() {
		os.Setenv(name, value)
	}
	testscript.Main(tidy{m, scratch}, funcs)
}

// tidy removes the scratch directory behind the tests.
type tidy struct {
	m       *testing.M
	scratch *scratch
}

func (t tidy) Run() int {
	code := t.m.Run()
	if err := t.scratch.remove(); err != nil {
		fmt.Fprintln(os.Stderr, "servertest:", err)
		return max(code, 1)
	}
	return code
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "servertest:", err)
	os.Exit(1)
}

// Command returns the path of a program that plays one of the commands given
// to Main.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("command %s: not among those given to servertest.Main: %v", name, err)
	}
	return path
}

// copyFile copies the bytes of a regular file.
func copyFile(to, from string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

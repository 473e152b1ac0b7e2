package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

func TestMain(m *testing.M) {
	servertest.Main(m, map[string]func() int{
		"lifeboat": func() int {
			enterFence()
			enterDrill()
			defer tellPeak(os.Getenv(peakVariable))
			cleanEnvironment()
			ownState()
			return runAlone(os.Args[1:])
		},
		"lifeboat-broken": func() int {
			cleanEnvironment()
			a := newApp()
			a.constructors = []func(*app) *cli.Command{brokenCommands, versionCommand}
			return a.run(os.Args[1:])
		},
	})
}

// cleanEnvironment takes out the variables of the tests themselves, which
// Lifeboat would refuse as unknown.
func cleanEnvironment() {
	os.Unsetenv("LIFEBOAT_TEST_ROOT")
	os.Unsetenv(peakVariable)
}

// peakVariable names the file to which a program that the tests start writes how much
// memory it has taken. The kernel's own figure for a child that has ended counts what
// its parent had before exec (setmax_mm_hiwater_rss in fs/exec.c).
const peakVariable = "LIFEBOAT_TEST_PEAK"

// tellPeak writes the process's high-water mark, in KiB, to a file, if there is to be one.
func tellPeak(path string) {
	if path == "" {
		return
	}
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
		line, _, _ := bytes.Cut(after, []byte("kB"))
		err = os.WriteFile(path, bytes.TrimSpace(line), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// ownState keeps the tests' programs from the state of the machine that they run on.
func ownState() {
	if os.Getenv("STATE_DIRECTORY") == "" {
		os.Setenv("STATE_DIRECTORY", filepath.Join(os.TempDir(), "lifeboat-state"))
	}
}

// brokenCommands is "wal fetch" and "wal push" of a program with faults.
func brokenCommands(a *app) *cli.Command {
	broken := func(name string) *cli.Command {
		return &cli.Command{Name: name, Flags: configFlags(), Action: func(c *cli.Context) error {
			switch c.Args().First() {
			case "panic":
				panic("a fault")
			case "panic-elsewhere":
				go func() { panic("in a goroutine") }()
				select {}
			case "wait":
				a.note("waiting")
				<-c.Context.Done()
				return fmt.Errorf("give up: %w", c.Context.Err())
			case "config":
				_, err := a.config(c, "repository")
				return err
			case "missing":
				return &notArchivedError{fmt.Errorf("%s is not in the archive", c.Args().Get(1))}
			case "code":
				n, _ := strconv.Atoi(c.Args().Get(1))
				return failed(exitCode(n), "failed with\n%d", n).hinted("try\nagain")
			case "warn":
				p := a.newProgress("copying")
				p.update(10<<20, 20<<20)
				a.warn("first\nsecond")
				p.close()
			}
			return nil
		}}
	}
	return &cli.Command{Name: "wal", Subcommands: []*cli.Command{broken("push"), broken("fetch"), broken("other")}}
}

// scriptT gives the commands of a script its *testing.T.
type scriptT struct{ *testing.T }

func (s scriptT) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

func (s scriptT) Verbose() bool { return testing.Verbose() }

// TestScripts runs the files in testdata/script, each in a directory of its own.
// Beside testscript's commands they have
//
//	status CODE PROGRAM [ARGUMENT]…   run it and expect this exit code
//	mode FILE OCTAL                   expect these permissions
//	cluster                           start a PostgreSQL server; sets $PGDATA, $CONN and $PGBIN
func TestScripts(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "testdata", "script")
	testscript.RunT(scriptT{t}, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Values["t"] = env.T().(scriptT).T
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  scriptStatus,
			"mode":    scriptMode,
			"cluster": scriptCluster,
		},
	})
}

// shellStatus is the status that a shell, and so PostgreSQL, sees.
func shellStatus(p *os.ProcessState) int {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return p.ExitCode()
}

// scriptStatus is "status CODE PROGRAM ARGUMENT…".
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE PROGRAM [ARGUMENT]…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	have := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		have = shellStatus(exit.ProcessState)
	}
	if have != want {
		ts.Fatalf("exit code %d, want %d", have, want)
	}
}

func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE OCTAL")
	}
	want, err := strconv.ParseUint(args[1], 8, 32)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode().Perm() != fs.FileMode(want) {
		ts.Fatalf("%s has mode %04o, want %04o", args[0], info.Mode().Perm(), want)
	}
}

func scriptCluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: cluster")
	}
	c := servertest.New(ts.Value("t").(*testing.T), servertest.Options{})
	ts.Setenv("PGDATA", c.DataDir())
	ts.Setenv("CONN", c.ConnString())
	ts.Setenv("PGBIN", c.Install.BinDir)
}

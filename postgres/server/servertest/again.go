package servertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// runUnprivileged runs this test binary again as an account without rights and
// returns its exit code.
func runUnprivileged(s *scratch) (int, error) {
	account, err := unprivilegedAccount()
	if err != nil {
		return 0, err
	}
	self, err := s.copySelf()
	if err != nil {
		return 0, err
	}
	for _, sub := range []string{"home", "tmp", "out"} {
		if err := os.Chown(filepath.Join(s.dir, sub), int(account.UID), int(account.GID)); err != nil {
			return 0, err
		}
	}
	bindir, err := s.reachableBindir()
	if err != nil {
		return 0, err
	}
	args, outputs := redirectOutputs(os.Args[1:], filepath.Join(s.dir, "out"))

	cmd := exec.Command(self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	for name, value := range s.environment() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, "USER="+account.Name, "LOGNAME="+account.Name, bindirVariable+"="+bindir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: account.UID, Gid: account.GID, Groups: account.Groups},
	}
	confine(cmd.SysProcAttr, !passable("."))

	code, err := runForwarding(cmd)
	if err != nil {
		return 0, fmt.Errorf("run the tests as %s: %w", account, err)
	}
	for _, o := range outputs {
		if err := o.bring(); err != nil {
			return 0, fmt.Errorf("output of the tests: %w", err)
		}
	}
	return code, nil
}

// unprivilegedAccount is postgres, which Debian's packages make, else nobody.
func unprivilegedAccount() (*server.Account, error) {
	account, err := server.LookupAccount("postgres")
	if err != nil {
		var other error
		if account, other = server.LookupAccount("nobody"); other != nil {
			return nil, fmt.Errorf("root cannot run PostgreSQL and there is no other account: %w", errors.Join(err, other))
		}
	}
	return account, nil
}

// copySelf copies the test binary: go test puts it in a directory that is closed
// to other accounts.
func (s *scratch) copySelf() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, filepath.Base(self))
	if err := copyFile(path, self, 0o755); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o755)
}

// reachableBindir is the directory of the server programs to test with, or a copy
// of that installation when another account cannot reach it: the programs look
// for each other with access(2), which heeds no capabilities.
func (s *scratch) reachableBindir() (string, error) {
	dir := os.Getenv(bindirVariable)
	if dir == "" || passable(dir) {
		return dir, nil
	}
	install, err := filepath.Abs(filepath.Dir(dir))
	if err != nil {
		return "", err
	}
	copied := filepath.Join(s.dir, "postgresql")
	if err := copyTree(copied, install, true); err != nil {
		return "", fmt.Errorf("copy the server programs, which another account cannot reach: %w", err)
	}
	return filepath.Join(copied, filepath.Base(dir)), nil
}

// runForwarding runs cmd, hands on the signals that this process gets, and
// returns the exit code, 128 + n for a death by signal n as shells do. The
// thread is kept because the parent-death signal follows it, see prctl(2).
func runForwarding(cmd *exec.Cmd) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case sig := <-signals:
				cmd.Process.Signal(sig)
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		fmt.Fprintf(os.Stderr, "servertest: the test process ended by signal: %v\n", ws.Signal())
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// output is a file or directory that the tests write instead of one that only
// root can.
type output struct{ made, wanted string }

// redirectOutputs changes the flags of go test that name files to write. The
// test log, from which go test learns what a cached result depends on, goes
// away: a result on a real server is not cached.
func redirectOutputs(args []string, dir string) (changed []string, outputs []output) {
	for _, arg := range args {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !ok || value == "" {
			changed = append(changed, arg)
			continue
		}
		made := filepath.Join(dir, strings.ReplaceAll(name, ".", "-"))
		switch name {
		case "test.testlogfile":
			continue
		case "test.fuzzcachedir":
			changed = append(changed, "-"+name+"="+made)
			continue
		case "test.gocoverdir", "test.outputdir":
			os.Mkdir(made, 0o777) // if it fails, so does the test process, with a message
			os.Chmod(made, 0o777)
		case "test.coverprofile", "test.cpuprofile", "test.memprofile", "test.blockprofile", "test.mutexprofile", "test.trace":
		default:
			changed = append(changed, arg)
			continue
		}
		changed = append(changed, "-"+name+"="+made)
		outputs = append(outputs, output{made: made, wanted: value})
	}
	return changed, outputs
}

// bring copies what was made to where it was wanted.
func (o output) bring() error {
	info, err := os.Stat(o.made)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		if err := os.MkdirAll(o.wanted, 0o777); err != nil {
			return err
		}
		return os.CopyFS(o.wanted, os.DirFS(o.made))
	}
	os.Remove(o.wanted)
	return copyFile(o.wanted, o.made, 0o644)
}

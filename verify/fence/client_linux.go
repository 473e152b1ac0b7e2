package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that a client hands on: those that mean something
// to a postmaster.
var forwarded = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}

// runClient asks init for a program and stands for it outside. It ends as the
// program does.
func runClient(args, env []string) error {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded...)
	var uid, gid int
	if len(args) < 2 {
		return errors.New("fence: nothing to run")
	}
	if _, err := fmt.Sscanf(args[0], "%d:%d", &uid, &gid); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	args = args[1:]
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	// Whoever may signal the program inside may signal this process, and it needs
	// no more than that.
	if err := changeAccount(uid, gid); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	ours, err := ask(request{PID: os.Getpid(), Dir: dir, Args: args, Env: env})
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	first, err := receive(ours)
	switch {
	case err != nil:
		return err
	case first.Error != "":
		return fmt.Errorf("fence: run %s: %s", args[0], first.Error)
	}
	go func() {
		for s := range signals {
			_, _ = ours.Write([]byte{byte(s.(syscall.Signal))})
		}
	}()
	last, err := receive(ours)
	if err != nil {
		return err
	}
	if last.Signal != 0 {
		die(syscall.Signal(last.Signal))
	}
	os.Exit(last.Code)
	return nil
}

// ask sends the request and returns the socket that the answers come by.
func ask(r request) (*os.File, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(text) > maxRequest {
		return nil, fmt.Errorf("the command line has %d bytes, %d are possible", len(text), maxRequest)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Sendmsg(controlFD, text, unix.UnixRights(fds[1], 0, 1, 2), nil, 0); err != nil {
		return nil, fmt.Errorf("the fence has ended: %w", err)
	}
	unix.Close(fds[1])
	return os.NewFile(uintptr(fds[0]), "program"), nil
}

func receive(f *os.File) (reply, error) {
	buf := make([]byte, 64<<10)
	n, err := f.Read(buf)
	if err != nil {
		return reply{}, errors.New("fence: what ran inside was killed with the fence")
	}
	var r reply
	return r, json.Unmarshal(buf[:n], &r)
}

// die ends this process by a signal, as the program inside has ended, without a
// core of this one.
func die(s syscall.Signal) {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s)
	if s != syscall.SIGKILL {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // Go keeps some of them
	}
	select {}
}

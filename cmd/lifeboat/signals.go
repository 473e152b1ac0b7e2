package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// signalled is the cause of a context that a signal ended.
type signalled struct{ sig syscall.Signal }

func (e signalled) Error() string {
	return fmt.Sprintf("stopped by a signal (%s)", e.sig)
}

// withSignals returns a context that SIGINT, SIGTERM and SIGHUP end, so that a
// command can put things in order. A second signal kills at once.
//
// A signal that was ignored when we started (nohup) stays ignored.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(caught, sig)
		}
	}
	go func() {
		select {
		case sig := <-caught:
			signal.Stop(caught)
			cancel(signalled{sig.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(caught)
		cancel(nil)
	}
}

// interruption returns the error of a command that a signal ended, with the
// exit code of shells, 128 + the signal; nil when none did. For a fetch that
// is also what PostgreSQL wants: on 128 + SIGTERM its startup process takes
// part in the shutdown that sent the signal (RestoreArchivedFile in
// xlogarchive.c).
func interruption(ctx context.Context) error {
	s, ok := errors.AsType[signalled](context.Cause(ctx))
	if !ok {
		return nil
	}
	return &commandError{code: exitCode(128 + int(s.sig)), err: s}
}

// dieBySignal makes a panic in any goroutine, and any other fault of the Go
// runtime, end the process by SIGABRT and not with Go's exit code 2, which
// PostgreSQL would take for the end of the archive. No core is written: the
// memory holds keys.
func dieBySignal() {
	debug.SetTraceback("crash")
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

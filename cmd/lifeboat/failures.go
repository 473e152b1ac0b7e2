package main

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// failure is a row of the table from errors to exit codes and hints.
type failure struct {
	match func(error) (hint string, ok bool)
	code  exitCode
}

// is matches errors by errors.Is and gives one hint for all of them.
func is(target error, hint string) func(error) (string, bool) {
	return func(err error) (string, bool) { return hint, errors.Is(err, target) }
}

// as matches errors by type; the hint can use the facts they carry.
func as[E error](hint func(E) string) func(error) (string, bool) {
	return func(err error) (string, bool) {
		e, ok := errors.AsType[E](err)
		if !ok {
			return "", false
		}
		return hint(e), true
	}
}

// failures is the one table from domain errors to exit code and hint. The
// first row that matches counts, so the particular stand before the general.
func failures() []failure {
	return []failure{
		{is(context.DeadlineExceeded, "it took too long; check the network, or give it more time"), exitFailed},
		{is(syscall.ENOSPC, "the disk is full: make room and run it again"), exitFailed},
		{is(fs.ErrPermission, "run as the user that owns the files (mostly postgres), and check the rights to the repository"), exitFailed},
	}
}

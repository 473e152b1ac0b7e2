package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
)

// exitCode is what the process exits with.
type exitCode int

// The exit codes. They are an interface: scripts, timers and PostgreSQL decide
// by them. Never change the meaning of one.
const (
	exitOK      exitCode = 0
	exitFailed  exitCode = 1
	exitUsage   exitCode = 2
	exitMissed  exitCode = 3
	exitUnknown exitCode = 4
	exitBusy    exitCode = 75  // EX_TEMPFAIL of sysexits.h
	exitFetch   exitCode = 200 // above 125, not 128 + a signal
)

// contract says who reads the exit code, and so what a code may mean.
type contract int

const (
	contractUser     contract = iota // people, scripts and timers
	contractPush                     // PostgreSQL's archive_command
	contractFetch                    // PostgreSQL's restore_command
	contractPrefetch                 // nobody, or PostgreSQL by mistake
)

// codeDoc is one line of the table of exit codes.
type codeDoc struct {
	code    string
	meaning string
}

// exitCodes is the table that help prints; docs/exit-codes.md holds the same,
// and a test compares the two.
func (c contract) exitCodes() []codeDoc {
	switch c {
	case contractPush:
		return []codeDoc{
			{"0", "the segment is durable in the archive"},
			{"1", "failed; PostgreSQL keeps the segment and tries again"},
			{"2", "usage: the command line or the configuration is wrong; PostgreSQL keeps the segment"},
			{"75", "somebody else holds the lease; PostgreSQL keeps the segment"},
		}
	case contractFetch:
		return []codeDoc{
			{"0", "the file is in place"},
			{"1", "proven not to be in the archive: the end of the archive; with --standby, for a standby, also a store that fails"},
			{"130, 143", "stopped by SIGINT or SIGTERM; PostgreSQL stops too"},
			{"200", "any other failure; PostgreSQL stops instead of taking it for the end of the archive"},
		}
	case contractPrefetch:
		return []codeDoc{{"0", "always: what was not fetched ahead is fetched when it is asked for"}}
	}
	return []codeDoc{
		{"0", "done"},
		{"1", "failed"},
		{"2", "usage: the command line or the configuration is wrong"},
		{"3", "an objective was missed, a drill failed, or the repository has gone back from what this host has seen"},
		{"4", "unknown: it could not be proven either way"},
		{"75", "somebody else holds the lease; try again later"},
		{"129, 130, 143", "stopped by SIGHUP, SIGINT or SIGTERM"},
	}
}

// contractOf says by whose rules a command line must end, even one that cannot
// be parsed. A misspelt restore_command that exits with 2 would make
// PostgreSQL take the archive for ended and open without the rest of it, so
// the names that PostgreSQL gives the file it wants (RestoreArchivedFile in
// xlogarchive.c, XLogFileRead in xlogrecovery.c, readTimeLineHistory in
// timeline.c) are enough to be treated as a fetch.
func contractOf(args []string) contract {
	found := contractUser
	wal := false
	for _, arg := range args {
		switch base := filepath.Base(arg); {
		case base == "RECOVERYXLOG", base == "RECOVERYHISTORY", wal && arg == "fetch":
			return contractFetch
		case wal && arg == "push":
			found = contractPush
		case wal && arg == "prefetch" && found == contractUser:
			found = contractPrefetch
		case arg == "wal":
			wal = true
		}
	}
	return found
}

// allow maps a code to one that the reader of this contract may see. absent
// says that the error is the archive's proven "there is no such file", or one
// that a standby may take for it.
func (c contract) allow(code exitCode, absent bool) exitCode {
	switch c {
	case contractPush:
		// Above 125 PostgreSQL's archiver dies (pgarch_archiveXlog in
		// pgarch.c); it would be started again, after a pause.
		if code < 1 || code > 125 {
			return exitFailed
		}
	case contractFetch:
		// 1 to 125 end recovery and open the server, 143 makes the startup
		// process leave quietly, all else above 125 stops it with an error
		// (RestoreArchivedFile in xlogarchive.c).
		switch {
		case absent:
			return exitFailed
		case code > 128 && code < 128+65: // a signal stopped us
			return code
		}
		return exitFetch
	case contractPrefetch:
		// Where PostgreSQL is the first process of a container, it inherits a
		// prefetch, and takes a code other than 0 or 1 for the crash of one of
		// its own (CleanupBackend in postmaster.c).
		return exitOK
	}
	return code
}

// commandError is an error that brings its own exit code and hint, for what
// only the command line knows. Domain errors get theirs from failures.
type commandError struct {
	code exitCode
	hint string
	err  error
}

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

// hinted sets the hint: one line, what to do next.
func (e *commandError) hinted(format string, args ...any) *commandError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// usage is an error in the command line or the configuration.
func usage(format string, args ...any) *commandError {
	return &commandError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// failed is an error with an exit code chosen by the command.
func failed(code exitCode, format string, args ...any) *commandError {
	return &commandError{code: code, err: fmt.Errorf(format, args...)}
}

// notArchivedError is the proof that the archive does not hold a file. Only
// "wal fetch" makes one, and only from the archive's own word.
type notArchivedError struct{ err error }

func (e *notArchivedError) Error() string { return e.err.Error() }
func (e *notArchivedError) Unwrap() error { return e.err }

// classify finds exit code and hint for an error.
func classify(err error) (exitCode, string) {
	if own, ok := errors.AsType[*commandError](err); ok {
		return own.code, own.hint
	}
	if f, ok := errors.AsType[*drill.Failure](err); ok && f.Code != 0 {
		return exitCode(f.Code), f.Hint
	}
	for _, f := range failures() {
		if hint, ok := f.match(err); ok {
			return f.code, hint
		}
	}
	return exitFailed, ""
}

// fail prints err and returns the code to exit with.
func (a *app) fail(err error, c contract) int {
	code, hint := classify(err)
	if hint == "" && code == exitUsage && a.command != "" {
		hint = fmt.Sprintf("\"%s --help\" explains it", a.command)
	}
	_, proven := errors.AsType[*notArchivedError](err)
	_, again := errors.AsType[*askAgainError](err)
	code = c.allow(code, proven || again)
	if proven && c == contractFetch {
		// Not a failure: recovery asks until it is told this, a standby every
		// few seconds.
		a.note("lifeboat: %s", err)
		return int(code)
	}
	a.printError(oneLine(err.Error()), oneLine(hint), code)
	return int(code)
}

// oneLine folds line breaks, and what else could end or forge a line of a log.
func oneLine(s string) string {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	parts = slices.DeleteFunc(parts, func(p string) bool { return strings.TrimSpace(p) == "" })
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
	}
	return strings.Map(func(r rune) rune {
		if repo.Steers(r) {
			return ' '
		}
		return r
	}, strings.Join(parts, "; "))
}

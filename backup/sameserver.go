package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// A server of the same system is not yet the one of these files: the other one
// of a pair of primary and standby answers as well. PostgreSQL refuses to start
// from the label of the one with the control file of the other (InitWalRecovery
// in access/transam/xlogrecovery.c), so that mix must never become a backup.

// role is what the server says it is.
func (f facts) role() string {
	if f.standby {
		return "a standby"
	}
	return "a primary"
}

// fits says whether a control file in this state is that of the server.
func (f facts) fits(state postgres.DBState) bool {
	if f.standby {
		return state == postgres.DBInArchiveRecovery
	}
	return state == postgres.DBInProduction
}

// checkState makes sure that the server that answers is in the state which the
// control file of the data directory shows.
func (f facts) checkState(dataDir string, state postgres.DBState) error {
	if f.fits(state) {
		return nil
	}
	return &MismatchError{fmt.Sprintf("the server is %s, but the control file in %s says %q: these are not the files that the server works on",
		f.role(), dataDir, state)}
}

// A standby that is promoted says so a moment before its control file does, and
// the file is read before the server is asked.
const (
	statePause = 20 * time.Millisecond
	stateTries = 20
)

// settle asks server and control file who they are until they agree.
func (s *server) settle(ctx context.Context, dataDir string) (facts, error) {
	for try := 1; ; try++ {
		f, err := s.identify(ctx, dataDir)
		if err != nil || f.fits(f.control.State) {
			return f, err
		}
		if try == stateTries {
			return f, f.checkState(dataDir, f.control.State)
		}
		if err := sleep(ctx, statePause); err != nil {
			return f, err
		}
	}
}

// A server notes when it was started in postmaster.pid at once, and for SQL when
// it is nearly up: memory, libraries and left temporary files come in between.
const (
	startedBefore = 2 * time.Second // both are of one clock, one is cut to seconds
	startedAfter  = time.Minute
)

// otherStart says when server and postmaster.pid differ in when the server was
// started: two standbys, or a primary and its clone, differ in nothing else that every
// role may ask. It is no proof, as a clock may have been set while the server started;
// "" for nothing to say.
func (s *server) otherStart(ctx context.Context, dataDir string) (string, error) {
	noted, ok := postmasterStart(dataDir)
	if !ok {
		return "", nil
	}
	var said time.Time
	if err := s.conn.QueryRow(ctx, "select pg_postmaster_start_time()").Scan(&said); err != nil {
		return "", fmt.Errorf("ask the server when it was started: %w", err)
	}
	if d := said.Sub(noted); d < -startedBefore || d > startedAfter {
		return fmt.Sprintf("the server was started at %s, but that of %s at %s: see that conn leads to the server that runs on pgdata",
			said.UTC().Format(time.RFC3339), dataDir, noted.UTC().Format(time.RFC3339)), nil
	}
	return "", nil
}

// postmasterStart is line 3 of postmaster.pid (src/include/utils/pidfile.h).
func postmasterStart(dataDir string) (time.Time, bool) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	lines := strings.SplitN(string(text), "\n", 4)
	if err != nil || len(lines) < 4 {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	return time.Unix(seconds, 0), err == nil && seconds > 0
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

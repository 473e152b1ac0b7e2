// Package early answers PostgreSQL's restore_command when the segment is in the
// queue, before the rest of the program comes to life.
//
// PostgreSQL starts a process for every segment and waits for it. Most of that
// process's time goes into what its libraries do at the start (the SDK of S3
// alone has five megabytes of tables and patterns), none of which a hand-over
// needs. Go initialises packages in the order of their import paths as soon as
// what they import is done (language specification, "Program initialization";
// since 1.21), so this one, which imports next to nothing, comes before nearly
// all others. docs/adr/005-hand-over-before-init.md has the measurement.
//
// Nothing is decided here. Whatever is not plainly a segment that lies ready
// for this very command line goes on to main, which does the same and the rest;
// without this package everything works, only slower.
package early

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// Wait is how long a call waits for a prefetch that has begun with the very
// segment that PostgreSQL wants.
const Wait = 8 * time.Second

func init() {
	if handedOver(os.Args[1:]) {
		os.Exit(0)
	}
}

// handedOver does all of a "wal fetch" if the queue has the segment.
func handedOver(args []string) (done bool) {
	name, path, ok := operands(args)
	if !ok {
		return false
	}
	// No fault here may end the process with Go's exit code 2, which PostgreSQL
	// takes for the end of the archive.
	debug.SetTraceback("crash")
	defer func() {
		if recover() != nil {
			done = false
		}
	}()
	dir, err := os.Getwd()
	if err != nil {
		return false
	}
	raw, err := os.ReadFile(filepath.FromSlash(postgres.ControlPath))
	if err != nil {
		return false
	}
	control, err := postgres.ParseControlFile(raw)
	if err != nil {
		return false
	}
	q, err := queue.New(dir, control, Source(args, os.Environ(), dir, name.Segment, path))
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	took, waited, err := q.Take(ctx, name, path)
	note(args, err)
	if !took {
		return false
	}
	fill, err := q.Asked(name, waited)
	note(args, err)
	if fill {
		note(args, StartPrefetch(args, os.Environ(), dir, name.Segment, path))
	}
	return true
}

// operands finds the segment and the path on a restore_command's line.
func operands(args []string) (name postgres.WALName, path string, ok bool) {
	verb := slices.Index(args, "fetch")
	if verb < 1 || args[verb-1] != "wal" {
		return name, "", false
	}
	for i, arg := range args[:len(args)-1] {
		n, err := postgres.ParseWALName(arg)
		if i > verb && err == nil && n.Kind == postgres.WALSegment {
			path = args[i+1]
			return n, path, path != "" && path[0] != '-'
		}
	}
	return name, "", false
}

// note says in a line that fetching ahead does not work.
func note(args []string, err error) {
	if err != nil && !slices.Contains(args, "--quiet") {
		fmt.Fprintf(os.Stderr, "lifeboat: nothing is fetched ahead: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// Source tells one source of WAL from another without understanding it: the
// same command line but for the words given by drop, the same variables and
// the same configuration file mean the same repository and keys. So what is in
// a queue was put there for a line that the program has understood.
func Source(args, environ []string, dir string, drop ...string) string {
	rest := common(args, drop)
	named := ""
	for i, arg := range rest {
		switch flag, value, joined := strings.Cut(arg, "="); {
		case flag != "--config" && flag != "-c" && flag != "-config":
		case joined:
			named = value
		case i+1 < len(rest):
			named = rest[i+1]
		}
	}
	facts := slices.Clone(rest)
	for _, e := range environ {
		// Those of LIFEBOAT_TEST_ are for the program's own tests.
		if strings.HasPrefix(e, "LIFEBOAT_") && !strings.HasPrefix(e, "LIFEBOAT_TEST_") {
			facts = append(facts, e)
			if value, ok := strings.CutPrefix(e, "LIFEBOAT_CONFIG="); ok && named == "" {
				named = value
			}
		}
	}
	files := []string{named}
	if named == "" {
		files = []string{"lifeboat.yaml", "/etc/lifeboat/lifeboat.yaml"}
	}
	for _, path := range files {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if info, err := os.Stat(path); err == nil {
			facts = append(facts, fmt.Sprint(path, " ", info.Size(), " ", info.ModTime().UnixNano()))
		}
	}
	return strings.Join(facts, "\x00")
}

// common is what the command lines of a fetch and of the prefetch that it
// starts have in common.
func common(args, drop []string) []string {
	rest := slices.Clone(args)
	for _, word := range append([]string{"wal", "fetch", "prefetch"}, drop...) {
		if i := slices.Index(rest, word); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		}
	}
	return rest
}

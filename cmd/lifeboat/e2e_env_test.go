package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// memoryAll makes the hostile manifests as large as there may be, instead of a sixteenth.
var memoryAll = flag.Bool("memory-all", false, "hold every command to its memory with the largest manifests that there may be")

// site is a cluster that is backed up by the program itself: a server whose
// archive_command it is, a configuration, and a repository.
type site struct {
	*servertest.Cluster
	dir      string
	config   string
	identity string
	env      []string // for the program and the server's children
	bucket   *s3test.Server
}

// siteOptions says what site a test wants; the zero value is a directory as
// repository and PostgreSQL's defaults.
type siteOptions struct {
	server servertest.Options
	s3     bool
	way    func(target string) string // a proxy's address on the way to S3's, both host:port
	initdb func(dataDir string)       // changes the data directory before the first start
}

func newSite(t *testing.T, o siteOptions) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	s.config, s.identity = filepath.Join(s.dir, "lifeboat.yaml"), filepath.Join(s.dir, "test-recovery.key")
	url := "file://" + filepath.Join(s.dir, "repository")
	if o.s3 {
		var err error
		s.bucket, err = s3test.StartServer(t.TempDir(), s3test.Options{TLS: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.bucket.Stop() })
		s.env = s.bucket.Env()
		endpoint := s.bucket.Endpoint
		if o.way != nil {
			endpoint = "https://" + o.way(strings.TrimPrefix(endpoint, "https://"))
		}
		url = fmt.Sprintf("s3://%s/e2e?endpoint=%s&path_style=true&ca_file=%s&region=us-east-1", s.bucket.Bucket, endpoint, s.bucket.CAFile)
	}
	o.server.Stopped = true
	s.Cluster = servertest.New(t, o.server)
	if o.initdb != nil {
		o.initdb(s.DataDir())
	}
	s.run(t, "init", "--cluster", "test", "--pgdata", s.DataDir(), "--repository", url, "--conn", s.ConnString())
	s.Setting(t, "archive_mode", "on")
	s.Setting(t, "archive_command", s.command(t, `wal push "%p"`))
	s.Start(t)
	return s
}

// command is a shell line that runs the program with this site's environment.
func (s *site) command(t *testing.T, args string) string {
	t.Helper()
	var words []string
	for _, e := range s.env {
		words = append(words, postgres.ShellWord(e))
	}
	line := fmt.Sprintf("%s --config %s %s", servertest.Command(t, "lifeboat"), s.config, args)
	if len(words) > 0 {
		line = "env " + strings.Join(words, " ") + " " + line
	}
	return line
}

// exec runs the program with the site's configuration and returns its exit code
// and what it printed.
func (s *site) exec(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runProgram(t, s.dir, s.env, append(args, "--config", s.config)...)
}

func runProgram(t *testing.T, dir string, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	limit := 3 * time.Minute
	if *memoryAll {
		limit *= 10
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, servertest.Command(t, "lifeboat"), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), errs.String()
}

// run runs the program and fails the test unless it exits with 0.
func (s *site) run(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := s.exec(t, args...)
	if code != 0 {
		t.Fatalf("lifeboat %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// flush brings all WAL written so far into the archive.
func (s *site) flush(t *testing.T) {
	t.Helper()
	// A record, so that there is something to switch away from.
	s.Exec(t, "select pg_logical_emit_message(false, 'test', 'flush')")
	name := s.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	s.waitArchived(t, name)
}

func (s *site) waitArchived(t *testing.T, segment string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for s.QueryString(t, "select coalesce(max(last_archived_wal), '') from pg_stat_archiver where last_archived_wal !~ 'history'") < segment {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not archived within a minute\n%s", segment, s.Log(t))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// restoreTo restores with the given flags into a new directory, starts the result
// and waits until it has left recovery.
func (s *site) restoreTo(t *testing.T, flags ...string) *servertest.Cluster {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	s.run(t, append([]string{"restore", "--to", dir, "--identity", s.identity}, flags...)...)
	return s.open(t, dir)
}

func (s *site) open(t *testing.T, dir string) *servertest.Cluster {
	t.Helper()
	// The restored server's restore_command must reach the store as well.
	c := servertest.Open(t, dir, servertest.Options{Env: s.env})
	c.WaitPromoted(t)
	return c
}

// stopAll stops a server, so that not too many run at once.
func stopAll(t *testing.T, cs ...*servertest.Cluster) {
	t.Helper()
	for _, c := range cs {
		c.Stop(t, server.Immediate)
	}
}

// contentSQL gives a line for every user table: rows and a hash that does not
// depend on their order.
const contentSQL = `
	select format('select %L, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from only %I.%I t', n.nspname || '.' || c.relname, n.nspname, c.relname)
	from pg_class c join pg_namespace n on n.oid = c.relnamespace
	where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
	order by 1`

// content describes every row of every table, by table; large objects are one.
func content(t *testing.T, c *servertest.Cluster) map[string]string {
	t.Helper()
	ctx := context.Background()
	conn := c.Conn(t)
	rows, err := conn.Query(ctx, contentSQL)
	if err != nil {
		t.Fatal(err)
	}
	var queries []string
	for rows.Next() {
		var q string
		if err := rows.Scan(&q); err != nil {
			t.Fatal(err)
		}
		queries = append(queries, q)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	queries = append(queries, `select 'large objects', count(*), coalesce(sum(hashtextextended(encode(lo_get(oid), 'hex'), 0)::numeric), 0)::text from pg_largeobject_metadata`)
	out := map[string]string{}
	for _, q := range queries {
		var table, hash string
		var n int64
		if err := conn.QueryRow(ctx, q).Scan(&table, &n, &hash); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		out[table] = fmt.Sprintf("%d rows, hash %s", n, hash)
	}
	return out
}

// sameContent fails the test for every table that differs.
func sameContent(t *testing.T, c *servertest.Cluster, want map[string]string) {
	t.Helper()
	have := content(t, c)
	for _, table := range slices.Sorted(maps.Keys(want)) {
		if have[table] != want[table] {
			t.Errorf("table %s: restored %s, want %s", table, have[table], want[table])
		}
		delete(have, table)
	}
	for table := range have {
		t.Errorf("table %s came from nowhere", table)
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// underLoad runs pgbench in the background until stop is called.
func underLoad(t *testing.T, c *servertest.Cluster) (stop func()) {
	t.Helper()
	cmd := c.Cmd(t, "pgbench", "-n", "-c", "4", "-R", "500", "-T", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	stop = func() {
		if !done {
			done = true
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
			// pgbench is gone; its sessions end with their last statement.
			for c.QueryString(t, "select count(*) from pg_stat_activity where application_name = 'pgbench'") != "0" {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	t.Cleanup(func() {
		if !done {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return stop
}

// variety fills a server with one of each thing that a backup must not lose.
const variety = `
	create table docs (id serial primary key, body jsonb, tag uuid default gen_random_uuid(), raw bytea);
	insert into docs (body, raw) select jsonb_build_object('n', i, 'text', repeat(md5(i::text), 20)), decode(repeat(md5(i::text), 10), 'hex') from generate_series(1, 3000) i;
	create index on docs using gin (body);
	create unlogged table scratch as select generate_series(1, 1000) x;
	create table wide (x text); alter table wide alter x set storage external;
	insert into wide select repeat(md5(i::text), 3000) from generate_series(1, 40) i;
	select lo_from_bytea(0, decode(repeat('c0ffee', 20000), 'hex'));
	create sequence ticket; select nextval('ticket');
	create table marks (id serial primary key, name text, at timestamptz default clock_timestamp());`

// point is a moment that a restore is sent to, and what was there then.
type point struct {
	flags   []string
	content map[string]string
}

// mark stops the load, notes what is there, and names the moment in each way
// that PostgreSQL has.
func (s *site) mark(t *testing.T, name string) map[string]point {
	t.Helper()
	xid := s.QueryString(t, "begin; insert into marks (name) values ('"+name+"'); select pg_current_xact_id()::xid::text; commit; select max(xmin::text::bigint) from marks where name = '"+name+"'")
	want := content(t, s.Cluster)
	s.Exec(t, "select pg_create_restore_point('"+name+"')")
	lsn := s.QueryString(t, "select pg_current_wal_insert_lsn()")
	at := s.QueryString(t, "select clock_timestamp()::text")
	// A commit behind the moment: a time is only reached by passing it.
	time.Sleep(5 * time.Millisecond) // so that its time is another one
	s.Exec(t, "insert into marks (name) values ('after "+name+"')")
	return map[string]point{
		"time": {[]string{"--target-time", at, "--target-action", "promote"}, want},
		"lsn":  {[]string{"--target-lsn", lsn, "--target-action", "promote"}, want},
		"name": {[]string{"--target-name", name, "--target-action", "promote"}, want},
		"xid":  {[]string{"--target-xid", xid, "--target-action", "promote"}, want},
	}
}

// TestEndToEnd backs up a server that is being written to and restores it to
// each kind of target, comparing every table.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"file", "s3"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			endToEnd(t, siteOptions{s3: store == "s3", server: servertest.Options{Checksums: true}})
		})
	}
}

func endToEnd(t *testing.T, o siteOptions) {
	s := newSite(t, o)
	s.Pgbench(t, "-i", "-q", "-s", "2")
	s.Exec(t, variety)
	s.Exec(t, "create database other")
	stop := underLoad(t, s.Cluster)
	s.run(t, "backup")
	stop()
	points := s.mark(t, "noon")
	stop = underLoad(t, s.Cluster)
	s.run(t, "backup", "--json")
	stop()
	latest := content(t, s.Cluster)
	s.flush(t)
	s.Kill9(t)
	if err := os.RemoveAll(s.DataDir()); err != nil {
		t.Fatal(err)
	}

	for kind, p := range points {
		if o.s3 && kind != "time" {
			continue // what leads to a target does not hang on the store
		}
		t.Run(kind, func(t *testing.T) {
			c := s.restoreTo(t, p.flags...)
			sameContent(t, c, p.content)
			stopAll(t, c)
		})
	}
	t.Run("latest", func(t *testing.T) {
		c := s.restoreTo(t)
		sameContent(t, c, latest)
		if got := c.QueryString(t, "select count(*) from scratch"); got != "0" {
			t.Errorf("the unlogged table has %s rows, 0 were expected", got)
		}
		if got := c.QueryString(t, "select setting from pg_settings where name = 'archive_mode'"); got != "off" {
			t.Errorf("archive_mode is %s in what was restored", got)
		}
		if !strings.Contains(c.Program(t, "pg_controldata", c.DataDir()), "in production") {
			t.Error("the restored server is not in production")
		}
		c.Stop(t, server.Fast)
		// Every page of the restored files is as its checksum says.
		c.Checksums(t)
	})
	t.Run("immediate", func(t *testing.T) {
		c := s.restoreTo(t, "--target-immediate", "--target-action", "promote")
		if got := c.QueryString(t, "select count(*) > 0 from pgbench_history"); got != "t" {
			t.Error("pgbench_history is empty")
		}
		stopAll(t, c)
	})
}

// TestTimelines restores along a history with a branch: the server was itself
// restored to an earlier point, archived on, and was lost again.
func TestTimelines(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, variety)
	s.Exec(t, "create database other")
	s.run(t, "backup")
	first := s.mark(t, "first")
	s.Exec(t, "insert into marks (name) values ('only on timeline 1')")
	one := content(t, s.Cluster)
	s.flush(t)
	s.Kill9(t)

	// The second life of the cluster archives to the same repository.
	dir := filepath.Join(t.TempDir(), "second")
	s.run(t, append([]string{"restore", "--to", dir, "--identity", s.identity, "--keep-archiving"}, first["name"].flags...)...)
	c := s.open(t, dir)
	second := &site{Cluster: c, dir: s.dir, config: s.config, identity: s.identity, env: s.env}
	sameContent(t, c, first["name"].content)
	c.Exec(t, "insert into marks (name) values ('only on timeline 2')")
	two := content(t, c)
	second.flush(t)
	c.Kill9(t)

	t.Run("latest", func(t *testing.T) {
		r := s.restoreTo(t)
		sameContent(t, r, two)
		stopAll(t, r)
	})
	t.Run("timeline 1", func(t *testing.T) {
		r := s.restoreTo(t, "--target-timeline", "1")
		sameContent(t, r, one)
		stopAll(t, r)
	})
	t.Run("before the branch", func(t *testing.T) {
		r := s.restoreTo(t, first["lsn"].flags...)
		sameContent(t, r, first["lsn"].content)
		stopAll(t, r)
	})
}

// A restored server that opened on timeline 2 while it did not archive, and archives
// later: PostgreSQL never hands the history of that timeline over.
func TestArchivingIsSwitchedOnLater(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	s.Kill9(t)
	dir := filepath.Join(t.TempDir(), "second")
	s.run(t, "restore", "--to", dir, "--identity", s.identity)
	c := s.open(t, dir)
	c.WaitPromoted(t)
	c.Exec(t, "alter system reset archive_mode")
	c.Restart(t)
	c.Exec(t, "create table second as select 2 x")
	second := &site{Cluster: c, dir: s.dir, config: s.config, identity: s.identity, env: s.env}
	second.flush(t)
	c.Kill9(t)
	r := s.restoreTo(t)
	if got := r.QueryString(t, "select x from second"); got != "2" {
		t.Errorf("there is %q", got)
	}
	stopAll(t, r)
}

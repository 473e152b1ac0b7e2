package main

import (
	"context"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// Backups one upon the other while the load goes on, the server crashes and
// tables come and go: each restores, to its own end and to the latest, with
// every sum right, every index whole and every page's checksum good.
func TestIncrementalChain(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{Checksums: true}})
	s.Pgbench(t, "-i", "-s", "3", "-q")
	s.Exec(t, "create extension amcheck")
	load := s.load(t)
	var labels []string
	for i := range 7 {
		switch i {
		case 2:
			s.Exec(t, "create table extra as select * from pgbench_accounts; create index on extra (bid)")
		case 3:
			load()
			s.Kill9(t)
			s.Start(t)
			load = s.load(t)
		case 4:
			s.Exec(t, "drop table extra; reindex table pgbench_accounts")
		}
		flags := []string{"backup"}
		if i == 5 {
			flags = append(flags, "--scan")
		}
		out := s.run(t, flags...)
		if full := strings.Contains(out, "a full backup"); full != (i == 0) {
			t.Errorf("backup %d:\n%s", i, out)
		}
		labels = s.labels(t)
	}
	load()
	s.flush(t)
	want := s.QueryString(t, "select count(*) from pgbench_history")
	s.Stop(t, server.Fast)
	for i, label := range labels {
		flags := []string{"--backup", label}
		if i%3 != 0 {
			flags = append(flags, "--target-immediate", "--target-action", "promote")
		}
		c := s.restoreTo(t, flags...)
		if sums := c.QueryString(t, `select count(distinct s) from (select sum(abalance) s from pgbench_accounts union all select sum(tbalance) from pgbench_tellers
			union all select sum(bbalance) from pgbench_branches union all select coalesce(sum(delta), 0) from pgbench_history) x`); sums != "1" {
			t.Errorf("backup %d: the sums differ", i)
		}
		if got := c.QueryString(t, "select count(*) from pgbench_history"); i%3 == 0 && got != want {
			t.Errorf("backup %d: %s rows at the end, not %s", i, got, want)
		}
		c.Exec(t, "select bt_index_check(indexrelid, true) from pg_index i join pg_class c on c.oid = indexrelid join pg_am a on a.oid = relam where amname = 'btree' and relpersistence = 'p'")
		c.Exec(t, "select count(*) from (select verify_heapam(oid) from pg_class where relkind = 'r') x having count(*) > 0")
		c.Stop(t, server.Fast)
		c.Checksums(t)
	}
}

// load has pgbench's transactions run on two connections until it is told to
// stop, and then waits for the last of them. It goes on through no crash.
func (s *site) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := s.Cmd(t, "pgbench", "-n", "-c", "2", "-R", "500", "-T", "600")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); <-ctx.Done(); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	t.Cleanup(cancel)
	return func() { cancel(); <-done }
}

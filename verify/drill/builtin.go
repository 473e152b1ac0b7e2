package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// check runs all checks. The first three decide whether the others make sense.
func (r *run) check(ctx context.Context) error {
	err := r.phase(evidence.PhaseChecks, func(*evidence.Phase) error {
		ok := r.builtIn(ctx, "server opens", true, checkLimit, r.opens)
		ok = r.builtIn(ctx, "recovery end", true, checkLimit, r.reachedEnd) && ok
		r.builtIn(ctx, "fence", true, checkLimit, r.proveFence)
		r.libraries()
		if !ok {
			return nil
		}
		r.builtIn(ctx, "catalogue", true, checkLimit, r.catalogue)
		disaster := r.listed
		if r.primary != nil {
			disaster = r.primary.Now
		}
		for _, c := range r.o.Checks {
			own := c.Run(ctx, r.o.Now, r.conn(), disaster)
			own.Seconds = round(own.Seconds)
			r.doc.Checks = append(r.doc.Checks, own)
		}
		if r.o.Level == evidence.Deep {
			return r.deep(ctx)
		}
		r.builtIn(ctx, "checksums", false, checkLimit, r.checksumFailures)
		return nil
	})
	r.took = round(r.since(r.began))
	r.proven = err == nil
	for _, c := range r.doc.Checks {
		r.proven = r.proven && (!c.Required || c.Verdict == evidence.Passed)
	}
	return err
}

// builtIn runs one of our own checks; true when it passed.
func (r *run) builtIn(ctx context.Context, name string, required bool, limit time.Duration, look func(context.Context) (evidence.Verdict, string)) bool {
	c := probe.Timed(ctx, r.o.Now, evidence.Check{Name: name, Kind: "built-in", Required: required}, limit, look)
	c.Seconds = round(c.Seconds)
	r.doc.Checks = append(r.doc.Checks, c)
	return c.Verdict == evidence.Passed
}

// opens looks at whether the server is the restored one and can be written to.
func (r *run) opens(ctx context.Context) (evidence.Verdict, string) {
	value, err := r.conn().Value(ctx, "", `select case when pg_is_in_recovery() then 'it is still in recovery'
		else system_identifier::text end from pg_control_system()`)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	if want := r.plan.Backup.System.String(); value == nil || *value != want {
		return evidence.Failed, fmt.Sprintf("it should be system %s: %s", want, orNothing(value))
	}
	// That it can be written to is shown by a write.
	if _, err := r.conn().Value(ctx, "", "create temporary table lifeboat_drill (x int); insert into lifeboat_drill values (1)"); err != nil {
		return evidence.Failed, "it cannot be written to: " + err.Error()
	}
	return evidence.Passed, "system " + *value + ", out of recovery, writable"
}

func orNothing(s *string) string {
	if s == nil {
		return "no answer"
	}
	return *s
}

// reachedEnd compares where recovery ended with what was found by reading the
// archive, which PostgreSQL had no part in.
func (r *run) reachedEnd(context.Context) (evidence.Verdict, string) {
	l, err := readServerLog(r.stage.log())
	if err != nil {
		return evidence.Unknown, err.Error()
	}
	end, err := r.recovered(l)
	if err != nil {
		return evidence.Failed, "where recovery ended is not known: " + err.Error()
	}
	// Where recovery stops before a record, the log names that one; the end of
	// what was replayed is in the history of the new timeline in any case.
	if r.plan.Point.Kind != restore.ToEnd {
		if end != r.plan.StopLSN {
			return evidence.Failed, fmt.Sprintf("recovery ended at %s; it should be %s", end, r.plan.StopLSN)
		}
		return evidence.Passed, fmt.Sprintf("at %s, as the plan had it", end)
	}
	if l.last != r.plan.LastLSN {
		return evidence.Failed, fmt.Sprintf("the last record that was replayed is at %s; it should be the one at %s", l.last, r.plan.LastLSN)
	}
	// The server's is of the newest transaction that ended, also by an abort.
	if c := r.plan.StopTime; l.ended.Before(c.Add(-time.Millisecond)) {
		return evidence.Failed, fmt.Sprintf("the newest transaction that was replayed is of %s; there should be a commit of %s", l.ended, c)
	}
	return evidence.Passed, fmt.Sprintf("at %s, the last record at %s", end, l.last)
}

// libraries reports what production preloads and is not installed here.
func (r *run) libraries() {
	if len(r.missing) == 0 {
		return
	}
	r.doc.Checks = append(r.doc.Checks, evidence.Check{Name: "preload libraries", Kind: "built-in", Required: true, Verdict: evidence.Unknown,
		Detail: "production loads " + joined(r.missing) + ", not installed here: what needs them was not tested"})
}

// databases lists those that can be connected to.
func (r *run) databases(ctx context.Context) ([]string, error) {
	conn, err := r.conn().Open(ctx, "")
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "select datname::text from pg_database where datallowconn order by 1")
	if err != nil {
		return nil, probe.Shortened(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, probe.Shortened(err)
	}
	return names, nil
}

// catalogueSQL reads the system catalogues as a whole, without their indexes,
// and looks for the file of each relation.
const catalogueSQL = `
	with read as (
		select (select count(c::text) from pg_class c) + (select count(a::text) from pg_attribute a)
			+ (select count(t::text) from pg_type t) + (select count(p::text) from pg_proc p)
			+ (select count(i::text) from pg_index i) + (select count(c::text) from pg_constraint c)
			+ (select count(d::text) from pg_depend d) + (select count(n::text) from pg_namespace n) as entries)
	select read.entries, count(*), count(*) filter (where pg_stat_file(pg_relation_filepath(c.oid), true) is null),
		coalesce(min(c.oid::regclass::text) filter (where pg_stat_file(pg_relation_filepath(c.oid), true) is null), '')
	from read, pg_class c
	where pg_relation_filepath(c.oid) is not null and c.relpersistence = 'p'
	group by read.entries`

// catalogue reads the catalogue of every database.
func (r *run) catalogue(ctx context.Context) (evidence.Verdict, string) {
	names, err := r.databases(ctx)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	var entries, relations int64
	for _, name := range names {
		e, n, err := r.readCatalogue(ctx, name)
		if err != nil {
			return evidence.Failed, fmt.Sprintf("database %s: %v", name, err)
		}
		entries, relations = entries+e, relations+n
	}
	return evidence.Passed, fmt.Sprintf("%d databases, %d entries read, the files of %d relations are there", len(names), entries, relations)
}

func (r *run) readCatalogue(ctx context.Context, database string) (entries, relations int64, err error) {
	conn, err := r.conn().Open(ctx, database)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off"); err != nil {
		return 0, 0, probe.Shortened(err)
	}
	var missing int64
	var first string
	if err := conn.QueryRow(ctx, catalogueSQL).Scan(&entries, &relations, &missing, &first); err != nil {
		return 0, 0, probe.Shortened(err)
	}
	if missing > 0 {
		return 0, 0, fmt.Errorf("%d relations have no file, the first is %s", missing, first)
	}
	return entries, relations, nil
}

// checksumFailures asks what the server has met so far; only the deep level
// reads every page.
func (r *run) checksumFailures(ctx context.Context) (evidence.Verdict, string) {
	value, err := r.conn().Value(ctx, "", `select case current_setting('data_checksums') when 'on'
		then (select coalesce(sum(checksum_failures), 0)::text from pg_stat_database) else 'off' end`)
	switch {
	case err != nil:
		return evidence.Unknown, err.Error()
	case value == nil || *value == "off":
		return evidence.Unknown, "the cluster has no data checksums"
	case *value != "0":
		return evidence.Failed, *value + " pages that were read have a wrong checksum"
	}
	return evidence.Passed, "no wrong one among the pages that were read; the deep level reads all"
}

// deep reads everything: pages, rows, indexes.
func (r *run) deep(ctx context.Context) error {
	r.builtIn(ctx, "amcheck", true, deepLimit, func(ctx context.Context) (evidence.Verdict, string) {
		return r.tool(ctx, "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--no-dependent-toast")
	})
	r.builtIn(ctx, "dump", true, deepLimit, r.dumpAll)
	// The last: it wants the server to be stopped. Of a cluster that has none it
	// stays unknown, and nobody can ask for it.
	r.builtIn(ctx, "checksums", r.plan.Backup.Checksums, deepLimit, r.allChecksums)
	return nil
}

// tool runs one of PostgreSQL's client programs. One that is not installed
// leaves unknown what it would have shown.
func (r *run) tool(ctx context.Context, name string, args ...string) (evidence.Verdict, string) {
	out, err := r.conn().Program(ctx, "postgres", r.install.Path(name), args...)
	switch {
	case missingProgram(err):
		return evidence.Unknown, name + " is not installed in " + r.install.BinDir
	case err != nil:
		return evidence.Failed, strings.TrimSpace(fmt.Sprintf("%s: %v: %s", name, err, probe.ErrorLine(out)))
	}
	return evidence.Passed, name + " found nothing wrong"
}

// dumpAll reads every row of every database as text.
func (r *run) dumpAll(ctx context.Context) (evidence.Verdict, string) {
	names, err := r.databases(ctx)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	for _, name := range names {
		if v, detail := r.tool(ctx, "pg_dump", "--format=plain", "--file=/dev/null", "--dbname="+r.conn().Conninfo(name)); v != evidence.Passed {
			return v, "database " + name + ": " + detail
		}
	}
	return evidence.Passed, fmt.Sprintf("%d databases were dumped to nowhere", len(names))
}

// allChecksums shuts the server down and reads every page.
func (r *run) allChecksums(ctx context.Context) (evidence.Verdict, string) {
	if v, detail := r.checksumFailures(ctx); v != evidence.Passed {
		return v, detail
	}
	if r.o.Keep {
		return evidence.Unknown, "pg_checksums wants the server to be stopped, and it is to be kept"
	}
	if err := r.server.Stop(ctx, server.Fast); err != nil {
		return evidence.Failed, err.Error()
	}
	return r.tool(ctx, "pg_checksums", "--check", "--pgdata="+r.plan.DataDir)
}

func missingProgram(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

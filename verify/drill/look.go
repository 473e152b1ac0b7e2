package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// opens looks at whether the server is the restored one and can be written to.
func (h *helper) opens(ctx context.Context) (evidence.Verdict, string) {
	value, err := h.conn().Value(ctx, "", `select case when pg_is_in_recovery() then 'it is still in recovery'
		else system_identifier::text end from pg_control_system()`)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	if want := h.want.System.String(); value == nil || *value != want {
		return evidence.Failed, fmt.Sprintf("it should be system %s: %s", want, orNothing(value))
	}
	// That it can be written to is shown by a write.
	if _, err := h.conn().Value(ctx, "", "create temporary table lifeboat_drill (x int); insert into lifeboat_drill values (1)"); err != nil {
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

// lookAtFence has the server say what keeps it to itself.
func (h *helper) lookAtFence(ctx context.Context, s *seen) (evidence.Verdict, string) {
	if err := h.lookAtSettings(ctx, s); err != nil {
		return evidence.Unknown, err.Error()
	}
	if err := h.lookAtWorkers(ctx, s); err != nil {
		return evidence.Unknown, err.Error()
	}
	return evidence.Passed, ""
}

// amcheck holds every index against its table.
func (h *helper) amcheck(ctx context.Context) (evidence.Verdict, string) {
	return h.tool(ctx, "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--no-dependent-toast")
}

// lookAtSettings has the server say what keeps it to itself.
func (h *helper) lookAtSettings(ctx context.Context, f *seen) error {
	conn, err := h.conn().Open(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "select name, setting from pg_settings where name = any($1) order by name", slices.Sorted(maps.Keys(wanted)))
	if err != nil {
		return probe.Shortened(err)
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if value == wanted[name] {
			f.Proven = append(f.Proven, name+" is "+shownSetting(value))
		} else {
			f.Missing = append(f.Missing, name+" is "+shownSetting(value))
		}
		return nil
	})
	return err
}

func shownSetting(v string) string {
	if v == "" {
		return "empty"
	}
	return v
}

// lookAtWorkers makes sure that no process of the server reaches out.
func (h *helper) lookAtWorkers(ctx context.Context, f *seen) error {
	value, err := h.conn().Value(ctx, "", `select coalesce(string_agg(distinct backend_type, ', '), '') from pg_stat_activity
		where backend_type ~ 'logical replication|walreceiver|walsender|archiver|pg_cron'`)
	if err != nil {
		return err
	}
	if value != nil && *value != "" {
		f.Missing = append(f.Missing, "these processes run: "+*value)
		return nil
	}
	f.Proven = append(f.Proven, "no archiver, walsender, walreceiver, logical replication or cron process runs")
	return nil
}

// databases lists those that can be connected to.
func (h *helper) databases(ctx context.Context) ([]string, error) {
	conn, err := h.conn().Open(ctx, "")
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
func (h *helper) catalogue(ctx context.Context) (evidence.Verdict, string) {
	names, err := h.databases(ctx)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	var entries, relations int64
	for _, name := range names {
		e, n, err := h.readCatalogue(ctx, name)
		if err != nil {
			return evidence.Failed, fmt.Sprintf("database %s: %v", name, err)
		}
		entries, relations = entries+e, relations+n
	}
	return evidence.Passed, fmt.Sprintf("%d databases, %d entries read, the files of %d relations are there", len(names), entries, relations)
}

func (h *helper) readCatalogue(ctx context.Context, database string) (entries, relations int64, err error) {
	conn, err := h.conn().Open(ctx, database)
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
func (h *helper) checksumFailures(ctx context.Context) (evidence.Verdict, string) {
	value, err := h.conn().Value(ctx, "", `select case current_setting('data_checksums') when 'on'
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

// tool runs one of PostgreSQL's client programs. One that is not installed
// leaves unknown what it would have shown.
func (h *helper) tool(ctx context.Context, name string, args ...string) (evidence.Verdict, string) {
	out, err := h.conn().Program(ctx, "postgres", h.want.Install.Path(name), args...)
	switch {
	case missingProgram(err):
		return evidence.Unknown, name + " is not installed in " + h.want.Install.BinDir
	case err != nil:
		return evidence.Failed, strings.TrimSpace(fmt.Sprintf("%s: %v: %s", name, err, probe.ErrorLine(out)))
	}
	return evidence.Passed, name + " found nothing wrong"
}

// dumpAll reads every row of every database as text.
func (h *helper) dumpAll(ctx context.Context) (evidence.Verdict, string) {
	names, err := h.databases(ctx)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	for _, name := range names {
		if v, detail := h.tool(ctx, "pg_dump", "--format=plain", "--file=/dev/null", "--dbname="+h.conn().Conninfo(name)); v != evidence.Passed {
			return v, "database " + name + ": " + detail
		}
	}
	return evidence.Passed, fmt.Sprintf("%d databases were dumped to nowhere", len(names))
}

// allChecksums shuts the server down and reads every page.
func (h *helper) allChecksums(ctx context.Context) (evidence.Verdict, string) {
	if v, detail := h.checksumFailures(ctx); v != evidence.Passed {
		return v, detail
	}
	if h.want.Keep {
		return evidence.Unknown, "pg_checksums wants the server to be stopped, and it is to be kept"
	}
	if err := h.server.Stop(ctx, server.Fast); err != nil {
		return evidence.Failed, err.Error()
	}
	return h.tool(ctx, "pg_checksums", "--check", "--pgdata="+h.want.DataDir)
}

func missingProgram(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

const (
	checkLimit = 5 * time.Minute // for a built-in check
	openLimit  = 4 * time.Minute // for the first login, below it, so that its cause is told
	deepLimit  = 12 * time.Hour  // for one that reads everything
)

// check runs all checks. The first decides whether the others make sense.
func (d *drill) check(ctx context.Context) error {
	var err error
	if d.conn, err = d.o.Connect(d.copy, d.region.Name); err != nil {
		return err
	}
	ok := d.builtIn(ctx, "server opens", true, checkLimit, d.opens)
	d.builtIn(ctx, "isolation", true, checkLimit, d.isolated)
	d.builtIn(ctx, "configuration", false, checkLimit, d.configured)
	if ok {
		d.builtIn(ctx, "catalogue", true, checkLimit, d.catalogue)
		for _, c := range d.o.Source.Checks {
			own := c.Run(ctx, d.o.Now, d.conn, d.disaster)
			own.Seconds = evidence.Round(own.Seconds)
			d.doc.Checks = append(d.doc.Checks, own)
		}
		if d.o.Level == evidence.Deep {
			d.builtIn(ctx, "amcheck", true, deepLimit, d.amcheck)
		}
		d.builtIn(ctx, "checksums", false, checkLimit, d.checksumFailures)
	}
	d.took, d.proven = d.Since(), ctx.Err() == nil
	for _, c := range d.doc.Checks {
		d.proven = d.proven && (!c.Required || c.Verdict == evidence.Passed)
	}
	if d.proven {
		took := d.took
		d.doc.RDS.Checked = &took
	}
	return context.Cause(ctx)
}

// builtIn runs one of our own checks; true when it passed.
func (d *drill) builtIn(ctx context.Context, name string, required bool, limit time.Duration, look func(context.Context) (evidence.Verdict, string)) bool {
	c := probe.Timed(ctx, d.o.Now, evidence.Check{Name: name, Kind: "built-in", Required: required}, limit, look)
	c.Seconds = evidence.Round(c.Seconds)
	d.doc.Checks = append(d.doc.Checks, c)
	return c.Verdict == evidence.Passed
}

// opens logs in and writes. RDS calls an instance available a little before its
// name leads to it, so a connection that fails is tried again for a while. Without a
// password or token nothing was tried: that says nothing of the copy.
func (d *drill) opens(ctx context.Context) (evidence.Verdict, string) {
	var version *string
	var last error
	w := d.o.Waiting
	w.Limit = openLimit
	err := w.until(ctx, "server", func() (string, int, bool, error) {
		actx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		version, last = d.conn.Value(actx, d.o.Source.Login.Database, "select current_setting('server_version') where not pg_is_in_recovery()")
		if last != nil && (refusedLogin(last) || withoutPassword(last) && !transient(last)) {
			return "", -1, false, last
		}
		return "not answering", -1, last == nil, nil
	})
	switch {
	case withoutPassword(last):
		return evidence.Unknown, last.Error()
	case err != nil && last != nil:
		return evidence.Failed, last.Error()
	case err != nil:
		return evidence.Failed, err.Error()
	case version == nil:
		return evidence.Failed, "it is still in recovery"
	}
	if _, err := d.conn.Value(ctx, d.o.Source.Login.Database, "create temporary table lifeboat_drill (x int); insert into lifeboat_drill values (1)"); err != nil {
		return provedBy(err), "it cannot be written to: " + err.Error()
	}
	d.doc.Host.PostgreSQL = *version
	return evidence.Passed, "PostgreSQL " + *version + ", out of recovery, writable"
}

// refusedLogin says whether the server itself has said no: asking again changes
// nothing.
func refusedLogin(err error) bool {
	s := err.Error()
	return strings.Contains(s, "authentication failed") || strings.Contains(s, "does not exist") || strings.Contains(s, "x509") || strings.Contains(s, "no pg_hba.conf entry")
}

// withoutPassword says whether the server was not even asked: Amazon gave no
// password or token, or the environment has none.
func withoutPassword(err error) bool {
	_, none := errors.AsType[*PasswordError](err)
	_, amazon := errors.AsType[*Error](err)
	return none || amazon
}

// isolated looks at what RDS says of the copy.
func (d *drill) isolated(context.Context) (evidence.Verdict, string) {
	c, want := d.copy, d.region.Staging
	f := &evidence.Fence{
		Network: fmt.Sprintf("subnet group %s, security groups %s; what they let through is not looked at", c.SubnetGroup, strings.Join(c.SecurityGroups, ", ")),
		Files:   "Amazon's, none of this host's", User: d.o.Source.Login.Role, Proven: []string{},
	}
	d.doc.Fence = f
	hold := func(ok bool, proven, missing string) {
		if ok {
			f.Proven = append(f.Proven, proven)
		} else {
			f.Missing = append(f.Missing, missing)
		}
	}
	hold(!c.Public, "not reachable from the internet", "it is publicly accessible")
	hold(c.SubnetGroup == want.SubnetGroup, "in subnet group "+want.SubnetGroup, "it is in subnet group "+c.SubnetGroup)
	hold(sameSet(c.SecurityGroups, want.SecurityGroups), "the security groups that were asked for and no other", "its security groups are "+strings.Join(c.SecurityGroups, ", "))
	hold(!c.Protected, "without deletion protection", "it has deletion protection")
	hold(c.Tags[TagKind] == tagDrill && c.Tags[TagAttempt] == d.doc.RDS.Attempt, "tagged with this attempt", "it does not carry this attempt's tags")
	encrypted := d.want.Encrypted || d.source != nil && d.source.Encrypted
	hold(c.Encrypted || !encrypted, "encrypted, if the source is", "it is not encrypted, and the source is")
	hold(!slices.Contains(d.protect, c.ResourceID), "another resource than any source", "its resource id is a source's")
	if len(f.Missing) > 0 {
		return evidence.Failed, strings.Join(f.Missing, "; ")
	}
	return evidence.Passed, fmt.Sprintf("%d things hold", len(f.Proven))
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// configured compares the copy with the source. What the drill asked for is told
// and is no fault; another version, or less storage, is one.
func (d *drill) configured(context.Context) (evidence.Verdict, string) {
	if d.source == nil {
		return evidence.Unknown, "the source is not there any more: nothing to compare with"
	}
	d.doc.RDS.Differences = differences(d.source, d.copy, d.request)
	var unasked []string
	for _, x := range d.doc.RDS.Differences {
		if !x.Asked {
			unasked = append(unasked, fmt.Sprintf("%s is %s, the source has %s", x.Name, cmpNone(x.Restored), cmpNone(x.Source)))
		}
	}
	if len(unasked) > 0 {
		return evidence.Failed, strings.Join(unasked, "; ")
	}
	return evidence.Passed, fmt.Sprintf("%d settings differ from the source's, all as asked for", len(d.doc.RDS.Differences))
}

func cmpNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// differences lists what the copy has otherwise than the source.
func differences(source, c *Database, r Restore) []evidence.Difference {
	var out []evidence.Difference
	compare := func(name, a, b string, asked bool) {
		if a != b {
			out = append(out, evidence.Difference{Name: name, Source: a, Restored: b, Asked: asked})
		}
	}
	group := r.Staging.ParameterGroup
	if source.Kind == Cluster { // and that of its instance, as with() writes it
		group = r.Staging.ClusterParameterGroup + ", " + group
	}
	compare("engine version", source.EngineVersion, c.EngineVersion, r.Version == c.EngineVersion)
	compare("class", source.Class, c.Class, c.Class == r.Class)
	compare("parameter group", source.ParameterGroup, c.ParameterGroup, c.ParameterGroup == group)
	compare("option group", source.OptionGroup, c.OptionGroup, c.OptionGroup == r.Staging.OptionGroup)
	compare("subnet group", source.SubnetGroup, c.SubnetGroup, c.SubnetGroup == r.Staging.SubnetGroup)
	compare("security groups", strings.Join(source.SecurityGroups, ", "), strings.Join(c.SecurityGroups, ", "), sameSet(c.SecurityGroups, r.Staging.SecurityGroups))
	compare("storage", gib(source.Storage), gib(c.Storage), false)
	compare("storage type", source.StorageType, c.StorageType, false)
	compare("IOPS", fmt.Sprint(source.IOPS), fmt.Sprint(c.IOPS), false)
	compare("encryption", yes(source.Encrypted), yes(c.Encrypted), false)
	compare("Multi-AZ", yes(source.MultiAZ), yes(c.MultiAZ), !c.MultiAZ)
	compare("deletion protection", yes(source.Protected), yes(c.Protected), !c.Protected)
	compare("backup retention", fmt.Sprintf("%d days", source.RetentionDays), fmt.Sprintf("%d days", c.RetentionDays), c.RetentionDays <= 1)
	return out
}

// databases lists those that can be connected to. RDS has one of its own, in
// which nobody else may log in.
func (d *drill) databases(ctx context.Context) ([]string, error) {
	conn, err := d.conn.Open(ctx, d.o.Source.Login.Database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "select datname::text from pg_database where datallowconn and not datistemplate and datname <> 'rdsadmin' order by 1")
	if err != nil {
		return nil, probe.Shortened(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, probe.Shortened(err)
}

// each does something in every database.
func (d *drill) each(ctx context.Context, work func(context.Context, *pgx.Conn) error) (databases int, err error) {
	names, err := d.databases(ctx)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		conn, err := d.conn.Open(ctx, name)
		if err != nil {
			return 0, err
		}
		err = work(ctx, conn)
		conn.Close(context.WithoutCancel(ctx))
		if err != nil {
			return 0, fmt.Errorf("database %s: %w", name, err)
		}
	}
	return len(names), nil
}

// lackingError says that an extension could not be made: nothing was looked at.
type lackingError struct {
	extension string
	err       error
}

func (e *lackingError) Error() string {
	return fmt.Sprintf("the extension %s cannot be made: %v", e.extension, e.err)
}
func (e *lackingError) Unwrap() error { return e.err }

func makeExtension(ctx context.Context, c *pgx.Conn, name string) error {
	if _, err := c.Exec(ctx, "create extension if not exists "+name); err != nil {
		return &lackingError{name, probe.Shortened(err)}
	}
	return nil
}

// provedBy is what an error of a check proves of the copy. A right that the role
// lacks (insufficient_privilege) says nothing of it.
func provedBy(err error) evidence.Verdict {
	_, lacking := errors.AsType[*lackingError](err)
	if e, ok := errors.AsType[*pgconn.PgError](err); lacking || ok && e.Code == "42501" {
		return evidence.Unknown
	}
	return evidence.Failed
}

// catalogueSQL reads the system catalogues as a whole, without their indexes.
const catalogueSQL = `select (select count(c::text) from pg_class c) + (select count(a::text) from pg_attribute a)
	+ (select count(t::text) from pg_type t) + (select count(p::text) from pg_proc p)
	+ (select count(i::text) from pg_index i) + (select count(c::text) from pg_constraint c)
	+ (select count(d::text) from pg_depend d) + (select count(n::text) from pg_namespace n)`

func (d *drill) catalogue(ctx context.Context) (evidence.Verdict, string) {
	var entries int64
	n, err := d.each(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Exec(ctx, "set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off"); err != nil {
			return probe.Shortened(err)
		}
		var here int64
		err := c.QueryRow(ctx, catalogueSQL).Scan(&here)
		entries += here
		return probe.Shortened(err)
	})
	if err != nil {
		return provedBy(err), err.Error()
	}
	return evidence.Passed, fmt.Sprintf("%d databases, %d entries read", n, entries)
}

func (d *drill) checksumFailures(ctx context.Context) (evidence.Verdict, string) {
	value, err := d.conn.Value(ctx, d.o.Source.Login.Database, `select case current_setting('data_checksums') when 'on'
		then (select coalesce(sum(checksum_failures), 0)::text from pg_stat_database) else 'off' end`)
	switch {
	case err != nil:
		return evidence.Unknown, err.Error()
	case value == nil || *value == "off":
		return evidence.Unknown, "the database has no data checksums"
	case *value != "0":
		return evidence.Failed, *value + " pages that were read have a wrong checksum"
	}
	return evidence.Passed, "no wrong one among the pages that were read"
}

// amcheckSQL checks every B-tree of a database against its table.
const amcheckSQL = `select count(bt_index_check(c.oid, true)) from pg_class c join pg_am a on a.oid = c.relam join pg_index i on i.indexrelid = c.oid
	where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p' and i.indisready and i.indisvalid`

func (d *drill) amcheck(ctx context.Context) (evidence.Verdict, string) {
	var indexes int64
	n, err := d.each(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if err := makeExtension(ctx, c, "amcheck"); err != nil {
			return err
		}
		var here int64
		err := c.QueryRow(ctx, amcheckSQL).Scan(&here)
		indexes += here
		return probe.Shortened(err)
	})
	if err != nil {
		return provedBy(err), err.Error()
	}
	return evidence.Passed, fmt.Sprintf("%d indexes of %d databases agree with their tables", indexes, n)
}

// readSQL has the server read every block of a relation once. Blocks of a restored
// volume come from S3 the first time. What the role may not read counts, wherever
// it lies: large objects are in pg_catalog, and long values in pg_toast.
const readSQL = `select coalesce(sum(pg_prewarm(c.oid, 'read', 'main')) filter (where has_table_privilege(c.oid, 'select')), 0)::bigint * current_setting('block_size')::bigint,
	coalesce(sum(pg_relation_size(c.oid)) filter (where not has_table_privilege(c.oid, 'select')), 0)::bigint
	from pg_class c where c.relkind in ('r', 'm', 'i', 't', 'S') and c.relpersistence in ('p', 'u') and pg_relation_size(c.oid) > 0`

// readAll hydrates the copy and notes how long that took from the start.
func (d *drill) readAll(ctx context.Context) error {
	var bytes, unread int64
	ok := d.builtIn(ctx, "every block read", true, deepLimit, func(ctx context.Context) (evidence.Verdict, string) {
		n, err := d.each(ctx, func(ctx context.Context, c *pgx.Conn) error {
			if err := makeExtension(ctx, c, "pg_prewarm"); err != nil {
				return err
			}
			var here, closed int64
			err := c.QueryRow(ctx, readSQL).Scan(&here, &closed)
			bytes, unread = bytes+here, unread+closed
			return probe.Shortened(err)
		})
		switch {
		case err != nil:
			return provedBy(err), err.Error()
		case unread > 0:
			return evidence.Unknown, fmt.Sprintf("%d MiB are closed to role %s: grant it pg_read_all_data on the source", unread>>20+1, d.o.Source.Login.Role)
		}
		return evidence.Passed, fmt.Sprintf("%d MiB of %d databases", bytes>>20, n)
	})
	if ok {
		d.doc.RDS.Hydrated, d.doc.RDS.HydratedBytes = d.now(), bytes
	}
	return context.Cause(ctx)
}

package rdstest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// Source says what database there is from the beginning.
type Source struct {
	Region    string // "" is eu-central-1
	ID        string
	Cluster   bool
	Engine    string // "" is postgres or aurora-postgresql
	Encrypted bool
	MultiAZ   bool // of a cluster: a second instance
	SameZone  bool // of a cluster: that is in the zone of the first
	Third     bool // of a cluster: a third instance, in another zone
	Protected bool
	SQL       string // run as superuser
	Backups   bool   // automated ones, for Advance and points in time
	NoServer  bool   // nothing behind the endpoint: for what is about calls and states alone
}

// database is an instance or a cluster.
type database struct {
	region, id, resource string
	cluster              bool
	status               string
	created              time.Time
	engine, version      string
	class                string
	storage              int32
	encrypted            bool
	kms                  string
	multiAZ              bool
	zones                [2]string // the first is the one in use
	public, protected    bool
	subnets, group       string
	memberGroup, option  string
	security             []string
	retention            int32
	tags                 []types.Tag
	parent               *database   // of an instance: the cluster
	members              []*database // of a cluster, the writer first
	pg                   *postgres   // nil of a member
	base, archive        string      // automated backups
	restorable           time.Time
	point                string // restore point at restorable
}

// kms is the key of a region that encrypts by default.
func defaultKey(region string) string {
	return fmt.Sprintf("arn:aws:kms:%s:%s:key/default", region, account)
}

// Add makes a database with a real server.
func (f *Fake) Add(t testing.TB, s Source) {
	t.Helper()
	if s.Region == "" {
		s.Region = "eu-central-1"
	}
	d := &database{region: s.Region, id: s.ID, resource: "db-" + randomHex(8), cluster: s.Cluster, status: "available", created: time.Now(), engine: s.Engine, version: "15.6",
		class: "db.r6g.large", storage: 20, encrypted: s.Encrypted, multiAZ: s.MultiAZ && !s.Cluster, protected: s.Protected, subnets: "production", group: "orders", option: "default:postgres-15",
		security: []string{"sg-production"}, retention: 7, zones: [2]string{s.Region + "a", s.Region + "b"}}
	if s.Encrypted {
		d.kms = defaultKey(s.Region)
	}
	if d.engine == "" {
		d.engine = "postgres"
		if s.Cluster {
			d.engine = "aurora-postgresql"
		}
	}
	if s.NoServer {
		f.enter(d, s)
		return
	}
	c := servertest.New(t, servertest.Options{Stopped: true, WALSegmentSize: 1 << 20, Checksums: true})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(c.DataDir(), "pg_hba.conf"), []byte(accessRules), 0o600))
	d.archive = filepath.Join(f.Home, "archive-"+d.resource)
	must(os.Mkdir(d.archive, 0o700))
	var err error
	d.pg, err = f.newPostgres(c.DataDir(), "127.0.0.1")
	must(err)
	if s.Backups {
		d.pg.more["archive_mode"], d.pg.more["archive_command"] = "on", fmt.Sprintf("cp \"%%p\" \"%s/%%f\"", d.archive)
	}
	must(d.pg.start())
	_, err = d.pg.sql(fmt.Sprintf("create role %s login createdb createrole password '%s'; grant pg_monitor, pg_read_all_data to %[1]s; grant create on database postgres to %[1]s;", MasterRole, Password) +
		"create extension pg_prewarm; create extension amcheck; grant execute on function bt_index_check(regclass, boolean) to " + MasterRole + ";" + s.SQL)
	must(err)
	if s.Backups {
		d.base = filepath.Join(f.Home, "base-"+d.resource)
		must(d.pg.copyTo(d.base))
	}
	f.enter(d, s)
}

// enter makes a database known.
func (f *Fake) enter(d *database, s Source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dns.set(hostOf(s.Region, s.ID), "127.0.0.1")
	if !s.Cluster {
		f.instances[key(s.Region, s.ID)] = d
		return
	}
	d.memberGroup = "orders-instance"
	f.clusters[key(s.Region, s.ID)] = d
	f.addMember(d, s.ID+"-1", d.zones[0])
	if s.MultiAZ {
		zone := d.zones[1]
		if s.SameZone {
			zone = d.zones[0]
		}
		f.addMember(d, s.ID+"-2", zone)
	}
	if s.Third {
		f.addMember(d, s.ID+"-3", s.Region+"c")
	}
}

func (f *Fake) addMember(c *database, id, zone string) *database {
	m := &database{region: c.region, id: id, resource: "db-" + randomHex(8), status: "available", created: time.Now(), engine: c.engine, version: c.version, class: "db.r6g.large",
		zones: [2]string{zone, ""}, subnets: c.subnets, group: c.memberGroup, security: c.security, parent: c, encrypted: c.encrypted, kms: c.kms, storage: 1}
	c.members = append(c.members, m)
	f.instances[key(c.region, id)] = m
	return m
}

// SQL runs statements in the server of a database, as its owner at Amazon.
func (f *Fake) SQL(t testing.TB, region, id, query string) string {
	t.Helper()
	out, err := f.find(t, region, id).pg.sql(query)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (f *Fake) find(t testing.TB, region, id string) *database {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.clusters[key(region, id)]; d != nil {
		return d
	}
	if d := f.instances[key(region, id)]; d != nil {
		return d
	}
	t.Fatalf("there is no database %s in %s", id, region)
	return nil
}

// Advance moves the latest restorable time to now; until the next call it stands
// still. It returns it.
func (f *Fake) Advance(t testing.TB, region, id string) time.Time {
	t.Helper()
	d := f.find(t, region, id)
	point := "lrt-" + randomHex(4)
	// A commit at the end, so that every earlier time has one after it.
	out, err := d.pg.sql("select pg_logical_emit_message(true, 'rds', 'restorable'); select clock_timestamp()")
	if err == nil {
		_, err = d.pg.sql("select pg_create_restore_point('" + point + "')")
	}
	var segment string
	if err == nil {
		segment, err = d.pg.sql("select pg_walfile_name(pg_switch_wal())")
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if last, err := d.pg.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver"); err == nil && last >= segment {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s was not archived", segment)
		}
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999-07", out)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d.restorable, d.point = at, point
	return at
}

// SetStatus has a database be in a state, such as "modifying".
func (f *Fake) SetStatus(t testing.TB, region, id, status string) {
	t.Helper()
	d := f.find(t, region, id)
	f.mu.Lock()
	defer f.mu.Unlock()
	d.status = status
}

// Tag sets tags of a database, as somebody else might.
func (f *Fake) Tag(t testing.TB, region, id string, tags map[string]string) {
	t.Helper()
	d := f.find(t, region, id)
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, v := range tags {
		d.tags = append(d.tags, types.Tag{Key: ptr(k), Value: ptr(v)})
	}
}

// Names lists the databases of a region, instances and clusters.
func (f *Fake) Names(region string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, m := range []map[string]*database{f.instances, f.clusters} {
		for k, d := range m {
			if d.region == region {
				out = append(out, filepath.Base(k))
			}
		}
	}
	return out
}

// later does work that takes at least so long, without the lock, and then calls
// done with it.
func (f *Fake) later(least time.Duration, work func() error, done func(error)) {
	f.work.Add(1)
	go func() {
		defer f.work.Done()
		began := time.Now()
		err := work()
		time.Sleep(least - time.Since(began))
		f.mu.Lock()
		defer f.mu.Unlock()
		done(err)
	}()
}

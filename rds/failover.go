package rds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// FailoverOptions says what PlanFailover and Failover do.
type FailoverOptions struct {
	Source   Source
	Connect  func(d *Database, region string) (probe.Conn, error)
	Lookup   func(ctx context.Context, host string) ([]string, error) // nil: the system's
	Interval time.Duration                                            // between writes; 0 is 200 ms
	Limit    time.Duration                                            // to wait for the other zone; 0 is 15 minutes
	Waiting  Waiting
	Program  string
	By       evidence.Performer
	Key      repo.SigningKey
	Now      func() time.Time
}

// FailoverPlan says what a failover will do and interrupt.
type FailoverPlan struct {
	Database Database
	Zone     string // in use
	Target   string // zone or instance that takes over; "" when RDS does not say
	SameZone bool   // of a cluster: the instance that takes over is in the same one
	Sessions int    // that will be cut off; -1: the role may not see them
	Writing  int    // of them in a transaction that has written; -1 too

	from, to server
}

const (
	defaultInterval      = 200 * time.Millisecond
	defaultFailoverLimit = 15 * time.Minute
)

// PlanFailover looks at what would happen and changes nothing.
func PlanFailover(ctx context.Context, regions Regions, o FailoverOptions) (*FailoverPlan, error) {
	api, err := regions(o.Source.Region)
	if err != nil {
		return nil, err
	}
	d, err := lookAtSource(ctx, api, o.Source)
	if err != nil {
		return nil, err
	}
	if d.Status != available {
		return nil, &StateError{What: o.Source.String(), State: d.Status, Want: available}
	}
	p := &FailoverPlan{Database: *d, from: server{zone: d.Zone}, to: server{zone: d.SecondaryZone}, Sessions: -1, Writing: -1}
	if o.Source.Kind == Cluster {
		if p.from, p.to, err = clusterServers(ctx, api, d); err != nil {
			return nil, err
		}
		p.SameZone = p.from.zone == p.to.zone
	}
	p.Zone, p.Target = p.from.zone, p.to.String()
	if o.Source.Kind == Instance && !d.MultiAZ || o.Source.Kind == Cluster && len(d.Members) < 2 {
		return nil, &StandbyError{What: o.Source.String()}
	}
	conn, err := o.Connect(d, o.Source.Region)
	if err != nil {
		return nil, err
	}
	c, err := conn.Open(ctx, o.Source.Login.Database)
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	err = c.QueryRow(ctx, sessionsSQL).Scan(&p.Sessions, &p.Writing)
	return p, probe.Shortened(err)
}

// sessionsSQL counts sessions, and those of them that have written. Those of others
// have neither a type nor a transaction for who may not read all statistics: none
// would be counted ("The Cumulative Statistics System", pg_stat_activity).
const sessionsSQL = `select case when may then sessions else -1 end, case when may then writing else -1 end
	from (select pg_has_role('pg_read_all_stats', 'usage') as may, count(*) as sessions, count(*) filter (where backend_xid is not null) as writing
		from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()) s`

// server is where writes go, or could.
type server struct {
	id   string // of an instance of a cluster; "" of an instance by itself
	zone string
}

func (s server) String() string {
	if s.id == "" {
		return s.zone
	}
	return fmt.Sprintf("%s (%s)", s.zone, s.id)
}

// clusterServers are the writer of a cluster and the reader that is to take over: one
// in another zone, if there is one.
func clusterServers(ctx context.Context, api API, d *Database) (writer, target server, err error) {
	var readers []server
	for _, m := range d.Members {
		instance, err := api.Database(ctx, Instance, m.ID)
		if err != nil {
			return writer, target, err
		}
		if m.Writer {
			writer = server{m.ID, instance.Zone}
		} else {
			readers = append(readers, server{m.ID, instance.Zone})
		}
	}
	for _, r := range readers {
		if target.id == "" || target.zone == writer.zone {
			target = r
		}
	}
	return writer, target, nil
}

// Failover has RDS fail over while it tries a write every interval, through DNS
// and on a new connection each, as an application that reconnects does. It waits
// until writes succeed again and another server has taken over, and stores the evidence.
// The error is about the evidence alone, and the document is there all the same.
func Failover(ctx context.Context, regions Regions, r *repo.Repo, o FailoverOptions, plan *FailoverPlan) (*DrillResult, error) {
	f := &failover{o: o, plan: plan}
	f.begin(r)
	err := f.perform(ctx, regions)
	f.conclude(err)
	doc, stored := f.Store(ctx, r.Store(), o.Key)
	return &DrillResult{Document: doc, Err: err}, stored
}

// failover is one under way.
type failover struct {
	o    FailoverOptions
	plan *FailoverPlan
	*evidence.Recorder
	doc  *evidence.Drill // the recorder's
	now  server          // where writes go; zero until it was looked at
	done bool            // RDS was asked, and writes came back
}

func (f *failover) begin(r *repo.Repo) {
	s := f.o.Source
	f.Recorder = evidence.Begin(evidence.Opening{
		Marker: r.Marker(), Program: f.o.Program, Level: evidence.FailoverLevel, By: f.o.By, Target: "end", Now: f.o.Now,
	})
	f.doc = &f.Drill
	f.doc.RPO.Reason = "a failover measures the time without a write alone"
	f.doc.Cleanup.Done = true
	f.doc.Failover = &evidence.Failover{Source: s.Name, Kind: string(s.Kind), Identifier: s.ID, Region: s.Region, Host: f.plan.Database.Host, ZoneBefore: f.plan.Zone, Interval: f.interval().Seconds()}
}

func (f *failover) interval() time.Duration {
	if f.o.Interval > 0 {
		return f.o.Interval
	}
	return defaultInterval
}

// perform fails over and watches, step by step.
func (f *failover) perform(ctx context.Context, regions Regions) error {
	api, err := regions(f.o.Source.Region)
	if err != nil {
		return err
	}
	conn, err := f.o.Connect(&f.plan.Database, f.o.Source.Region)
	if err != nil {
		return err
	}
	p := &prober{conn: conn, database: f.o.Source.Login.Database, interval: f.interval(), now: f.o.Now, lookup: f.o.Lookup, host: f.plan.Database.Host}
	pctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); p.run(pctx) }()
	defer func() { stop(); <-ended; f.note(p) }()

	// Writes must work before: else nothing of what follows is the failover's.
	if err := p.wait(ctx, 10*time.Second, func(w write) bool { return w.err == nil }); err != nil {
		return fmt.Errorf("no write succeeds before the failover, and nothing was begun: %w", err)
	}
	if _, now, err := f.look(ctx, api); err != nil {
		return err
	} else if now != f.plan.from {
		return fmt.Errorf("another server has taken over since the plan was made, %s, and nothing was begun", now)
	}
	asked := f.o.Now()
	if err := api.Failover(ctx, f.o.Source.Kind, f.o.Source.ID, f.plan.to.id); err != nil {
		return err
	}
	limit := f.o.Limit
	if limit <= 0 {
		limit = defaultFailoverLimit
	}
	if err := f.waitServer(ctx, api, limit); err != nil {
		return err
	}
	// What counts is a write after another server had taken over.
	changed := f.o.Now()
	if err := p.wait(ctx, time.Minute, func(w write) bool { return w.err == nil && w.begun.After(changed) }); err != nil {
		return fmt.Errorf("no write succeeds after the failover: %w", err)
	}
	f.done = true
	events, err := api.Events(ctx, f.o.Source.Kind, f.o.Source.ID, asked.Add(-time.Second))
	if err != nil {
		f.doc.Notes = append(f.doc.Notes, probe.OneLine("the events of RDS could not be read: "+err.Error()))
	}
	for _, e := range events {
		f.doc.Failover.Events = append(f.doc.Failover.Events, probe.OneLine(stamp(e.At)+" "+e.Message))
	}
	return nil
}

// waitServer waits until another server has taken over: of an instance that is one in
// another zone, of a cluster another instance of it, which may be in the same.
func (f *failover) waitServer(ctx context.Context, api API, limit time.Duration) error {
	w := f.o.Waiting
	w.Limit = limit
	return w.until(ctx, f.o.Source.String(), func() (string, int, bool, error) {
		d, now, err := f.look(ctx, api)
		if err != nil {
			return "", -1, false, err
		}
		f.now = now
		f.doc.Failover.ZoneAfter = now.zone
		return d.Status, -1, d.Status == available && now != f.plan.from, nil
	})
}

// look returns the source and the server that it runs on.
func (f *failover) look(ctx context.Context, api API) (d *Database, now server, err error) {
	if d, err = api.Database(ctx, f.o.Source.Kind, f.o.Source.ID); err != nil {
		return nil, now, err
	}
	if f.o.Source.Kind == Cluster {
		now, _, err = clusterServers(ctx, api, d)
		return d, now, err
	}
	return d, server{zone: d.Zone}, nil
}

// note puts what was probed into the evidence.
func (f *failover) note(p *prober) {
	e := f.doc.Failover
	e.Addresses, e.Probes = p.addresses, len(p.writes)
	for _, w := range p.writes {
		if w.err != nil {
			e.Failures++
		}
	}
	f.doc.Phases = append(f.doc.Phases, evidence.Phase{Name: evidence.PhaseFailover, Seconds: f.Since()})
	if !f.done {
		return
	}
	lower, upper, last, first, ok := longestGap(p.writes)
	if !ok {
		return
	}
	last, first = last.UTC(), first.UTC()
	e.DowntimeLower, e.DowntimeUpper, e.LastWrite, e.FirstWrite = &lower, &upper, &last, &first
}

func (f *failover) conclude(err error) {
	d, e := f.doc, f.doc.Failover
	add := func(name string, v evidence.Verdict, detail string) {
		d.Checks = append(d.Checks, evidence.Check{Name: name, Kind: "built-in", Required: true, Verdict: v, Detail: probe.OneLine(detail)})
	}
	_, late := errors.AsType[*WaitError](err)
	name := "zone changed"
	if f.o.Source.Kind == Cluster {
		name = "writer changed"
	}
	switch {
	case f.now != server{} && f.now != f.plan.from:
		add(name, evidence.Passed, fmt.Sprintf("%s to %s", f.plan.from, f.now))
		if f.now.zone == f.plan.from.zone {
			d.Notes = append(d.Notes, "both are in zone "+f.now.zone+": that a zone can be lost was not tried")
		}
	case late:
		add(name, evidence.Failed, fmt.Sprintf("it is still %s", f.plan.from))
	default:
		add(name, evidence.Unknown, "it was not seen")
	}
	switch {
	case f.done:
		add("writes came back", evidence.Passed, fmt.Sprintf("%d of %d writes failed", e.Failures, e.Probes))
	case err != nil:
		add("writes came back", evidence.Unknown, err.Error())
	}
	end := evidence.Ending{RTO: f.o.Source.RTO, Proven: e.DowntimeUpper != nil}
	if end.Proven {
		end.Took = *e.DowntimeUpper
	}
	f.Conclude(end)
}

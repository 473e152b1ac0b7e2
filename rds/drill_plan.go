package rds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// plan chooses what to restore, and where to, before anything is made.
func (d *drill) plan(ctx context.Context) (err error) {
	s, doc := d.o.Source, d.doc
	if d.region, err = s.In(d.o.Region); err != nil {
		return err
	}
	doc.RDS.Region = d.region.Name
	if err := d.region.Staging.Check(s.Kind); err != nil {
		return err
	}
	if d.api, err = d.regions(d.region.Name); err != nil {
		return err
	}
	// Without knowing what is production nothing is made, since nothing of it
	// could be deleted.
	if d.protect, err = protectedIDs(ctx, d.regions, d.o.Sources); err != nil {
		return err
	}
	if d.protect == nil {
		d.protect = protected{}
	}
	if err := d.lookAtSource(ctx); err != nil {
		return err
	}
	d.assumeDisaster(ctx)
	if err := d.choose(ctx); err != nil {
		return err
	}
	if err := d.checkLogin(ctx); err != nil {
		return err
	}
	return d.fillRequest()
}

// checkLogin makes sure that there is a password before anything is restored that
// nobody could log in to. It does not depend on the address, which is not known yet.
func (d *drill) checkLogin(ctx context.Context) error {
	conn, err := d.o.Connect(&Database{Kind: d.o.Source.Kind, ID: stagingName(d.doc.RDS.Attempt), Host: "localhost", Port: 5432}, d.region.Name)
	if err != nil || conn.Password == nil {
		return err
	}
	err = d.o.Waiting.again(ctx, "password", func() error {
		_, err := conn.Password(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("the password for what would be restored: %w", err)
	}
	return nil
}

// lookAtSource notes what the source is. One that is gone is no error: its
// snapshots are there for that day.
func (d *drill) lookAtSource(ctx context.Context) error {
	api, err := d.regions(d.o.Source.Region)
	if err != nil {
		return err
	}
	source, err := lookAtSource(ctx, api, d.o.Source)
	if errors.Is(err, ErrNotFound) {
		d.doc.Notes = append(d.doc.Notes, "the source is not there any more")
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range source.Members {
		if !m.Writer {
			continue
		}
		writer, err := api.Database(ctx, Instance, m.ID)
		if err != nil {
			return err
		}
		source = source.with(writer)
	}
	d.source = source
	if d.o.Source.Login.CAFile == "" {
		d.doc.Notes = append(d.doc.Notes, "the certificates of the servers were not verified: login has no ca_file")
	}
	r := d.doc.RDS
	r.ResourceID, r.Engine = source.ResourceID, source.Engine+" "+source.EngineVersion
	if !source.Restorable.IsZero() {
		at, exposure := source.Restorable.UTC(), evidence.Round(max(0, d.Began().Sub(source.Restorable).Seconds()))
		r.Restorable, r.Exposure = &at, &exposure
	}
	return nil
}

// choose finds the snapshot, or makes sure that the time can be restored.
func (d *drill) choose(ctx context.Context) error {
	if !d.o.Time.IsZero() || d.o.From == FromLatestTime {
		return d.chooseTime()
	}
	s, err := d.chooseSnapshot(ctx)
	if err != nil {
		return err
	}
	if d.source != nil && s.Engine != d.source.Engine {
		return &EngineError{What: "snapshot " + s.ID, Have: s.Engine, Want: d.source.Engine}
	}
	if s.Source != d.o.Source.ID {
		return &MismatchError{"snapshot " + s.ID, "source", s.Source, d.o.Source.ID}
	}
	if s.Status != available {
		return &StateError{What: "snapshot " + s.ID, State: s.Status, Want: available}
	}
	d.want, d.taken = *s, s.Created
	d.doc.RDS.Snapshot = s.ID
	d.doc.RDS.Engine = cmp.Or(d.doc.RDS.Engine, s.Engine+" "+s.EngineVersion)
	picked := "by label"
	if d.o.From == FromLatest {
		picked = FromLatest
	}
	d.noteBackup(s.ID, s.EngineVersion, s.Storage, picked)
	return nil
}

// chooseSnapshot finds the snapshot that was named, or the newest. One that is not
// finished is not passed over for an older one in silence: there may be a copy under
// way, which is normal, or one that failed.
func (d *drill) chooseSnapshot(ctx context.Context) (*Snapshot, error) {
	kind, source := d.o.Source.Kind, d.o.Source.ID
	if d.o.From != FromLatest {
		s, err := d.api.Snapshot(ctx, kind, d.o.From)
		if errors.Is(err, ErrNotFound) {
			return nil, &NoSnapshotError{d.o.Source.Name, d.region.Name, d.o.From}
		}
		return s, err
	}
	all, err := d.api.Snapshots(ctx, kind, source)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return b.taken().Compare(a.taken()) })
	for _, s := range all {
		if s.Status == available {
			return &s, nil
		}
		d.doc.Notes = append(d.doc.Notes, probe.OneLine(fmt.Sprintf("snapshot %s is newer and was passed over: it is %s", s.ID, s.Status)))
	}
	return nil, &NoSnapshotError{d.o.Source.Name, d.region.Name, ""}
}

// taken is when the data is of: a copy is as old as what it was made of, and its
// own time is that of the copying.
func (s Snapshot) taken() time.Time {
	if at := attemptTime(s.Tags[TagAttempt]); !at.IsZero() && at.Before(s.Created) && s.CopyOf != "" {
		return at
	}
	return s.Created
}

func (d *drill) chooseTime() error {
	if d.region.Name != d.o.Source.Region {
		return &UnknownRegionError{Source: d.o.Source.Name + "'s automated backups", Region: d.region.Name, Known: []string{d.o.Source.Region}}
	}
	if d.source == nil {
		return &Error{Action: "restore to a point in time", Message: "the source is gone, and its automated backups with it", Err: ErrNotFound}
	}
	latest := d.source.Restorable
	if latest.IsZero() || d.o.Time.After(latest) {
		return &TimeError{Want: d.o.Time, Latest: latest}
	}
	d.doc.Target.Kind, d.taken = "end", latest
	label := "automated backups"
	if !d.o.Time.IsZero() {
		d.doc.Target.Kind, d.doc.Target.Time, d.taken = "time", d.o.Time.UTC(), d.o.Time
	}
	d.noteBackup(label, d.source.EngineVersion, d.source.Storage, "latest")
	return nil
}

func (d *drill) noteBackup(label, version string, gib int, picked string) {
	host := d.o.Source.ID
	d.doc.Backup = &evidence.Backup{Label: label, Taken: d.taken.UTC(), Host: host, PostgreSQL: versionNumber(version), Bytes: int64(gib) << 30, Picked: picked}
}

// versionNumber is server_version_num of "15.6".
func versionNumber(version string) int {
	major, minor, _ := strings.Cut(version, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	return a*10000 + b
}

// fillRequest puts together what RDS is asked for. Nothing is left to its
// defaults: those are the default security group and default parameters.
func (d *drill) fillRequest() error {
	s, attempt := d.o.Source, d.doc.RDS.Attempt
	d.request = Restore{
		Kind: s.Kind, ID: stagingName(attempt), Staging: d.region.Staging, Class: cmp.Or(d.o.Class, d.region.Staging.Class), IAM: s.Login.IAM,
		Tags: Tags{TagKind: tagDrill, TagSource: s.Name, TagAttempt: attempt, TagUntil: stamp(d.o.Now().Add(s.ttl()))},
	}
	if d.source != nil {
		d.request.Class = cmp.Or(d.request.Class, d.source.Class)
		d.request.Engine, d.request.Version = d.source.Engine, d.source.EngineVersion
	}
	if d.want.ID != "" {
		d.request.Snapshot = cmp.Or(d.want.ID, d.want.ARN)
		d.request.Engine, d.request.Version = d.want.Engine, d.want.EngineVersion
	} else {
		d.request.Source, d.request.Time, d.request.Latest = s.ID, d.o.Time, d.o.Time.IsZero()
	}
	if d.request.Class == "" {
		return &StagingError{Missing: []string{"class"}}
	}
	return nil
}

// assumeDisaster asks the source for its clock and newest heartbeat: had it been
// lost at that moment, what would have come back?
func (d *drill) assumeDisaster(ctx context.Context) {
	rpo := &d.doc.RPO
	d.disaster = d.o.Now()
	rpo.Basis, rpo.Reason = "host", "the source could not be asked"
	if h := d.o.Source.Heartbeat; h > 0 {
		seconds := h.Seconds()
		rpo.Heartbeat = &seconds
	}
	if d.source == nil {
		rpo.Reason = "the source is not there any more"
		return
	}
	conn, err := d.o.Connect(d.source, d.o.Source.Region)
	if err == nil {
		actx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		var beat heartbeat
		before := d.o.Now()
		if beat, err = readHeartbeat(actx, conn, d.o.Source.Login.Database); err == nil {
			ours := before.Add(d.o.Now().Sub(before) / 2)
			skew := evidence.Round(ours.Sub(beat.now).Seconds())
			d.disaster, d.alive = beat.now, beat.at
			rpo.Basis, rpo.Reason, rpo.Skew = "primary", "", &skew
		}
	}
	if err != nil {
		rpo.Reason = probe.OneLine("the source could not be asked: " + err.Error())
	}
}

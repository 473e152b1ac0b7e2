package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SnapshotOptions says what TakeSnapshot does.
type SnapshotOptions struct {
	Source  Source
	CopyTo  []Region // none: no copy
	Wait    bool     // until it is available and compared with the source; with copies it always does
	Attempt string   // id of this run
	Waiting Waiting
}

// Taken is what became of a snapshot.
type Taken struct {
	Snapshot Snapshot
	Resumed  bool // an earlier run had begun it
	Verified bool
	Copies   []Copied
}

// Copied is a copy.
type Copied struct {
	Region   string
	Snapshot Snapshot
	Resumed  bool
}

// resumable is how long a snapshot that a run did not finish is taken up again: less
// than from one night to the next, or a copy that failed would leave the second one
// without a snapshot of its own.
const resumable = 12 * time.Hour

// TakeSnapshot takes a snapshot of a source, or takes up one that an interrupted
// run began, copies it, and verifies all of it. After an error what was begun
// goes on at RDS, and the next run takes it up.
func TakeSnapshot(ctx context.Context, regions Regions, o SnapshotOptions) (*Taken, error) {
	api, err := regions(o.Source.Region)
	if err != nil {
		return nil, err
	}
	source, err := lookAtSource(ctx, api, o.Source)
	if err != nil {
		return nil, err
	}
	// Before anything is called: RDS would take the snapshot, and refuse the copy.
	if err := keysForCopies(source, o); err != nil {
		return nil, err
	}
	taken, err := begun(ctx, api, o)
	if err != nil {
		return nil, err
	}
	if taken == nil {
		if taken, err = begin(ctx, api, source, o); err != nil {
			return nil, err
		}
	}
	if !o.Wait && len(o.CopyTo) == 0 {
		return taken, nil
	}
	s, err := o.Waiting.snapshot(ctx, api, o.Source.Kind, taken.Snapshot.ID)
	if err != nil {
		return taken, err
	}
	taken.Snapshot = *s
	if err := verifySnapshot(s, source); err != nil {
		return taken, err
	}
	for _, r := range o.CopyTo {
		c, err := copyTo(ctx, regions, taken.Snapshot, r, o)
		if err != nil {
			return taken, fmt.Errorf("copy to %s: %w", r.Name, err)
		}
		taken.Copies = append(taken.Copies, *c)
	}
	// The last step: from here on the next run begins a new one.
	err = markDone(ctx, api, s, o)
	taken.Verified = err == nil
	return taken, err
}

// lookAtSource finds the source and makes sure that it is one of PostgreSQL's.
func lookAtSource(ctx context.Context, api API, s Source) (*Database, error) {
	d, err := api.Database(ctx, s.Kind, s.ID)
	if err != nil {
		return nil, fmt.Errorf("look at source %s: %w", s.Name, err)
	}
	want := "postgres"
	if s.Kind == Cluster {
		want = "aurora-postgresql"
	}
	if d.Engine != want {
		return nil, &EngineError{What: s.String(), Have: d.Engine, Want: want}
	}
	return d, nil
}

func keysForCopies(source *Database, o SnapshotOptions) error {
	for _, r := range o.CopyTo {
		if source.Encrypted && r.KMSKey == "" {
			return &NoKeyError{Source: o.Source.Name, Region: r.Name}
		}
	}
	return nil
}

// begun finds a snapshot that an earlier run began and did not finish.
func begun(ctx context.Context, api API, o SnapshotOptions) (*Taken, error) {
	all, err := api.Snapshots(ctx, o.Source.Kind, o.Source.ID)
	if err != nil {
		return nil, fmt.Errorf("list the snapshots of %s: %w", o.Source.Name, err)
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return strings.Compare(b.Tags[TagAttempt], a.Tags[TagAttempt]) })
	for _, s := range all {
		if guardSnapshot(&s, o.Source) != nil || s.Tags[TagDone] != "" || s.CopyOf != "" || hopeless(s.Status) {
			continue
		}
		if s.Status == available && (s.Tags[TagWait] == "" || o.Waiting.Now().Sub(attemptTime(s.Tags[TagAttempt])) > resumable) {
			continue
		}
		return &Taken{Snapshot: s, Resumed: true}, nil
	}
	return nil, nil
}

func attemptTime(attempt string) time.Time {
	t, _ := time.Parse("20060102t150405z", attempt[:min(len(attempt), 16)])
	return t
}

// mayBeSnapshot are the states in which RDS takes a snapshot.
var mayBeSnapshot = []string{available, "storage-optimization", "storage-config-upgrade"}

func begin(ctx context.Context, api API, source *Database, o SnapshotOptions) (*Taken, error) {
	if !slices.Contains(mayBeSnapshot, source.Status) {
		return nil, &StateError{What: o.Source.String(), State: source.Status, Want: available}
	}
	id := snapshotName(o.Source.Name, o.Attempt)
	tags := Tags{TagKind: tagSnapshot, TagSource: o.Source.Name, TagAttempt: o.Attempt}
	if o.Wait || len(o.CopyTo) > 0 {
		tags[TagWait] = "yes"
	}
	var s *Snapshot
	err := o.Waiting.again(ctx, "snapshot "+id, func() (err error) {
		s, err = api.CreateSnapshot(ctx, o.Source.Kind, o.Source.ID, id, tags)
		if errors.Is(err, ErrExists) { // an earlier try, whose answer was lost
			if s, err = api.Snapshot(ctx, o.Source.Kind, id); err == nil {
				err = guardSnapshot(s, o.Source)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take a snapshot of %s: %w", o.Source.Name, err)
	}
	return &Taken{Snapshot: *s}, nil
}

// verifySnapshot holds a snapshot to its source.
func verifySnapshot(s *Snapshot, source *Database) error {
	what := "snapshot " + s.ID
	switch {
	case s.ResourceID != "" && s.ResourceID != source.ResourceID:
		return &MismatchError{what, "resource id", s.ResourceID, source.ResourceID}
	case s.Engine != source.Engine:
		return &MismatchError{what, "engine", s.Engine, source.Engine}
	case s.Encrypted != source.Encrypted:
		return &MismatchError{what, "encryption", yes(s.Encrypted), yes(source.Encrypted)}
	// The source may have grown since; it never shrinks.
	case source.Kind == Instance && (s.Storage == 0 || s.Storage > source.Storage):
		return &MismatchError{what, "size", gib(s.Storage), gib(source.Storage)}
	}
	return nil
}

// copyTo copies a snapshot, or takes up a copy that is there, and verifies it.
func copyTo(ctx context.Context, regions Regions, s Snapshot, to Region, o SnapshotOptions) (*Copied, error) {
	api, err := regions(to.Name)
	if err != nil {
		return nil, err
	}
	c := &Copied{Region: to.Name}
	have, err := api.Snapshot(ctx, s.Kind, s.ID)
	switch {
	case err == nil:
		if err := guardSnapshot(have, o.Source); err != nil {
			return nil, err
		}
		if c.Resumed = !hopeless(have.Status); c.Resumed {
			break
		}
		// It failed in an earlier run: another takes its name.
		if err := deleteSnapshot(ctx, api, s.Kind, s.ID, o.Source); err != nil {
			return nil, err
		}
		if err := beginCopy(ctx, api, s, to, o); err != nil {
			return nil, err
		}
	case errors.Is(err, ErrNotFound):
		if err := beginCopy(ctx, api, s, to, o); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	w := o.Waiting
	if w.Observe != nil {
		w.Observe = func(p Progress) { p.What = "copy in " + to.Name; o.Waiting.Observe(p) }
	}
	done, err := w.snapshot(ctx, api, s.Kind, s.ID)
	if err != nil {
		return nil, err
	}
	c.Snapshot = *done
	if err := verifyCopy(done, &s, to); err != nil {
		return nil, err
	}
	return c, markDone(ctx, api, done, o)
}

// markDone tags what was verified: expiry counts it from now on.
func markDone(ctx context.Context, api API, s *Snapshot, o SnapshotOptions) error {
	return o.Waiting.again(ctx, "snapshot "+s.ID, func() error {
		return api.Tag(ctx, s.ARN, Tags{TagDone: stamp(o.Waiting.Now())})
	})
}

// beginCopy asks for the copy. RDS copies 20 at a time into a region; while some
// are under way a quota that is used up frees itself.
func beginCopy(ctx context.Context, api API, s Snapshot, to Region, o SnapshotOptions) error {
	tags := Tags{TagKind: tagSnapshot, TagSource: o.Source.Name, TagAttempt: s.Tags[TagAttempt], TagWait: "yes"}
	if tags[TagAttempt] == "" {
		tags[TagAttempt] = o.Attempt
	}
	return o.Waiting.until(ctx, "copy in "+to.Name, func() (string, int, bool, error) {
		_, err := api.CopySnapshot(ctx, Copy{Of: s, From: o.Source.Region, ID: s.ID, KMSKey: to.KMSKey, OptionGroup: to.Staging.OptionGroup, Tags: tags})
		if errors.Is(err, ErrExists) {
			return "", -1, true, nil // an earlier try; who it belongs to is looked at later
		}
		if errors.Is(err, ErrQuota) && copying(ctx, api, s) {
			return "waiting for other copies", -1, false, nil
		}
		return "", -1, err == nil, err
	})
}

// copying says whether copies are under way in the region of api.
func copying(ctx context.Context, api API, s Snapshot) bool {
	all, err := api.Snapshots(ctx, s.Kind, "")
	return err == nil && slices.ContainsFunc(all, func(s Snapshot) bool {
		return slices.Contains([]string{"creating", "copying", "pending"}, s.Status)
	})
}

// verifyCopy holds a copy to what it was made of.
func verifyCopy(c, of *Snapshot, to Region) error {
	what := fmt.Sprintf("copy %s in %s", c.ID, to.Name)
	switch {
	case c.CopyOf != "" && c.CopyOf != of.ARN:
		return &MismatchError{what, "source", c.CopyOf, of.ARN}
	case c.Engine != of.Engine:
		return &MismatchError{what, "engine", c.Engine, of.Engine}
	case c.EngineVersion != of.EngineVersion:
		return &MismatchError{what, "engine version", c.EngineVersion, of.EngineVersion}
	case c.Storage != of.Storage:
		return &MismatchError{what, "size", gib(c.Storage), gib(of.Storage)}
	case (of.Encrypted || to.KMSKey != "") && !c.Encrypted:
		return &MismatchError{what, "encryption", yes(false), yes(true)}
	case strings.HasPrefix(to.KMSKey, "arn:") && strings.Contains(to.KMSKey, ":key/") && c.KMSKey != to.KMSKey:
		return &MismatchError{what, "KMS key", c.KMSKey, to.KMSKey}
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func gib(n int) string { return fmt.Sprintf("%d GiB", n) }

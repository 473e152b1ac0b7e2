// Package backup takes base backups: it walks the data directory of a running
// server while the server is in backup mode, puts what it reads into sealed
// packs, and commits a manifest once all WAL that the backup needs is in the
// archive.
//
// Until that commit nothing exists but unreferenced packs, so a backup that
// fails or is killed at any moment leaves garbage and never damage. The order
// of the steps in Run is what makes a backup restorable; each says why it
// stands where it does.
package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Options says what to back up and how.
type Options struct {
	DataDir      string        // of the server; read directly
	Conn         string        // libpq connection string or URL; the server of DataDir
	Jobs         int           // workers; at least 1
	Full         bool          // refer to no older backup
	Scan         bool          // believe no summary: look at every page
	MaxPackAge   time.Duration // packs of older backups are made again before they are older; 0 for never
	Level        repo.Level
	Fingerprints bool                      // note what is in the tables, for drills
	WALTimeout   time.Duration             // how long to wait for WAL in the archive, each time
	Host         string                    // this host, for the manifest and the lease
	Process      string                    // this process, for the lease; may be ""
	Gone         func(process string) bool // may be nil; see repo.Claim
	Program      string                    // version, for the manifest
	Now          func() time.Time
	Observe      func(Progress) // may be nil; called from one goroutine at a time
	Warn         func(string)   // may be nil; one line a call
}

// Progress is where a running backup stands.
type Progress struct {
	Phase       string // "archive", "checkpoint", "changes", "copy", "tables", "wal"
	Done, Total int64  // bytes, in phase "copy"
}

// LeaseName is the lease that a running backup holds.
const LeaseName = repo.BackupLease

// Run takes a backup and returns what it committed.
//
// Errors: *repo.LeasedError when another backup runs; *ArchivingError when WAL
// does not reach the archive, found before anything is copied; *MismatchError
// when the server is not that of the data directory, or not one that can be
// backed up; others from the server, the files or the store. After any error
// no backup was made. Bad pages are no error: they are in the Info.
func Run(ctx context.Context, r *repo.Repo, o Options) (_ *repo.Info, err error) {
	label := newLabel(o.Now())
	ctx, release, err := holdLease(ctx, r, o, label)
	if err != nil {
		return nil, err
	}
	defer release()

	srv, err := connect(ctx, o.Conn)
	if err != nil {
		return nil, err
	}
	defer srv.close()

	facts, start, err := begin(ctx, r, srv, label, o)
	if err != nil {
		return nil, err
	}
	tree, err := srv.list(ctx, &facts, o)
	if err != nil {
		return nil, err
	}
	if err := tree.check(); err != nil {
		return nil, err
	}
	m := r.NewManifestWriter()
	defer m.Close()
	c := newCopier(r, m, tree, facts, label, start, o)
	// Whatever fails from here on, what is stored by then need not be sent again.
	defer func() {
		if err != nil {
			c.noteRest(ctx)
		}
	}()
	o.observe(Progress{Phase: "changes"})
	from, err := c.buildOn(ctx, srv)
	if err != nil {
		return nil, err
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	// Last, so that its checkpoint is the newest that the backup may hold.
	if err := c.copyControlFile(ctx); err != nil {
		return nil, err
	}

	stop, err := c.end(ctx, srv)
	if err != nil {
		return nil, err
	}
	needed := stop.LSN
	if o.Fingerprints && facts.standby {
		o.warn("this backup has no fingerprints of tables: they are taken from a primary")
	} else if o.Fingerprints {
		needed = max(needed, fingerprints(ctx, r, srv, c.label, o))
	}
	o.observe(Progress{Phase: "wal"})
	if err := waitArchived(ctx, r, srv, facts, start.Timeline, start.LSN, needed, o); err != nil {
		return nil, err
	}

	info := facts.info(start, stop)
	info.Label, info.Host, info.Program = c.label, o.Host, o.Program
	info.Source, info.Base, info.Changes, info.ChangesWhy = c.source, from.base, from.kind, from.why
	info.Recipients = r.RecipientIDs()
	c.fill(&info)
	if err := c.commit(ctx, &info); err != nil {
		return nil, err
	}
	c.dropParts(ctx)
	return &info, nil
}

// commit makes the backup exist. Under another label it has no fingerprints: their name
// bears the first.
func (c *copier) commit(ctx context.Context, info *repo.Info) error {
	return c.named(&info.Label, func() error { return c.manifest.Commit(ctx, info, c.files.entries) })
}

// labelTries bounds how often another label is tried.
const labelTries = 3

// named stores something under a label. The lease and what is stored first show it to who
// can read the bucket: where somebody who is not believed has taken a name under it,
// another is tried that nobody has seen yet.
func (c *copier) named(label *string, store func() error) error {
	err := store()
	for range labelTries {
		if !repo.AboutObject(err) {
			break
		}
		c.o.warn("%v: the backup goes on under another label", err)
		*label = anotherLabel(*label)
		err = store()
	}
	return err
}

// begin finds out whose files they are, proves that WAL is archived, and starts the
// backup.
func begin(ctx context.Context, r *repo.Repo, srv *server, label string, o Options) (facts, position, error) {
	// The files must be that server's, or the backup would mix two clusters.
	f, err := srv.match(ctx, o.DataDir)
	if err != nil {
		return f, position{}, err
	}
	if f.otherStart != "" {
		o.warn("%s", f.otherStart)
	}
	if err := registerSystem(ctx, r, f, o); err != nil {
		return f, position{}, err
	}
	// Without WAL in the archive no backup can start. Finding that out now
	// costs a segment, finding it out at the end costs the night.
	o.observe(Progress{Phase: "archive"})
	if err := proveArchiving(ctx, r, srv, f, o); err != nil {
		return f, position{}, err
	}
	o.observe(Progress{Phase: "checkpoint"})
	start, err := srv.start(ctx, "lifeboat "+label, f)
	if err != nil {
		return f, start, err
	}
	return f, start, checkSameStorage(o.DataDir, f, start)
}

// list is what there is to copy, and notes the tablespaces. Both lists are made after
// the start: what is created later is in the WAL.
func (s *server) list(ctx context.Context, f *facts, o Options) (_ *tree, err error) {
	if f.tablespaces, err = s.readTablespaces(ctx); err != nil {
		return nil, err
	}
	t, err := walk(o.DataDir, *f, o.warn)
	if err != nil {
		return nil, err
	}
	return t, s.checkTablespaces(ctx, f.tablespaces, t.spaces)
}

// end stops the backup. What was copied must be of one server in one role.
func (c *copier) end(ctx context.Context, s *server) (position, error) {
	stop, err := s.stop(ctx)
	if err != nil {
		return stop, err
	}
	if err := checkTimeline(ctx, c.o.DataDir, c.facts, c.start, stop); err != nil {
		return stop, err
	}
	return stop, c.facts.checkState(c.o.DataDir, c.state)
}

// newLabel names a backup by when it began. Backups of one second sort by time too:
// what asks for the newest goes by the order of labels.
func newLabel(now time.Time) string {
	var b [3]byte
	rand.Read(b[1:])
	b[0] = byte(now.Nanosecond() / (1e9 / 256))
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:])
}

// anotherLabel is one of the same moment.
func anotherLabel(label string) string {
	var b [2]byte
	rand.Read(b[:])
	return label[:len(label)-2*len(b)] + hex.EncodeToString(b[:])
}

func (o Options) observe(p Progress) {
	if o.Observe != nil {
		o.Observe(p)
	}
}

func (o Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}

// holdLease keeps other backups away until release is called.
func holdLease(ctx context.Context, r *repo.Repo, o Options, label string) (context.Context, func(), error) {
	return r.HoldLease(ctx, LeaseName,
		repo.Claim{Holder: o.Host + " (backup " + label + ")", Process: o.Process, Gone: o.Gone}, o.Now,
		func(err error) { o.warn("%v", err) })
}

// MismatchError says that the server and the data directory do not fit each
// other, or that this server cannot be backed up.
type MismatchError struct{ Reason string }

func (e *MismatchError) Error() string { return e.Reason }

// ArchivingError says that WAL does not arrive in the archive.
type ArchivingError struct {
	Reason string
	Err    error // may be nil
}

func (e *ArchivingError) Error() string {
	if e.Err != nil {
		return "WAL archiving does not work: " + e.Reason + ": " + e.Err.Error()
	}
	return "WAL archiving does not work: " + e.Reason
}

func (e *ArchivingError) Unwrap() error { return e.Err }

// registerSystem notes which PostgreSQL system this cluster is now. Only the name of that
// object is ever looked at: that somebody else has stored something there is no reason
// not to take a backup.
func registerSystem(ctx context.Context, r *repo.Repo, f facts, o Options) error {
	note := fmt.Appendf(nil, "{\"system\":%q,\"pg_version\":%d}\n", f.control.SystemID, f.version)
	err := r.RegisterSystem(ctx, f.control.SystemID, note)
	if repo.AboutObject(err) {
		o.warn("the note on system %s is not ours: %v", f.control.SystemID, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("register system %s: %w", f.control.SystemID, err)
	}
	return nil
}

// position is where a backup starts or stops.
type position struct {
	LSN      postgres.LSN
	Timeline postgres.Timeline
	Time     time.Time    // the server's clock
	reached  postgres.LSN // up to where the server had written, or replayed, when it started
	label    string       // backup_label, when stopping
	spcmap   string       // tablespace_map, when stopping
}

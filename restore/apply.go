package restore

import (
	"context"
	"fmt"
	"runtime"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Options says how Apply works.
type Options struct {
	Jobs    int            // workers that open and write; 0 is one a core
	Observe func(Progress) // may be nil; called from several goroutines, often
	Note    func(string)   // may be nil; something a person should know, one line

	// Listed, if set, is called by Load each time it has listed the archive of
	// a system: what is archived later is not in the plan.
	Listed func(postgres.SystemID)

	memory int64 // of the machine, in tests; else the system is asked
}

// Progress is where a running restore stands.
type Progress struct {
	Phase       Phase
	Done, Total int64 // bytes; Total 0 is unknown
}

// Phase is a part of a restore that takes time.
type Phase string

// The phases, in their order; the first two belong to Load.
const (
	ReadPhase   Phase = "read"   // manifests and lists
	SurveyPhase Phase = "survey" // the WAL to be replayed
	WritePhase  Phase = "write"  // files
	SyncPhase   Phase = "sync"   // to disk
)

func (o Options) observe(p Progress) {
	if o.Observe != nil {
		o.Observe(p)
	}
}

func (o Options) note(format string, args ...any) {
	if o.Note != nil {
		o.Note(fmt.Sprintf(format, args...))
	}
}

// maxJobs bounds the workers: each holds a pack, and all packs in flight
// together must stay within packBudget.
const maxJobs = 6

func (o Options) jobs() int {
	n := o.Jobs
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return min(n, maxJobs)
}

func (o Options) machineMemory() int64 {
	if o.memory > 0 {
		return o.memory
	}
	return totalMemory()
}

// Apply does what the plan says. It writes only into the directories of the plan,
// which must still be as they were when the plan was made.
//
// After nil everything is on disk and the data directory can be started. After
// an error, or when it was killed, the data directory has no global/pg_control,
// so no server starts on it; a plan for the same directories then removes what is
// there, by the marker file that lies in each.
//
// Errors: *DirError, *IncompleteError, *BackupError, *repo.CorruptError,
// *repo.UntrustedError, repo.ErrNoIdentity, repo.ErrWrongIdentity,
// ErrUnsafeManifest, and those of the store and the file system.
func Apply(ctx context.Context, r *repo.Repo, p *Plan, o Options) error {
	m, err := openPlanned(ctx, r, p)
	if err != nil {
		return err
	}
	defer m.Close()
	files, err := newLayout(m.Files, p.Tablespaces)
	if err != nil {
		return &repo.CorruptError{Object: repo.ManifestKey(p.Label), Reason: "its file list is not safe", Err: err}
	}
	d, err := openDirs(p, files)
	if err != nil {
		return err
	}
	defer d.close()

	// Directories first: every file then has its place.
	if err := d.makeDirs(files); err != nil {
		return err
	}
	control, err := d.writeFiles(ctx, r, m, files, o)
	if err != nil {
		return err
	}
	if err := checkControl(control, p); err != nil {
		return err
	}

	// Recovery settings after the files, because postgresql.auto.conf is one.
	if err := d.writeRecovery(p, files, o); err != nil {
		return err
	}
	if err := d.finishDirs(files); err != nil {
		return err
	}

	// The control file makes a server startable, so all else must be on disk.
	o.observe(Progress{Phase: SyncPhase})
	if err := d.sync(); err != nil {
		return err
	}
	return d.writeControl(control, files)
}

// openPlanned opens the manifest of the plan's backup and makes sure that it
// is the one that was planned with: the plan knows it from the info object.
func openPlanned(ctx context.Context, r *repo.Repo, p *Plan) (*repo.ManifestReader, error) {
	m, err := r.OpenManifest(ctx, p.Label)
	if err != nil {
		return nil, err
	}
	if err := sameBackup(m.Info, p.Backup); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// sameBackup compares what a plan rests on.
func sameBackup(manifest, info repo.Info) error {
	differs := manifest.System != info.System || manifest.Timeline != info.Timeline ||
		manifest.StartLSN != info.StartLSN || manifest.StopLSN != info.StopLSN ||
		manifest.BackupLabel != info.BackupLabel || manifest.SegSize != info.SegSize ||
		len(manifest.Tablespaces) != len(info.Tablespaces)
	for i := range manifest.Tablespaces {
		differs = differs || manifest.Tablespaces[i] != info.Tablespaces[i]
	}
	if differs {
		return &repo.CorruptError{Object: repo.InfoKey(info.Label), Reason: "it does not say what the manifest says"}
	}
	return nil
}

// checkControl makes sure that the control file of the backup is one, of the
// system that the plan is about and of the server that the label is of.
func checkControl(data []byte, p *Plan) error {
	c, err := postgres.ParseControlFile(data)
	if err == nil && c.SystemID != p.Backup.System {
		err = fmt.Errorf("it is of system %s, not %s", c.SystemID, p.Backup.System)
	}
	if err != nil {
		return &repo.CorruptError{Object: repo.ManifestKey(p.Label), Reason: "its " + postgres.ControlPath + " cannot be used", Err: err}
	}
	return checkStandbyState(c.State, p)
}

// checkStandbyState refuses what InitWalRecovery in access/transam/xlogrecovery.c
// does: the label of a standby with the control file of another server. A label
// that we cannot read is left to PostgreSQL.
func checkStandbyState(state postgres.DBState, p *Plan) error {
	l, err := postgres.ParseBackupLabel([]byte(p.Backup.BackupLabel))
	if err != nil || !l.FromStandby() || state == postgres.DBInArchiveRecovery || state == postgres.DBShutdownedInRecovery {
		return nil
	}
	return &BackupError{Label: p.Label, Reason: fmt.Sprintf("it was taken from a standby, but its %s is that of a server %q: "+
		"PostgreSQL does not start from it", postgres.ControlPath, state)}
}

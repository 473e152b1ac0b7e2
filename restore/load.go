package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Load finds out what NewPlan needs to know for this target: it reads the
// repository and looks at the directories, and changes nothing.
//
// What makes a plan impossible is not Load's business: it returns Inputs from
// which NewPlan returns that error. Load's own errors are those of the store,
// of keys that do not fit, and of a repository that cannot be trusted at all.
func Load(ctx context.Context, r *repo.Repo, t Target, o Options) (*Inputs, error) {
	in := &Inputs{
		Unread: map[string]error{}, Archives: map[postgres.SystemID]*wal.Index{}, Contents: map[string]*Contents{},
		Surveys: map[string]*Survey{}, Directories: map[string]Directory{}, Owners: map[string]OwnerFact{},
	}
	if !r.CanOpenData() {
		return nil, repo.ErrNoIdentity
	}
	o.observe(Progress{Phase: ReadPhase})
	if err := in.loadBackups(ctx, r, t); err != nil {
		return nil, err
	}
	// Each round adds facts that the round before lacked, so this ends.
	for {
		_, err := NewPlan(in, t)
		missing, ok := errors.AsType[*MissingFactError](err)
		if !ok {
			return in, nil
		}
		if err := in.find(ctx, r, t, missing, o); err != nil {
			return nil, err
		}
	}
}

// loadBackups reads what all backups are, or the one that was named.
func (in *Inputs) loadBackups(ctx context.Context, r *repo.Repo, t Target) (err error) {
	var all []repo.Backup
	if t.Backup == "" {
		all, err = r.LoadBackups(ctx)
	} else {
		all = make([]repo.Backup, 1)
		all[0], err = r.LoadBackup(ctx, t.Backup)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.Err != nil {
			in.Unread[b.Label] = b.Err
			continue
		}
		if text := b.Warning(); text != "" {
			in.Notes = append(in.Notes, text)
		}
		in.Backups = append(in.Backups, b.Info)
	}
	return nil
}

// damaged says whether an error is about one object and not about the whole.
func damaged(err error) bool {
	_, corrupt := errors.AsType[*repo.CorruptError](err)
	_, untrusted := errors.AsType[*repo.UntrustedError](err)
	return corrupt || untrusted
}

// behindNewest says which objects of a system's archive must bear a signed header to
// count: those from the start of the newest backup on, and histories. How far the
// archive gets hangs on their names, which anybody can have made; what is before, the
// survey reads whole where it is to be replayed.
func (in *Inputs) behindNewest(system postgres.SystemID) func(postgres.WALName) bool {
	var newest repo.Info
	for _, b := range in.Backups {
		if b.System == system && b.Label > newest.Label {
			newest = b
		}
	}
	return func(n postgres.WALName) bool {
		if n.Kind == postgres.WALHistory || newest.Label == "" {
			return true
		}
		seg, err := postgres.ParseSegment(n.Segment, newest.SegSize)
		return err != nil || seg.End() > newest.StartLSN
	}
}

// mostNamed is how many objects of the archive that are nobody's a note names.
const mostNamed = 3

// loadArchive lists the archive. What is not what it is called is taken for not there.
func (in *Inputs) loadArchive(ctx context.Context, r *repo.Repo, system postgres.SystemID) (*wal.Index, error) {
	ix, err := wal.LoadChecked(ctx, r, system, func(storage.Info) {}, wal.HeaderCheck{Want: in.behindNewest(system)})
	if err != nil {
		return nil, err
	}
	bad := ix.Bad()
	for _, b := range bad[:min(len(bad), mostNamed)] {
		in.Notes = append(in.Notes, fmt.Sprintf("%s is no WAL of this cluster and counts for nothing: %v", b.Key, b.Err))
	}
	if more := len(bad) - mostNamed; more > 0 {
		in.Notes = append(in.Notes, fmt.Sprintf("and so are %d more objects of the archive; \"lifeboat wal status\" lists them", more))
	}
	return ix, nil
}

// find gathers the facts that are missing.
func (in *Inputs) find(ctx context.Context, r *repo.Repo, t Target, m *MissingFactError, o Options) error {
	if m.Archive != 0 {
		ix, err := in.loadArchive(ctx, r, m.Archive)
		if err != nil {
			return err
		}
		in.Archives[m.Archive] = ix
		if o.Listed != nil {
			o.Listed(m.Archive)
		}
	}
	for _, path := range m.Directories {
		in.Directories[path] = lookAt(path)
	}
	if m.Backup == nil {
		return nil
	}
	if m.Owner {
		owner, err := findOwner(t, *m.Backup)
		in.Owners[m.Backup.Label] = OwnerFact{owner, err}
	}
	g, ctx := errgroup.WithContext(ctx)
	var contents *Contents
	var survey *Survey
	if m.Contents {
		g.Go(func() (err error) {
			contents, err = readContents(ctx, r, *m.Backup)
			return err
		})
	}
	if m.Survey != nil {
		g.Go(func() (err error) {
			survey, err = readSurvey(ctx, r, in.Archives[m.Backup.System], *m.Survey, *m.Backup, t.Point, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("look at backup %s: %w", m.Backup.Label, err)
	}
	if contents != nil {
		in.Contents[m.Backup.Label] = contents
	}
	if survey != nil {
		in.Surveys[m.Backup.Label] = survey
	}
	return nil
}

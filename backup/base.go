package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// basesTried is how many backups are looked at for a base, from the newest on.
const basesTried = 20

// sourceID names the very data directory: a copy or a restored one differs.
// "" where that cannot be told, and then no backup has a base.
func sourceID(dataDir, host string) string {
	id := fileID(filepath.Join(dataDir, "PG_VERSION"))
	if id == "" {
		return ""
	}
	return host + " " + id
}

// readHistory is the history of a timeline, from pg_wal.
func readHistory(dataDir string, tl postgres.Timeline) (postgres.History, error) {
	if tl == 1 {
		return postgres.History{Timeline: 1}, nil
	}
	raw, err := os.ReadFile(filepath.Join(dataDir, "pg_wal", tl.HistoryName()))
	if err != nil {
		return postgres.History{}, fmt.Errorf("read the history of timeline %s: %w", tl, err)
	}
	return postgres.ParseHistory(tl, raw)
}

// chooseBase finds the newest backup of these very files whose WAL leads to
// the start of this one. Without one it says why; a backup that cannot be read
// is no base, and a store that fails is an error.
func chooseBase(ctx context.Context, r *repo.Repo, f facts, source string, start position, h postgres.History) (*repo.Info, string, error) {
	if source == "" {
		return nil, "the file system does not tell when a file was made", nil
	}
	labels, err := r.Backups(ctx)
	if err != nil {
		return nil, "", err
	}
	if len(labels) == 0 {
		return nil, "it is the first backup", nil
	}
	first := ""
	for i, label := range slices.Backward(labels) {
		if i < len(labels)-basesTried {
			break
		}
		info, why, err := readBase(ctx, r, label)
		if err != nil {
			return nil, "", err
		}
		if why == "" {
			why = unfit(info, f, source, start, h)
		}
		if why == "" {
			return &info, "", nil
		}
		if first == "" {
			first = fmt.Sprintf("of backup %s %s", label, why)
		}
	}
	return nil, first, nil
}

// readBase reads what a backup is. What is wrong with the object itself is a
// reason not to build on it; with the store, an error.
func readBase(ctx context.Context, r *repo.Repo, label string) (info repo.Info, why string, err error) {
	info, err = r.Info(ctx, label)
	if err == nil {
		return info, "", nil
	}
	if unreadable(err) {
		return info, "nothing can be read: " + err.Error(), nil
	}
	return info, "", err
}

// unreadable says whether an object cannot be read, whatever is done: it is
// damaged, forged, sealed for others, or gone.
func unreadable(err error) bool {
	_, corrupt := errors.AsType[*repo.CorruptError](err)
	_, untrusted := errors.AsType[*repo.UntrustedError](err)
	return corrupt || untrusted || errors.Is(err, repo.ErrWrongIdentity) || errors.Is(err, repo.ErrNoIdentity) || errors.Is(err, fs.ErrNotExist)
}

// unfit says why a backup cannot be the base; "" when it can.
func unfit(b repo.Info, f facts, source string, start position, h postgres.History) string {
	switch {
	case b.Source == "":
		return "it is not known which files it was taken from"
	case b.Source != source:
		return "the files are others: it was taken on another host or from another copy"
	case b.System != f.control.SystemID, b.BlockSize != int(f.control.BlockSize), b.Catalog != f.control.CatalogVersion:
		return "the cluster is another"
	case b.BadCount > int64(len(b.BadPages)):
		return "not every bad page is known"
	case b.StopLSN > start.reached:
		// A standby may start where it started before; then replay from there
		// passes the end of the base too.
		return fmt.Sprintf("the end, %s, lies behind what the server has written", b.StopLSN)
	case !h.Contains(b.Timeline, b.StopLSN):
		return fmt.Sprintf("the end lies behind the point where timeline %s left timeline %s", start.Timeline, b.Timeline)
	}
	return ""
}

// origin is what a backup was made from, for its manifest.
type origin struct {
	source    string // of the files
	base      string // label; "" for a full backup
	kind, why string // as in repo.Info
}

// buildOn takes over what an older backup of the same files still holds.
// Without such a backup, and with Full, everything is read.
func (c *copier) buildOn(ctx context.Context, s *server, label string, start position) (origin, error) {
	from := origin{source: sourceID(c.o.DataDir, c.o.Host), kind: repo.ChangesFull, why: "it was asked for"}
	if c.o.Full {
		return from, nil
	}
	h, err := readHistory(c.o.DataDir, start.Timeline)
	if err != nil {
		from.why = err.Error()
		return from, nil
	}
	info, why, err := chooseBase(ctx, c.repo, c.facts, from.source, start, h)
	if err != nil || info == nil {
		from.why = why
		return from, err
	}
	ch := changes{kind: repo.ChangesScan, why: "it was asked for"}
	if !c.o.Scan {
		if ch, err = findChanges(ctx, c.repo, s, c.facts, info, start, h, c.o); err != nil {
			return from, err
		}
	}
	// From here on who expires leaves the packs of the base; before, it may
	// have gone.
	if err := c.repo.Adopt(ctx, label, repo.Adoption{Bases: []string{info.Label}, Made: c.o.Now().UTC()}); err != nil {
		return from, err
	}
	if there, err := c.repo.Exists(ctx, info.Label); err != nil || !there {
		from.why = fmt.Sprintf("backup %s was just expired", info.Label)
		return from, err
	}
	b, err := openBase(ctx, c.repo, info, ch)
	if unreadable(err) {
		from.why = err.Error()
		return from, nil
	}
	if err != nil {
		return from, err
	}
	defer b.source.Close()
	if err := c.takeOver(ctx, label, b); err != nil {
		return from, err
	}
	from.base, from.kind, from.why = info.Label, ch.kind, ch.why
	return from, nil
}

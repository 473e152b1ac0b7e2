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
	first, own := "", false // why not the newest, or the newest of these files
	for i, label := range slices.Backward(labels) {
		if i < len(labels)-basesTried {
			break
		}
		info, why, err := readBase(ctx, r, label)
		if err != nil {
			return nil, "", err
		}
		if why == "" {
			why = unfit(info, f, source, r.RecipientIDs(), start, h)
		}
		if why == "" {
			return &info, "", nil
		}
		if same := info.Source == source; first == "" || same && !own {
			first, own = fmt.Sprintf("of backup %s %s", label, why), same
		}
	}
	return nil, first, nil
}

// openedBy says whether what these recipients can open is open to all who are
// to open this backup.
func openedBy(have, want []string) bool {
	for _, r := range want {
		if !slices.Contains(have, r) {
			return false
		}
	}
	return len(want) > 0
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
// damaged, forged, of a later format, sealed for others, or gone.
func unreadable(err error) bool {
	_, corrupt := errors.AsType[*repo.CorruptError](err)
	_, untrusted := errors.AsType[*repo.UntrustedError](err)
	return corrupt || untrusted || repo.LaterFormat(err) || errors.Is(err, repo.ErrWrongIdentity) || errors.Is(err, repo.ErrNoIdentity) || errors.Is(err, fs.ErrNotExist)
}

// unfit says why a backup cannot be the base; "" when it can.
func unfit(b repo.Info, f facts, source string, recipients []string, start position, h postgres.History) string {
	switch {
	case b.Source == "":
		return "it is not known which files it was taken from"
	case b.Source != source:
		return "the files are others: it was taken on another host or from another copy"
	case b.System != f.control.SystemID, b.BlockSize != int(f.control.BlockSize), b.Catalog != f.control.CatalogVersion:
		return "the cluster is another"
	case b.Checksums != f.checksums():
		// pg_checksums writes every page again, and tells neither WAL nor LSNs.
		return "page checksums have been switched on or off since"
	case !openedBy(b.Recipients, recipients):
		return "the packs cannot be opened by every recipient of today"
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
	base      string // label; "" for a full backup
	kind, why string // as in repo.Info
}

// buildOn takes over what older backups of the same files still hold: those
// that were interrupted, and one that was committed. Without any, everything is
// read.
func (c *copier) buildOn(ctx context.Context, s *server) (origin, error) {
	from := origin{kind: repo.ChangesFull}
	h, err := readHistory(c.o.DataDir, c.start.Timeline)
	if err != nil {
		from.why = err.Error()
		return from, nil
	}
	info, why, err := (*repo.Info)(nil), "it was asked for", error(nil)
	if !c.o.Full {
		info, why, err = chooseBase(ctx, c.repo, c.facts, c.source, c.start, h)
	}
	if err != nil {
		return from, err
	}
	parts, err := c.interrupted(ctx, info)
	if err != nil {
		return from, err
	}
	if from.why = why; info == nil && len(parts) == 0 {
		return from, nil
	}
	chosen := info
	if info, err = c.adopt(ctx, info, parts); err != nil {
		return from, err
	}
	if chosen != nil && info == nil {
		from.why = "backup " + chosen.Label + " has just been removed"
	}
	layers, err := c.layers(ctx, s, info, parts, h)
	if err != nil {
		return from, err
	}
	packs := int64(0)
	if info != nil {
		packs = info.Packs
	}
	if err := c.takeOverAll(ctx, layers, packs); err != nil {
		return from, err
	}
	switch n := len(layers); {
	case info == nil:
	case n > 0 && layers[n-1].label == info.Label:
		from = origin{info.Label, layers[n-1].changes.kind, layers[n-1].changes.why}
	default:
		from.why = "the manifest of backup " + info.Label + " cannot be read"
	}
	from.why = joinWords(from.why, resumed(layers))
	return from, nil
}

func joinWords(a, b string) string {
	if a != "" && b != "" {
		a += "; "
	}
	return a + b
}

// adopt says whose packs are taken over, and then looks whether the base still
// is there: see repo.Adoption.
func (c *copier) adopt(ctx context.Context, info *repo.Info, parts []repo.Part) (*repo.Info, error) {
	var bases []string
	for _, p := range parts {
		bases = append(bases, p.Label)
	}
	if info != nil {
		bases = append(bases, info.Label)
	}
	err := c.named(&c.label, func() error { return c.repo.Adopt(ctx, c.label, repo.Adoption{Bases: bases, Made: c.o.Now().UTC()}) })
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, nil
	}
	there, err := c.repo.Exists(ctx, info.Label)
	if err != nil || !there {
		return nil, err
	}
	return info, nil
}

// layers finds out for each older state what has changed since. The newest
// comes first; the base is the last, and is missing when its manifest cannot be
// read.
func (c *copier) layers(ctx context.Context, s *server, info *repo.Info, parts []repo.Part, h postgres.History) ([]*layer, error) {
	var out []*layer
	changesSince := func(since postgres.LSN) (changes, error) {
		if c.o.Scan {
			return changes{kind: repo.ChangesScan, why: "it was asked for"}, nil
		}
		return findChanges(ctx, c.repo, s, c.facts, since, c.start, h, c.o)
	}
	for _, p := range parts {
		ch, err := changesSince(p.StartLSN)
		if err != nil {
			return nil, err
		}
		out = append(out, partLayer(p, ch))
	}
	if info == nil {
		return out, nil
	}
	ch, err := changesSince(info.StartLSN)
	if err != nil {
		return nil, err
	}
	l, err := baseLayer(ctx, c.repo, info, ch, newRenewal(c.label, *info, c.o.Now(), c.o.MaxPackAge), c.plan)
	if unreadable(err) {
		c.o.warn("%v: it is no base, look at it with \"lifeboat verify\"", err)
		return out, nil
	}
	return append(out, l), err
}

// takeOverAll takes over from one layer after the other; the base has so many
// packs.
func (c *copier) takeOverAll(ctx context.Context, layers []*layer, packs int64) error {
	defer func() {
		for _, l := range layers {
			_ = l.close() // it was read to its end, or not at all
		}
	}()
	have, err := listPacks(ctx, c.repo, packs)
	if err != nil {
		return err
	}
	for _, l := range layers {
		lost, err := c.takeOver(ctx, l, have)
		if err != nil {
			return err
		}
		if lost > 0 {
			c.o.warn("%d packs of backup %s are not in the repository, or not whole: what was in them is read again; "+
				"\"lifeboat verify\" tells which backups are damaged", lost, l.label)
		}
	}
	return nil
}

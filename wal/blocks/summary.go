package blocks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Summary is what the records that begin in a range changed.
type Summary struct {
	From, To postgres.LSN // To is not included: the next summary begins there
	Set      *Set
}

// What a stored summary may hold at most: plain bytes, pages in all, and forks and
// databases. A segment of 64 MiB has room for fewer records than that; one of 1 GiB that
// changes more has no summary. The counts bound what parsing takes, some seven times the bytes.
const (
	maxSummary = 16 << 20
	maxPages   = 4 << 20
	maxForks   = 1 << 18
)

// file is a summary as it stands in the repository; see repo/FORMAT.md.
type file struct {
	Format      int          `json:"format"`
	From        postgres.LSN `json:"from"`
	To          postgres.LSN `json:"to"`
	Directories [][2]uint32  `json:"folders,omitempty"` // tablespace, database
	Forks       []fileFork   `json:"forks,omitempty"`
}

type fileFork struct {
	Rel   [3]uint32 `json:"rel"` // tablespace, database, number
	Fork  uint8     `json:"fork"`
	Limit *uint32   `json:"limit,omitempty"`
	Runs  []uint32  `json:"runs,omitempty"` // first and number of each run, in turn
}

// ErrTooLarge says that a segment has no summary, because it changes too much.
var ErrTooLarge = errors.New("the block summary is too large")

// Store puts a summary into the repository. The same one again is a success.
// ErrTooLarge for one that nobody would read.
func (s Summary) Store(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline) error {
	text, err := s.marshal(maxPages, maxSummary)
	if err != nil {
		return err
	}
	key := repo.BlocksKey(system, tl, s.From, s.To)
	_, err = r.CreateEnvelope(ctx, key, repo.KindBlocks, bytes.NewReader(text), int64(len(text)))
	if _, other := errors.AsType[*repo.ConflictError](err); other {
		// Of the same range: by another version, perhaps. Both tell no less
		// than what changed.
		return nil
	}
	return err
}

// marshal refuses what holds more pages or takes more bytes: nobody would read it.
func (s Summary) marshal(pages int64, size int) ([]byte, error) {
	if n := s.Set.Pages(); n > pages {
		return nil, fmt.Errorf("%w: %d pages", ErrTooLarge, n)
	}
	f := file{Format: repo.Format, From: s.From, To: s.To}
	for d := range s.Set.directories {
		f.Directories = append(f.Directories, [2]uint32{d.Tablespace, d.Database})
	}
	slices.SortFunc(f.Directories, func(a, b [2]uint32) int { return slices.Compare(a[:], b[:]) })
	for _, id := range s.Set.Forks() {
		p := s.Set.forks[id]
		one := fileFork{Rel: [3]uint32{id.Tablespace, id.Database, id.Number}, Fork: uint8(id.Fork)}
		if p.limit != noLimit {
			one.Limit = &p.limit
		}
		for run := range p.runs(0, noLimit) {
			one.Runs = append(one.Runs, run.First, run.End-run.First)
		}
		f.Forks = append(f.Forks, one)
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode block summary: %w", err)
	}
	if len(text) > size || tooMany(text) {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(text))
	}
	return text, nil
}

// Load reads the summary of a range from the repository.
func Load(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline, from, to postgres.LSN) (Summary, error) {
	key := repo.BlocksKey(system, tl, from, to)
	raw, _, err := r.ReadEnvelope(ctx, key, repo.KindBlocks, maxSummary)
	if err != nil {
		return Summary{}, err
	}
	s, err := parse(raw)
	if later, ok := errors.AsType[*repo.FormatError](err); ok {
		later.Object = key
		return Summary{}, later
	}
	if err == nil && (s.From != from || s.To != to) {
		err = fmt.Errorf("it is of %s to %s", s.From, s.To)
	}
	if err != nil {
		return Summary{}, &repo.CorruptError{Object: key, Reason: "not a block summary", Err: err}
	}
	return s, nil
}

// tooMany counts what a summary lists, before that takes a multiple of its text.
func tooMany(text []byte) bool {
	return bytes.Count(text, []byte("{")) > maxForks || bytes.Count(text, []byte("[")) > 3*maxForks
}

func parse(raw []byte) (Summary, error) {
	if tooMany(raw) {
		return Summary{}, ErrTooLarge
	}
	var f file
	if err := json.Unmarshal(raw, &f); err != nil {
		return Summary{}, err
	}
	if f.Format > repo.Format {
		return Summary{}, &repo.FormatError{Have: f.Format}
	}
	if f.Format != repo.Format || f.From >= f.To {
		return Summary{}, fmt.Errorf("format %d, %s to %s", f.Format, f.From, f.To)
	}
	s := Summary{From: f.From, To: f.To, Set: new(Set)}
	left := uint32(maxPages)
	for _, d := range f.Directories {
		s.Set.ReplaceDir(Directory{d[0], d[1]})
	}
	for _, one := range f.Forks {
		id := Fork{postgres.RelFile{Tablespace: one.Rel[0], Database: one.Rel[1], Number: one.Rel[2]}, postgres.Fork(one.Fork)}
		if id.Fork > postgres.ForkInit || len(one.Runs)%2 != 0 {
			return Summary{}, fmt.Errorf("fork %d of %s with %d numbers", one.Fork, id.RelFile, len(one.Runs))
		}
		if one.Limit != nil {
			s.Set.Cut(id, *one.Limit)
		}
		for i := 0; i < len(one.Runs); i += 2 {
			first, n := one.Runs[i], one.Runs[i+1]
			if n == 0 || n > left || n > noLimit-first {
				return Summary{}, fmt.Errorf("%d pages from %d on", n, first)
			}
			left -= n
			s.Set.Add(id, first, first+n)
		}
	}
	return s, nil
}

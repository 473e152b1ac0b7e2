// Package seen is a host's memory of the newest things in a repository, and what of
// them a repository lacks that has gone back: one from which the newest was removed,
// or which was replaced by an older copy of itself.
//
// A mark is taken from what somebody who is believed has signed, and from nothing
// else: who can only put objects neither raises it nor makes a host cry wolf. It goes
// forward alone. What expiry removes is never what a mark is about: the newest backup
// that is restorable and all that is newer stay, with the WAL from its start on, and
// nothing of Lifeboat's removes evidence or statements of keys.
package seen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/wal"
)

const (
	// File is the kind of the host's state that a Mark is, and Version its form.
	File    = "seen"
	Version = 1

	// walBack is how many objects are looked at, from the newest of a timeline on,
	// for one that is signed. Names are free to choose for who can put.
	walBack = 16

	// maxWAL bounds the timelines of a mark. The newest stay.
	maxWAL = 1000
)

// Mark is the newest that was seen in one place of a repository.
type Mark struct {
	Backup    *Backup   `json:"backup,omitempty"`    // the hash is its manifest's
	WAL       []Segment `json:"wal,omitempty"`       // of each timeline
	Evidence  *Signed   `json:"evidence,omitempty"`  // its id, and the hash of the document
	Statement *Signed   `json:"statement,omitempty"` // its number, with eight digits, and its hash
}

// Signed is something that was signed: names ascend with time.
type Signed struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Backup is the newest backup that was seen. Where its WAL begins is known where its
// info could be opened.
type Backup struct {
	Signed
	System  postgres.SystemID    `json:"system,omitempty"`
	Start   postgres.LSN         `json:"start,omitempty"`
	SegSize postgres.SegmentSize `json:"segment_size,omitempty"`
}

func newBackup(b repo.Backup) *Backup {
	return &Backup{Signed{b.Label, b.Manifest.SHA256}, b.System, b.StartLSN, b.SegSize}
}

// Segment is the newest whole segment of a timeline that was seen.
type Segment struct {
	System   postgres.SystemID `json:"system"`
	Timeline postgres.Timeline `json:"timeline"`
	Name     string            `json:"name"`
	SHA256   string            `json:"sha256"` // of its bytes, as its signed header says
}

func (s Segment) key() (string, error) {
	name, err := postgres.ParseWALName(s.Name)
	if err != nil {
		return "", err
	}
	return repo.WALKey(s.System, name), nil
}

// Facts are what is known of the repository now. What was not looked at is left out,
// and neither compared nor raised.
type Facts struct {
	Backups  []repo.Backup // all of them, with Listed
	Listed   bool
	Archives map[postgres.SystemID]*wal.Index // some of them
	Drills   []*evidence.Document             // of the newest, those that are trusted
	Trusted  bool                             // somebody's evidence is trusted here
}

// Gone is something that was seen and is not there any more.
type Gone struct {
	Object string `json:"object"`
	Reason string `json:"reason"`
}

func (g Gone) String() string { return g.Object + ": " + g.Reason }

// Compare says what of the mark the repository lacks. An error is the store's: then
// nothing is known.
func (m Mark) Compare(ctx context.Context, r *repo.Repo, f Facts) ([]Gone, error) {
	var gone []Gone
	if f.Listed && m.Backup != nil {
		gone = append(gone, goneBackup(m.Backup.Signed, f.Backups)...)
	}
	if f.Listed {
		for _, s := range m.WAL {
			if !m.needs(s, f.Backups) {
				continue
			}
			g, err := goneSegment(ctx, r, s)
			if err != nil {
				return nil, err
			}
			gone = append(gone, g...)
		}
	}
	if f.Trusted && m.Evidence != nil {
		g, err := goneEvidence(ctx, r, *m.Evidence)
		if err != nil {
			return nil, err
		}
		gone = append(gone, g...)
	}
	if m.Statement != nil && !r.HasStatement(m.Statement.Name, m.Statement.SHA256) {
		gone = append(gone, Gone{repo.StatementKey(m.Statement.Name), "this host has seen this statement on who signs, and it is missing or another one"})
	}
	return gone, nil
}

func goneBackup(seen Signed, now []repo.Backup) []Gone {
	key := repo.ManifestKey(seen.Name)
	newest := ""
	for _, b := range now {
		switch {
		case b.Label == seen.Name && b.Manifest.SHA256 == seen.SHA256:
			return nil // the very same, whether or not it can be read
		case b.Label == seen.Name:
			return []Gone{{key, "this host has seen another manifest there, of a backup that was the newest"}}
		case b.Err == nil:
			newest = b.Label
		}
	}
	switch {
	case newest >= seen.Name:
		return nil
	case newest == "":
		return []Gone{{key, "this host has seen this backup, and no backup is there any more that is believed"}}
	}
	return []Gone{{key, "this host has seen this backup, and the newest that is there is " + newest}}
}

// needs says whether nothing of ours removes the segment: it reaches behind the start
// of its system's newest backup, from which expiry keeps all WAL of every timeline.
// Where that backup's info is sealed to others, what was known of it before counts.
func (m Mark) needs(s Segment, backups []repo.Backup) bool {
	for _, b := range slices.Backward(backups) {
		if b.Err != nil {
			continue
		}
		from := newBackup(b)
		if b.System == 0 {
			if m.Backup == nil || m.Backup.Signed != from.Signed {
				return false
			}
			from = m.Backup
		}
		if from.System != s.System {
			continue
		}
		seg, err := postgres.ParseSegment(s.Name, from.SegSize)
		return err == nil && seg.End() > from.Start
	}
	return false
}

func goneSegment(ctx context.Context, r *repo.Repo, s Segment) ([]Gone, error) {
	key, err := s.key()
	if err != nil {
		return nil, nil // it does not come to this: what is written was parsed
	}
	h, err := r.Header(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Gone{{key, fmt.Sprintf("this host has seen this segment, the newest of timeline %s then, and it is missing", s.Timeline)}}, nil
	case err != nil && !repo.AboutObject(err):
		return nil, err
	case h.SHA256 != s.SHA256:
		return []Gone{{key, "this host has seen another segment there"}}, nil
	}
	return nil, nil // whether it is believed still is another question
}

// goneEvidence looks for the document itself: nothing of ours removes evidence.
func goneEvidence(ctx context.Context, r *repo.Repo, seen Signed) ([]Gone, error) {
	if evidence.CheckID(seen.Name) != nil {
		return nil, nil // it does not come to this: the id was signed
	}
	sum, err := evidence.Sum(ctx, r.Store(), seen.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Gone{{evidence.Key(seen.Name), "this host has seen this evidence of a drill, the newest then, and it is missing"}}, nil
	case err != nil:
		return nil, err
	case sum != seen.SHA256:
		return []Gone{{evidence.Key(seen.Name), "this host has seen other evidence there"}}, nil
	}
	return nil, nil
}

// Of is the mark of the repository as it is now.
func Of(ctx context.Context, r *repo.Repo, f Facts) (Mark, error) {
	var m Mark
	for _, b := range f.Backups {
		if f.Listed && b.Err == nil {
			m.Backup = newerBackup(m.Backup, newBackup(b))
		}
	}
	for _, d := range f.Drills {
		if f.Trusted {
			m.Evidence = newer(m.Evidence, &Signed{d.Drill.ID, d.SHA256})
		}
	}
	if name, sum := r.NewestStatement(); name != "" {
		m.Statement = &Signed{name, sum}
	}
	for id, ix := range f.Archives {
		for _, tl := range ix.Timelines() {
			s, err := newestSigned(ctx, r, id, ix, tl)
			if err != nil {
				return m, err
			}
			if s != nil {
				m.WAL = append(m.WAL, *s)
			}
		}
	}
	return m, nil
}

// newestSigned is the newest whole segment of a timeline whose header is believed, nil
// when there is none among the last few.
func newestSigned(ctx context.Context, r *repo.Repo, id postgres.SystemID, ix *wal.Index, tl postgres.Timeline) (*Segment, error) {
	seg, ok := ix.Newest(tl)
	for n := 0; ok && n < walBack; n++ {
		if ix.HasWhole(seg) {
			s := Segment{System: id, Timeline: tl, Name: seg.Name()}
			key, err := s.key()
			if err != nil {
				return nil, err
			}
			h, err := r.Header(ctx, key)
			switch {
			case err == nil && h.Kind == repo.KindWAL:
				s.SHA256 = h.SHA256
				return &s, nil
			case err != nil && !repo.AboutObject(err) && !errors.Is(err, fs.ErrNotExist):
				return nil, err
			}
		}
		ok = seg.No > 0
		seg.No--
	}
	return nil, nil
}

// Raise takes over what is newer in another mark, and says whether that was anything.
func (m *Mark) Raise(to Mark) bool {
	before := *m
	m.Backup = newerBackup(m.Backup, to.Backup)
	m.Evidence = newer(m.Evidence, to.Evidence)
	m.Statement = newer(m.Statement, to.Statement)
	all := map[[2]uint64]Segment{}
	for _, s := range slices.Concat(m.WAL, to.WAL) {
		at := [2]uint64{uint64(s.System), uint64(s.Timeline)}
		if have, ok := all[at]; !ok || s.Name > have.Name {
			all[at] = s
		}
	}
	m.WAL = nil
	for _, s := range all {
		m.WAL = append(m.WAL, s)
	}
	slices.SortFunc(m.WAL, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.System, b.System), cmp.Compare(a.Timeline, b.Timeline))
	})
	m.WAL = m.WAL[max(0, len(m.WAL)-maxWAL):]
	return !m.same(before)
}

func (m Mark) same(o Mark) bool {
	equal := func(a, b *Signed) bool { return a == b || a != nil && b != nil && *a == *b }
	return (m.Backup == o.Backup || m.Backup != nil && o.Backup != nil && *m.Backup == *o.Backup) && equal(m.Evidence, o.Evidence) && equal(m.Statement, o.Statement) && slices.Equal(m.WAL, o.WAL)
}

// newer is the one with the later name; of two with the same name the first: it was
// seen first.
func newer(a, b *Signed) *Signed {
	if a == nil || b != nil && strings.Compare(b.Name, a.Name) > 0 {
		return b
	}
	return a
}

// newerBackup is newer for backups; of the same, the one of which more is known.
func newerBackup(a, b *Backup) *Backup {
	if a == nil || b != nil && (b.Name > a.Name || b.Signed == a.Signed && a.System == 0) {
		return b
	}
	return a
}

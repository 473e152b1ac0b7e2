package expire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Input is everything that a plan depends on.
type Input struct {
	Now     time.Time
	Policy  Policy
	Backups []*Backup // all that are committed, in any order

	Uses Uses
	// SegSizes are the sizes of WAL segments that are known; WAL of a system
	// without one stays.
	SegSizes map[postgres.SystemID]postgres.SegmentSize

	// RunningSince is when the oldest backup that may still run began; zero:
	// none runs.
	RunningSince time.Time
	// Unswept is why no pack may go that no backup names; "": they may.
	Unswept string
}

const (
	// Age is how old an object must be to go that no backup refers to: it may be
	// of a backup that is not committed yet, or WAL of a system that has none.
	Age = 24 * time.Hour
	// skew is by how much the clocks of hosts and store may differ.
	skew = time.Hour
	// sourceAge is how long the newest backup of a data directory holds block
	// summaries for the next one.
	sourceAge = 30 * 24 * time.Hour
)

// ErrNoneRestorable means that no backup could be found restorable, so none is
// removed.
var ErrNoneRestorable = errors.New("no backup is found restorable, so nothing is removed")

// Plan says what goes and what stays. Objects are chosen by its rules, of which
// there are few, and not one by one.
type Plan struct {
	Policy    Policy
	Decisions []*Decision // the newest first
	WAL       []WALRule
	Blocks    []BlockRule
	Young     time.Time // objects stored from here on stay, unless a removed backup alone named them
	Unswept   string    // why packs stay that no backup names; "": they go
}

// NewPlan decides. *ErrNoPolicy* and ErrNoneRestorable when nothing may go; the
// latter comes with the plan, in which everything stays.
func NewPlan(in Input) (*Plan, error) {
	if err := in.Policy.Check(); err != nil {
		return nil, err
	}
	p := &Plan{Policy: in.Policy, Decisions: retain(in), Young: in.young(), Unswept: in.Unswept}
	proven := false
	for _, d := range p.Decisions {
		proven = proven || d.restorable()
		p.leavePacksOf(d)
	}
	if !proven {
		for _, d := range p.Decisions {
			d.keep(true, "no backup is found restorable")
		}
		p.Unswept = "no backup is found restorable"
	}
	p.decideWAL(in)
	if !proven && len(in.Backups) > 0 {
		return p, ErrNoneRestorable
	}
	return p, nil
}

// leavePacksOf leaves all packs that nobody names while a backup stays that may name
// any.
func (p *Plan) leavePacksOf(d *Decision) {
	if d.Keep && d.Packs == nil && p.Unswept == "" {
		p.Unswept = fmt.Sprintf("backup %s stays and its manifest cannot be read, so it is not known which packs are its", d.Info.Label)
	}
}

func (in Input) young() time.Time {
	young := in.Now.Add(-Age)
	if since := in.RunningSince.Add(-skew); !in.RunningSince.IsZero() && since.Before(young) {
		return since
	}
	return young
}

// decideWAL makes the rules for WAL and block summaries from what stays.
func (p *Plan) decideWAL(in Input) {
	p.WAL, p.Blocks = nil, nil
	newest := in.newestSystem()
	for system := range in.systems() {
		p.WAL = append(p.WAL, p.walRule(in, system, newest))
		p.Blocks = append(p.Blocks, p.blockRule(in, system, newest))
	}
}

// WALRule says which WAL of a system stays.
type WALRule struct {
	System postgres.SystemID
	Size   postgres.SegmentSize
	All    string    // why all of it stays; "": the rest of the rule counts
	From   uint64    // segments from this number on stay, on every timeline; math.MaxUint64: none for this reason
	Parts  []Part    // and those of these, on every timeline
	Young  time.Time // and what was stored from here on
}

// Part is the WAL of one backup, which stays also where that around it goes.
type Part struct {
	Label       string
	First, Last uint64 // numbers of segments
}

// keeps says whether a segment, or what belongs to it, stays.
func (w *WALRule) keeps(no uint64, stored time.Time) bool {
	if w.All != "" || no >= w.From || !stored.Before(w.Young) {
		return true
	}
	for _, part := range w.Parts {
		if part.First <= no && no <= part.Last {
			return true
		}
	}
	return false
}

// walRule goes by positions and not by timelines: recovery from a backup reads
// nothing before its start, on no timeline, and what it reads after it may lie
// on any. So nothing must be known of who descends from whom.
func (p *Plan) walRule(in Input, system, newest postgres.SystemID) WALRule {
	w := WALRule{System: system, Size: in.SegSizes[system], From: math.MaxUint64, Young: p.Young}
	if !w.Size.Valid() {
		w.All = "the size of its segments is not known"
		return w
	}
	for _, d := range p.Decisions {
		if !d.Keep {
			continue
		}
		if d.Unread != nil {
			w.All = fmt.Sprintf("backup %s stays and cannot be read, so it is not known which WAL it needs", d.Info.Label)
			return w
		}
		if d.Info.System != system {
			continue
		}
		part := Part{d.Info.Label, segmentNo(d.Info.StartLSN, w.Size), segmentNo(d.Info.StopLSN, w.Size)}
		if d.Whole {
			w.From = min(w.From, part.First)
		}
		w.Parts = append(w.Parts, part)
	}
	if w.From < math.MaxUint64 || system != newest {
		return w
	}
	// WAL is archived before the first backup, and kept for it.
	w.All = "it is the system that archives, and no backup of it is restorable yet"
	return w
}

func segmentNo(at postgres.LSN, size postgres.SegmentSize) uint64 {
	return uint64(at) / uint64(size)
}

// BlockRule says which block summaries of a system stay: they serve the next
// backup of a data directory and nothing else.
type BlockRule struct {
	System postgres.SystemID
	All    string // why all stay; "": the rest of the rule counts
	None   bool   // the system has no backup: none is of use
	From   postgres.LSN
	Young  time.Time
}

func (b *BlockRule) keeps(to postgres.LSN, stored time.Time) bool {
	return b.All != "" || !stored.Before(b.Young) || !b.None && to > b.From
}

func (p *Plan) blockRule(in Input, system, newest postgres.SystemID) BlockRule {
	b := BlockRule{System: system, Young: p.Young}
	latest := map[string]*Decision{}
	kept := false
	for _, d := range p.Decisions { // the newest first
		if d.Unread != nil && d.Keep {
			b.All = fmt.Sprintf("backup %s cannot be read", d.Info.Label)
			return b
		}
		if d.Unread != nil || d.Info.System != system || !d.Keep {
			continue
		}
		kept = true
		if latest[d.Info.Source] == nil {
			latest[d.Info.Source] = d
		}
	}
	if !kept {
		b.None = system != newest
		return b
	}
	b.From = math.MaxUint64
	var oldest postgres.LSN
	for _, d := range latest {
		oldest = max(oldest, d.Info.StartLSN)
		if in.Now.Sub(d.time()) <= sourceAge {
			b.From = min(b.From, d.Info.StartLSN)
		}
	}
	if b.From == math.MaxUint64 { // all sources are old: what the last one needs stays
		b.From = oldest
	}
	return b
}

// systems are those of which there is a backup or WAL.
func (in Input) systems() map[postgres.SystemID]bool {
	out := map[postgres.SystemID]bool{}
	for _, b := range in.Backups {
		if b.Unread == nil {
			out[b.Info.System] = true
		}
	}
	for p := range in.Uses {
		out[p.System] = true
	}
	return out
}

// newestSystem is the one of which WAL was stored last: the one that archives.
func (in Input) newestSystem() postgres.SystemID {
	var newest postgres.SystemID
	var at time.Time
	for p, stored := range in.Uses {
		if stored.After(at) || stored.Equal(at) && p.System > newest {
			newest, at = p.System, stored
		}
	}
	return newest
}

// Going are the decisions to remove, the oldest first.
func (p *Plan) Going() []*Decision {
	var out []*Decision
	for i := len(p.Decisions) - 1; i >= 0; i-- {
		if !p.Decisions[i].Keep {
			out = append(out, p.Decisions[i])
		}
	}
	return out
}

// Staying are the infos of the backups that stay and can be read.
func (p *Plan) Staying() []repo.Info {
	var out []repo.Info
	for _, d := range p.Decisions {
		if d.Keep && d.Unread == nil {
			out = append(out, d.Info)
		}
	}
	return out
}

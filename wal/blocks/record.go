package blocks

import (
	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Reader takes the changed pages off records. It reuses its memory from one
// record to the next; the zero value is ready.
type Reader struct {
	Set    Set
	pages  []postgres.PageRef
	recent [16]spot // by the fork: the same pages change again and again
}

// spot is a chunk of the set.
type spot struct {
	fork Fork
	no   uint32
	*chunk
}

// allForks are those that a dropped relation loses.
var allForks = [...]postgres.Fork{postgres.ForkMain, postgres.ForkFSM, postgres.ForkVM, postgres.ForkInit}

// Take adds what the record changes to the set. An error wraps
// postgres.ErrFormat: then the set lacks something.
func (r *Reader) Take(rec postgres.Record) error {
	var err error
	if r.pages, err = rec.AppendPages(r.pages[:0]); err != nil {
		return err
	}
	for _, p := range r.pages {
		f, no := Fork{p.Rel, p.Fork}, p.Block/chunkPages
		s := &r.recent[(p.Rel.Number+uint32(p.Fork))%uint32(len(r.recent))]
		if s.chunk == nil || s.no != no || s.fork != f {
			*s = spot{f, no, r.Set.fork(f).chunk(no)}
		}
		s.add(p.Block)
	}
	switch rec.Rmgr {
	case postgres.RmgrTransaction, postgres.RmgrStorage, postgres.RmgrDatabase:
		ev, err := rec.Event()
		if err != nil {
			return err
		}
		r.Set.takeEvent(ev)
	}
	return nil
}

// takeEvent adds what comes and goes as whole files, as PostgreSQL's own
// summarizer does (postmaster/walsummarizer.c).
func (s *Set) takeEvent(ev postgres.Event) {
	switch ev := ev.(type) {
	case postgres.StorageCreate:
		s.Replace(Fork{ev.Rel, ev.Fork})
	case postgres.StorageTruncate:
		if ev.Main {
			s.Cut(Fork{ev.Rel, postgres.ForkMain}, ev.Blocks)
		}
		// How many pages are left of the maps follows from that; both are small.
		if ev.VM {
			s.Replace(Fork{ev.Rel, postgres.ForkVM})
		}
		if ev.FSM {
			s.Replace(Fork{ev.Rel, postgres.ForkFSM})
		}
	case postgres.TransactionEnd:
		for _, rel := range ev.Dropped {
			for _, f := range allForks {
				s.Replace(Fork{rel, f})
			}
		}
	case postgres.DatabaseCreate:
		s.ReplaceDir(Directory{ev.Tablespace, ev.Database})
	case postgres.DatabaseDrop:
		for _, t := range ev.Tablespaces {
			s.ReplaceDir(Directory{t, ev.Database})
		}
	}
}

package blocks

import (
	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Reader takes the changed pages off records. It reuses its memory from one
// record to the next; the zero value is ready.
type Reader struct {
	Set      Set
	contents postgres.Contents
	last     Fork // of the page added last, and its pages: records come in rows
	lastPage uint32
	some     bool
}

// allForks are those that a dropped relation loses.
var allForks = [...]postgres.Fork{postgres.ForkMain, postgres.ForkFSM, postgres.ForkVM, postgres.ForkInit}

// Take adds what the record changes to the set. An error wraps
// postgres.ErrFormat: then the set lacks something.
func (r *Reader) Take(rec postgres.Record) error {
	if err := rec.Decode(&r.contents); err != nil {
		return err
	}
	for i := range r.contents.Blocks {
		b := &r.contents.Blocks[i]
		f := Fork{b.Rel, b.Fork}
		if r.some && f == r.last && b.Block == r.lastPage {
			continue
		}
		r.Set.Add(f, b.Block, b.Block+1)
		r.last, r.lastPage, r.some = f, b.Block, true
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
		s.ReplaceFolder(Folder{ev.Tablespace, ev.Database})
	case postgres.DatabaseDrop:
		for _, t := range ev.Tablespaces {
			s.ReplaceFolder(Folder{t, ev.Database})
		}
	}
}

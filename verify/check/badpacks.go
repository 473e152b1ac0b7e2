package check

import (
	"fmt"

	"github.com/lifeboat-dr/lifeboat/repo"
)

const (
	// mostBadPacks is how many packs of one kind of damage have a finding of their own.
	// Whoever holds a cluster key can sign a manifest of millions that are not there.
	mostBadPacks = 1000

	// mostCounted is how many files the findings about packs count together.
	mostCounted = 1 << 18
)

// badPacks are the packs that are missing or damaged.
type badPacks struct {
	findings []*Finding          // about packs
	byID     map[string]*Finding // of those that are told apart
	alone    map[Code]int        // findings about one pack
	rest     map[Code]*restOf    // the finding about all others
	counted  int                 // files, by all of the findings
	unblamed bool                // one was found while it was read
}

// restOf is the finding about all packs of a code that have none of their own.
type restOf struct {
	*Finding
	why   string // it is wrong with the first
	named int64  // how often manifests name the others
}

func newBadPacks() badPacks {
	return badPacks{byID: map[string]*Finding{}, alone: map[Code]int{}, rest: map[Code]*restOf{}}
}

// findPack is the finding about a pack, a new one if there is none. A pack that is in the
// listing is remembered in any case; of those that manifests name there is no end.
func (w *work) findPack(c Code, id, problem string, listed bool) *Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.bad.byID[id]
	if f != nil {
		return f
	}
	rest := w.bad.rest[c]
	switch {
	case rest != nil:
		f = rest.Finding
		rest.add(repo.PackKey(id))
	default:
		f = w.add(c, repo.PackKey(id), problem)
		f.Points = "none can be restored from these backups"
		w.bad.findings = append(w.bad.findings, f)
		if w.bad.alone[c]++; w.bad.alone[c] > mostBadPacks {
			w.bad.rest[c] = &restOf{Finding: f, why: problem}
		}
	}
	if listed || w.bad.rest[c] == nil {
		w.bad.byID[id] = f
	}
	return f
}

func (r *restOf) add(object string) {
	r.named++
	if len(r.Objects) == 0 {
		r.Objects = []string{r.Object}
	}
	if len(r.Objects) < MaxFiles {
		r.Objects = append(r.Objects, object)
	}
}

// conclude says of how many packs a finding about the rest is.
func (b *badPacks) conclude() {
	for _, r := range b.rest {
		if r.named > 0 {
			r.Problem = fmt.Sprintf("%s; so it is with others, which manifests name %d times: none of them has a finding of its own", r.why, r.named)
		}
	}
}

// badPack notes what a pack that is not there as it was spoils.
func (w *work) badPack(f *Finding, p repo.PackEntry, files *repo.Files, label string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.spoil(label)
	for _, frame := range p.Frames {
		for _, span := range frame.To {
			if w.bad.counted >= mostCounted && len(f.Files) == MaxFiles {
				f.FilesMore = true
				return
			}
			if f.file(files.At(span.File).Path) {
				w.bad.counted++
			}
		}
	}
}

// isBad says whether something was found about a pack.
func (w *work) isBad(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bad.byID[id] != nil
}

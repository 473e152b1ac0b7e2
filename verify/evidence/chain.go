package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// Break is a place where the chain of documents does not hold.
type Break struct {
	ID     string `json:"id"` // of the document that shows it
	Reason string `json:"reason"`
}

// CheckChain looks at documents of one repository, in any order: each must
// name the one that began before it, by its hash. Documents before the first
// given one are not asked for. It returns what does not hold, oldest first.
func CheckChain(docs []*Document) []Break {
	byRepository := map[string][]*Document{}
	for _, d := range docs {
		byRepository[d.Drill.Repository] = append(byRepository[d.Drill.Repository], d)
	}
	var out []Break
	for _, docs := range byRepository {
		slices.SortFunc(docs, func(a, b *Document) int { return strings.Compare(a.Drill.ID, b.Drill.ID) })
		known := map[string]*Document{}
		for i, d := range docs {
			if reason := linkProblem(d, known, i == 0); reason != "" {
				out = append(out, Break{d.Drill.ID, reason})
			}
			known[d.Drill.ID] = d
		}
	}
	slices.SortFunc(out, func(a, b Break) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func linkProblem(d *Document, known map[string]*Document, first bool) string {
	link := d.Drill.Previous
	switch {
	case first:
		return "" // what came before it was not given
	case known[d.Drill.ID] != nil:
		return "two documents have this id"
	case link == nil:
		return "it says that it is the first, and there are earlier ones"
	}
	before, ok := known[link.ID]
	switch {
	case !ok:
		return fmt.Sprintf("the document before it, %s, is missing", link.ID)
	case before.SHA256 != link.SHA256:
		return fmt.Sprintf("the document before it, %s, is not the one that it names", link.ID)
	}
	return ""
}

// TrustedBy says whether the document is signed by one of the keys.
func (d *Document) TrustedBy(keys []repo.PublicKey) bool {
	return slices.ContainsFunc(keys, d.Key.Equal)
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

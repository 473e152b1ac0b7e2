package repo

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// trust is who is believed, and up to where.
type trust struct {
	anchors    []PublicKey
	keys       []PublicKey // all that are believed, also those up to a cut
	cuts       map[string]*Retirement
	statements []Statement // those that count
	ignored    []Statement // those that do not
	later      []Statement // of formats that are not known, by signers that are believed
}

// newTrust follows the statements from the anchors. A retirement voids what the
// retired one has said after its cut, also where that has a lower number than the
// retirement; so it is gone through until nothing changes.
func newTrust(anchors []PublicKey, all []parsedStatement) *trust {
	t := &trust{anchors: anchors, cuts: map[string]*Retirement{}}
	for range len(all) + 2 {
		next := t.follow(all)
		same := slices.EqualFunc(next.statements, t.statements, func(a, b Statement) bool { return a.Number == b.Number }) && len(next.cuts) == len(t.cuts)
		t = next
		if same {
			break
		}
	}
	return t
}

// follow goes through the statements once; the cuts of t count from the start.
func (t *trust) follow(all []parsedStatement) *trust {
	next := &trust{anchors: t.anchors, keys: slices.Clone(t.anchors), cuts: map[string]*Retirement{}}
	for _, s := range all {
		cut := cmp.Or(next.cuts[s.Signer], t.cuts[s.Signer])
		known := slices.ContainsFunc(next.keys, s.signer.Equal) || t.cuts[s.Signer] != nil
		if !known || cut != nil && s.Number > cut.Statements {
			next.ignored = append(next.ignored, s.Statement)
			continue
		}
		if s.later {
			next.later = append(next.later, s.Statement)
			continue
		}
		next.statements = append(next.statements, s.Statement)
		if !slices.ContainsFunc(next.keys, s.subject.Equal) {
			next.keys = append(next.keys, s.subject)
		}
		if s.Retires != nil && next.cuts[s.Retires.Signer] == nil {
			next.cuts[s.Retires.Signer] = s.Retires
		}
	}
	return next
}

// believes returns *UntrustedError when the signer is retired and the object lies
// behind its cut.
func (t *trust) believes(k PublicKey, object string) error {
	cut := t.cuts[k.String()]
	if cut == nil || cut.covers(object) {
		return nil
	}
	return &UntrustedError{object, "it is signed by the key " + k.ID() + ", which was retired before"}
}

// covers says whether the retired signer is believed for the object.
func (c *Retirement) covers(object string) bool {
	for _, w := range c.WAL {
		rest, ok := strings.CutPrefix(object, WALPrefix(w.System, w.Timeline))
		if !ok {
			continue
		}
		if segment, _, _, ok := ParseSlice(rest); ok {
			return segment <= w.Last
		}
		name, err := postgres.ParseWALName(rest)
		if err != nil || name.Timeline != w.Timeline {
			return false
		}
		return name.Kind == postgres.WALHistory || name.Segment <= w.Last
	}
	return false
}

// who is who is believed: until the statements are read, the anchors.
func (r *Repo) who() *trust {
	if t := r.believed.Load(); t != nil {
		return t
	}
	return &trust{anchors: r.trusted, keys: r.trusted}
}

// TrustID names who is believed, and up to where: what was found to be signed under
// another one says nothing.
func (r *Repo) TrustID() [16]byte {
	if r.settled != nil {
		<-r.settled
	}
	t := r.who()
	lines := []string{r.marker.Repository}
	for _, k := range t.keys {
		line := k.String()
		if cut := t.cuts[line]; cut != nil {
			line += fmt.Sprintf(" until %d", cut.Statements)
			for _, w := range cut.WAL {
				line += " " + WALPrefix(w.System, w.Timeline) + w.Last
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines[1:])
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return [16]byte(sum[:16])
}

// SignerState is a signer and what is known of it.
type SignerState struct {
	Key     PublicKey
	Anchor  bool        // it is in a key file or the configuration here
	Retired *Retirement // nil while it is trusted
	Since   time.Time   // of the statement that added it; zero for the first
	Until   time.Time   // of the statement that retired it
}

// Signers lists who is believed, and the statements that are not.
func (r *Repo) Signers() (signers []SignerState, ignored []Statement) {
	t := r.who()
	for _, k := range t.keys {
		if slices.ContainsFunc(signers, func(s SignerState) bool { return s.Key.Equal(k) }) {
			continue
		}
		s := SignerState{Key: k, Anchor: slices.ContainsFunc(t.anchors, k.Equal), Retired: t.cuts[k.String()]}
		for _, st := range t.statements {
			switch {
			case st.Adds == k.String() && s.Since.IsZero():
				s.Since = st.Made
			case st.Retires != nil && st.Retires.Signer == k.String() && s.Until.IsZero():
				s.Until = st.Made
			}
		}
		signers = append(signers, s)
	}
	return signers, t.ignored
}

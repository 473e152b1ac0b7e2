package restore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A manifest, and the WAL, name the directories of tablespaces. Whoever took the
// cluster's key can name any: a home directory's, a service's. So a restore goes
// to one by itself only where somebody has made it for that; else the operator
// says that it is meant, with --tablespace.

// WordError says that tablespaces would go where nobody who runs the restore said
// that they are to go.
type WordError struct {
	Backup string
	Wanted []Unnamed
}

// Unnamed is a tablespace and why its directory is not taken without a word.
type Unnamed struct {
	OID    uint32
	Path   string
	Reason string
}

func (e *WordError) Error() string {
	var list []string
	for _, w := range e.Wanted {
		list = append(list, fmt.Sprintf("tablespace %d would go to %s, %s", w.OID, w.Path, w.Reason))
	}
	return strings.Join(list, "; ") + ": that is what the backup says, and nobody here has said it"
}

// Flags are the flags that say it, to be typed into a shell.
func (e *WordError) Flags() string {
	var flags []string
	for _, w := range e.Wanted {
		flags = append(flags, "--tablespace "+shellWord(strconv.FormatUint(uint64(w.OID), 10)+"="+strings.ReplaceAll(w.Path, "=", `\=`)))
	}
	return strings.Join(flags, " ")
}

// shellWord quotes for a shell what is not plain.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/=._-", r)
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// checkWord refuses tablespaces whose directories need the operator's word and have
// none. Those of a drill lie below Target.Confine, which is the operator's.
func (p *Plan) checkWord(t Target, in *Inputs) error {
	if t.Confine != "" {
		return nil
	}
	e := &WordError{Backup: p.Label}
	ask := func(oid uint32, from, path string) {
		reason := needsWord(path, in.Directories[path], p.Owner)
		if reason != "" && !t.names(oid, from) {
			e.Wanted = append(e.Wanted, Unnamed{oid, path, reason})
		}
	}
	for _, s := range p.Tablespaces {
		if !s.InPlace {
			ask(s.OID, s.From, s.To)
		}
	}
	for _, n := range p.NewTablespaces {
		ask(n.OID, n.Path, n.directory())
	}
	if len(e.Wanted) == 0 {
		return nil
	}
	return e
}

// names says whether the operator has said where the tablespace goes.
func (t Target) names(oid uint32, path string) bool {
	return slices.ContainsFunc(t.Tablespaces, func(m Mapping) bool { return m.isOf(oid, path) })
}

// isOf says whether the mapping is about this tablespace.
func (m Mapping) isOf(oid uint32, path string) bool {
	return m.Old == path || m.Old == strconv.FormatUint(uint64(oid), 10)
}

// needsWord says why a directory is not taken unless somebody names it, or "". One
// that an interrupted restore has marked was taken before.
func needsWord(path string, found Directory, owner *Owner) string {
	switch {
	case !found.Exists:
		return "which is not there"
	case found.Real != path:
		return "which a symbolic link leads to " + found.Real
	case found.Marked:
		return ""
	case found.UID == 0 || found.UID == found.Self || owner != nil && found.UID == owner.UID:
		return ""
	}
	return fmt.Sprintf("which belongs to another account, of number %d", found.UID)
}

package repo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// StatementKey is where the statement with this name, its number, lies.
func StatementKey(name string) string { return keysPrefix + name }

func (s Statement) name() string { return fmt.Sprintf("%0*d", statementDigits, s.Number) }

// sum identifies what was said, and not the bytes in which.
func (s Statement) sum() string {
	raw, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// NewestStatement is the name of the last statement that counts, and a hash of what it
// says. The name is "" when there is none.
func (r *Repo) NewestStatement() (name, sha256 string) {
	all := r.who().statements
	if len(all) == 0 {
		return "", ""
	}
	last := slices.MaxFunc(all, func(a, b Statement) int { return a.Number - b.Number })
	return last.name(), last.sum()
}

// HasStatement says whether the repository holds this very statement, also one that
// does not count any more.
func (r *Repo) HasStatement(name, sha256 string) bool {
	t := r.who()
	return slices.ContainsFunc(slices.Concat(t.statements, t.ignored), func(s Statement) bool { return s.name() == name && s.sum() == sha256 })
}

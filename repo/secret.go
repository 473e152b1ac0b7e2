package repo

import (
	"regexp"
	"sync"
)

// secret matches a secret key as age and Lifeboat write them: recovery identities,
// post-quantum ones too, and the signing keys of clusters and drill hosts. age
// takes an identity in either case.
var secret = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(AGE-SECRET-KEY-|AGE-PLUGIN-[A-Z0-9]+-|LIFEBOAT-SIGNING-KEY-)[A-Z0-9:_+/=-]*`)
})

// redacted stands for a secret key.
const redacted = "(a secret key, not shown)"

// HoldsSecret says whether a text holds what looks like a secret key.
func HoldsSecret(text []byte) bool { return secret().Match(text) }

// WithoutSecrets is the text with all that looks like a secret key taken out. It is
// the last line of defence: what is printed or stored should never have held one.
func WithoutSecrets(text []byte) []byte {
	return secret().ReplaceAll(text, []byte(redacted))
}

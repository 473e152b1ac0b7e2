package repo

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
)

const (
	factPrefix    = "# lifeboat-"
	signingPrefix = "LIFEBOAT-SIGNING-KEY-1:"
	maxKeyFile    = 1 << 20
)

// Marshal writes the file; comment is put on top, one "# " line a line. An
// identity that is neither of the two kinds that ParseKeyFile reads is left out.
func (k *KeyFile) Marshal(comment string) []byte {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(comment), "\n") {
		fmt.Fprintf(&b, "# %s\n", strings.TrimSpace(line))
	}
	fact := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", factPrefix, name, value)
		}
	}
	fact("cluster", k.Cluster)
	fact("repository", k.Repository)
	for _, s := range k.Signers {
		fact("signer", s.String())
	}
	if k.Signing != nil {
		fmt.Fprintf(&b, "%s%s\n", signingPrefix, encode64(k.Signing.key.Seed()))
	}
	for i, recipient := range k.Recipients() {
		if secret, ok := k.Identities[i].(fmt.Stringer); ok && recipient != "" {
			fmt.Fprintf(&b, "# public key: %s\n%s\n", recipient, secret)
		}
	}
	return []byte(b.String())
}

// ParseKeyFile reads a cluster key, a recovery key or a plain age identity
// file of at most 1 MiB. Several files may be joined into one as long as they
// are of one cluster. Errors name the line, never its content.
func ParseKeyFile(r io.Reader) (*KeyFile, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if len(raw) > maxKeyFile {
		return nil, fmt.Errorf("not a key file: it has more than %d bytes", maxKeyFile)
	}
	k := &KeyFile{}
	n := 0
	for line := range strings.SplitSeq(string(raw), "\n") {
		n++
		if err := k.parseLine(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if k.Signing == nil && len(k.Identities) == 0 {
		return nil, errors.New("no key in it: neither an age identity nor a cluster key")
	}
	if k.Signing != nil && !slices.ContainsFunc(k.Signers, k.Signing.Public().Equal) {
		return nil, errors.New("its signing key is not among its own signers: a line is missing or is of another file")
	}
	return k, nil
}

func (k *KeyFile) parseLine(line string) error {
	switch {
	case strings.HasPrefix(line, factPrefix):
		return k.parseFact(strings.TrimPrefix(line, factPrefix))
	case line == "" || strings.HasPrefix(line, "#"):
		return nil
	case strings.HasPrefix(line, signingPrefix):
		seed, err := decode64(strings.TrimPrefix(line, signingPrefix), ed25519.SeedSize)
		if err != nil {
			return errors.New("not a signing key")
		}
		if k.Signing != nil {
			return errors.New("a second signing key")
		}
		k.Signing = &SigningKey{ed25519.NewKeyFromSeed(seed)}
		return nil
	}
	ids, err := age.ParseIdentities(strings.NewReader(line))
	if err != nil {
		// The library's error may quote the line, which may be a secret.
		return errors.New("neither an age identity (AGE-SECRET-KEY-…) nor a comment")
	}
	k.Identities = append(k.Identities, ids...)
	return nil
}

// parseFact reads a fact. Its errors do not repeat the value: a secret may
// have slipped into it.
func (k *KeyFile) parseFact(fact string) error {
	name, value, _ := strings.Cut(fact, ":")
	value = strings.TrimSpace(value)
	switch name {
	case "cluster":
		if CheckClusterName(value) != nil {
			return errors.New("not the name of a cluster")
		}
		return setFact(&k.Cluster, value, "cluster")
	case "repository":
		if checkRepositoryID(value) != nil {
			return errors.New("not the id of a repository")
		}
		return setFact(&k.Repository, value, "repository")
	case "signer":
		s, err := ParsePublicKey(value)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(k.Signers, s.Equal) {
			k.Signers = append(k.Signers, s)
		}
	}
	return nil // a later version may know more facts
}

func setFact(field *string, value, what string) error {
	if *field != "" && *field != value {
		return fmt.Errorf("the file names a second %s", what)
	}
	*field = value
	return nil
}

package repo

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// PublicKey is the public half of a cluster's signing key (Ed25519).
type PublicKey struct{ key ed25519.PublicKey }

const publicKeyPrefix = "ed25519:"

// ParsePublicKey reads the form that String writes: "ed25519:" and the 32
// bytes in unpadded URL-safe base64.
func ParsePublicKey(s string) (PublicKey, error) {
	enc, ok := strings.CutPrefix(strings.TrimSpace(s), publicKeyPrefix)
	if !ok {
		return PublicKey{}, fmt.Errorf("signing key %q does not begin with %q", s, publicKeyPrefix)
	}
	raw, err := base64.RawURLEncoding.DecodeString(enc)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("signing key %q is not %d bytes of base64", s, ed25519.PublicKeySize)
	}
	return PublicKey{raw}, nil
}

func (k PublicKey) String() string {
	return publicKeyPrefix + base64.RawURLEncoding.EncodeToString(k.key)
}

// ID names the key in headers: the first 8 bytes of its SHA-256, in hex.
func (k PublicKey) ID() string {
	sum := sha256.Sum256(k.key)
	return hex.EncodeToString(sum[:8])
}

// Equal reports whether both are the same key.
func (k PublicKey) Equal(o PublicKey) bool { return k.key.Equal(o.key) }

// SigningKey is the secret half. It has no String method that shows it.
type SigningKey struct{ key ed25519.PrivateKey }

// Public returns the half that may be shown.
func (k SigningKey) Public() PublicKey { return PublicKey{k.key.Public().(ed25519.PublicKey)} }

// String shows the public half only, so that a stray %v leaks nothing.
func (k SigningKey) String() string { return "signing key of " + k.Public().String() }

// GoString is String, for %#v.
func (k SigningKey) GoString() string { return k.String() }

// KeyFile is a file of keys: the cluster key, the recovery key, or any plain
// age identity file. It is read by ParseKeyFile and written by Marshal.
//
// Lines "# lifeboat-NAME: value" carry public facts in a form that the age
// tool skips, so a recovery key is a valid age identity file.
type KeyFile struct {
	Cluster    string      // name; empty in a plain age file
	Repository string      // id; empty in a plain age file
	Signers    []PublicKey // trust anchor; empty in a plain age file
	Signing    *SigningKey // only in a cluster key
	Identities []age.Identity
	secrets    []string // the identities as written
}

const (
	factPrefix    = "# lifeboat-"
	signingPrefix = "LIFEBOAT-SIGNING-KEY-1:"
)

// NewClusterKey makes a cluster key: a new signing key and two identities for
// metadata, a post-quantum hybrid one and a classic one, because age lets the
// two kinds not be mixed in one file and the recovery key decides which is used.
func NewClusterKey(cluster, repository string) (*KeyFile, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	signing := SigningKey{key}
	return &KeyFile{
		Cluster: cluster, Repository: repository,
		Signers: []PublicKey{signing.Public()}, Signing: &signing,
		Identities: []age.Identity{hybrid, classic},
		secrets:    []string{hybrid.String(), classic.String()},
	}, nil
}

// NewRecoveryKey makes a post-quantum hybrid identity. The facts of anchor,
// where it is not nil, are written into it, so that this file and the bucket
// are all that a bare machine needs.
func NewRecoveryKey(anchor *KeyFile) (*KeyFile, error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	k := &KeyFile{Identities: []age.Identity{id}, secrets: []string{id.String()}}
	if anchor != nil {
		k.Cluster, k.Repository, k.Signers = anchor.Cluster, anchor.Repository, anchor.Signers
	}
	return k, nil
}

// Marshal writes the file; comment is put on top, one "# " line a line.
func (k *KeyFile) Marshal(comment string) []byte {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(comment), "\n") {
		fmt.Fprintf(&b, "# %s\n", line)
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
		fmt.Fprintf(&b, "%s%s\n", signingPrefix, base64.RawURLEncoding.EncodeToString(k.Signing.key.Seed()))
	}
	recipients := k.Recipients()
	for i, s := range k.secrets {
		fmt.Fprintf(&b, "# public key: %s\n%s\n", recipients[i], s)
	}
	return []byte(b.String())
}

// ParseKeyFile reads a cluster key, a recovery key or a plain age identity
// file of at most 1 MiB. Errors name the line, never its content.
func ParseKeyFile(r io.Reader) (*KeyFile, error) {
	k := &KeyFile{}
	sc := bufio.NewScanner(io.LimitReader(r, 1<<20))
	for n := 1; sc.Scan(); n++ {
		if err := k.parseLine(strings.TrimSpace(sc.Text())); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, errors.New("not a key file: a line is too long")
	}
	if k.Signing == nil && len(k.Identities) == 0 {
		return nil, errors.New("no key in it: neither an age identity nor a cluster key")
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
		seed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(line, signingPrefix))
		if err != nil || len(seed) != ed25519.SeedSize {
			return errors.New("not a signing key")
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
	k.secrets = append(k.secrets, line)
	return nil
}

func (k *KeyFile) parseFact(fact string) error {
	name, value, ok := strings.Cut(fact, ":")
	value = strings.TrimSpace(value)
	if !ok || value == "" {
		return fmt.Errorf("%q has no value", factPrefix+name)
	}
	switch name {
	case "cluster":
		k.Cluster = value
	case "repository":
		k.Repository = value
	case "signer":
		s, err := ParsePublicKey(value)
		if err != nil {
			return err
		}
		k.Signers = append(k.Signers, s)
	}
	return nil // a later version may know more facts
}

// Recipients returns the public half of each identity, in their order. An
// identity whose public half cannot be told (a plugin's) yields "".
func (k *KeyFile) Recipients() []string {
	out := make([]string, len(k.Identities))
	for i, id := range k.Identities {
		switch id := id.(type) {
		case *age.HybridIdentity:
			out[i] = id.Recipient().String()
		case *age.X25519Identity:
			out[i] = id.Recipient().String()
		}
	}
	return out
}

// ParseRecipient reads one age recipient: "age1pq1…" (post-quantum hybrid) or
// "age1…" (X25519).
func ParseRecipient(s string) (age.Recipient, error) {
	rs, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(rs) != 1 {
		return nil, fmt.Errorf("%q is not an age recipient (age1… or age1pq1…)", s)
	}
	return rs[0], nil
}

func isHybrid(r age.Recipient) bool {
	_, ok := r.(*age.HybridRecipient)
	return ok
}

// checkRecipients refuses a mix of post-quantum and classic recipients: age
// does not seal to both, since the weaker would decide.
func checkRecipients(rs []age.Recipient) error {
	for _, r := range rs {
		if isHybrid(r) != isHybrid(rs[0]) {
			return errors.New("post-quantum (age1pq1…) and classic (age1…) recipients cannot be mixed: the weaker would decide")
		}
	}
	return nil
}

// metadataRecipient is the cluster's own recipient of the same kind as the
// given ones.
func (k *KeyFile) metadataRecipient(hybrid bool) (age.Recipient, error) {
	for _, s := range k.Recipients() {
		r, err := ParseRecipient(s)
		if err == nil && isHybrid(r) == hybrid {
			return r, nil
		}
	}
	return nil, errors.New("the cluster key holds no identity of the recipients' kind")
}

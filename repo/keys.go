package repo

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
)

// PublicKey is the public half of a cluster's signing key (Ed25519).
type PublicKey struct{ key ed25519.PublicKey }

const publicKeyPrefix = "ed25519:"

// ParsePublicKey reads the form that String writes: "ed25519:" and the 32
// bytes in unpadded URL-safe base64. The error does not repeat s, which may be
// a secret in the wrong place.
func ParsePublicKey(s string) (PublicKey, error) {
	enc, ok := strings.CutPrefix(strings.TrimSpace(s), publicKeyPrefix)
	if !ok {
		return PublicKey{}, fmt.Errorf("a public signing key begins with %q", publicKeyPrefix)
	}
	raw, err := decode64(enc, ed25519.PublicKeySize)
	if err != nil {
		return PublicKey{}, fmt.Errorf("a public signing key is %q and %d bytes in URL-safe base64", publicKeyPrefix, ed25519.PublicKeySize)
	}
	return PublicKey{raw}, nil
}

func (k PublicKey) String() string { return publicKeyPrefix + encode64(k.key) }

// ID names the key in headers: the first 8 bytes of its SHA-256, in hex.
func (k PublicKey) ID() string {
	sum := sha256.Sum256(k.key)
	return hex.EncodeToString(sum[:8])
}

// Equal reports whether both are the same key.
func (k PublicKey) Equal(o PublicKey) bool { return k.key.Equal(o.key) }

// SigningKey is the secret half. Printing it, with any verb, shows the public
// half only.
type SigningKey struct{ key ed25519.PrivateKey }

// Public returns the half that may be shown.
func (k SigningKey) Public() PublicKey { return PublicKey{k.key.Public().(ed25519.PublicKey)} }

// Sign signs a message; the context, which must be the same for Verify, says
// what kind of message it is, so that a signature of one kind is none of another.
func (k SigningKey) Sign(context string, message []byte) string {
	return encode64(ed25519.Sign(k.key, append([]byte(context), message...)))
}

// Verify says whether Sign made the signature with the secret half.
func (k PublicKey) Verify(context string, message []byte, signature string) bool {
	raw, err := decode64(signature, ed25519.SignatureSize)
	return err == nil && len(k.key) == ed25519.PublicKeySize && ed25519.Verify(k.key, append([]byte(context), message...), raw)
}

// NewHostKey makes a key that only signs: evidence of drills, by the host that
// ran them.
func NewHostKey(cluster, repository string) (*KeyFile, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	signing := SigningKey{key}
	return &KeyFile{Cluster: cluster, Repository: repository, Signers: []PublicKey{signing.Public()}, Signing: &signing}, nil
}

// Format implements fmt.Formatter, so that no verb shows the secret.
func (k SigningKey) Format(f fmt.State, _ rune) {
	if len(k.key) != ed25519.PrivateKeySize {
		io.WriteString(f, "no signing key")
		return
	}
	io.WriteString(f, "signing key of "+k.Public().String())
}

// KeyFile is a file of keys: the cluster key, the recovery key, or any plain
// age identity file. It is read by ParseKeyFile and written by Marshal.
//
// Lines "# lifeboat-NAME: value" carry public facts in a form that the age
// tool skips, so a recovery key is a valid age identity file.
type KeyFile struct {
	Cluster    string         // name; empty in a plain age file
	Repository string         // id; empty in a plain age file
	Signers    []PublicKey    // trust anchor; empty in a plain age file
	Signing    *SigningKey    // only in a cluster key
	Identities []age.Identity // *age.HybridIdentity or *age.X25519Identity
}

// Format implements fmt.Formatter: age's identities print as their secrets, so
// no verb may reach them.
func (k KeyFile) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "key file of cluster %q with %d identities, recipients %q", k.Cluster, len(k.Identities), k.Recipients())
}

// Format implements fmt.Formatter, for the same reason.
func (k Keys) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "keys: cluster key %t, %d recipients, %d identities, %d trusted signers",
		k.Cluster != nil, len(k.Recipients), len(k.Identities), len(k.Trusted))
}

// NewClusterKey makes a cluster key: a new signing key and two identities for
// metadata, a post-quantum hybrid one and a classic one, because age does not
// seal one file to both kinds and the recipients decide which is used.
func NewClusterKey(cluster, repository string) (*KeyFile, error) {
	if err := CheckClusterName(cluster); err != nil {
		return nil, err
	}
	if err := checkRepositoryID(repository); err != nil {
		return nil, err
	}
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
	k := &KeyFile{Identities: []age.Identity{id}}
	if anchor != nil {
		k.Cluster, k.Repository, k.Signers = anchor.Cluster, anchor.Repository, slices.Clone(anchor.Signers)
	}
	return k, nil
}

// Recipients returns the public half of each identity, in their order. An
// identity whose public half cannot be told (a plugin's) yields "".
func (k KeyFile) Recipients() []string {
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
// "age1…" (X25519). The error does not repeat s, which may be a secret in the
// wrong place.
func ParseRecipient(s string) (age.Recipient, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-") {
		return nil, errors.New("this is a secret age identity; the recipient is its public half (age1… or age1pq1…)")
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not one age recipient but several lines")
	}
	rs, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(rs) != 1 {
		return nil, errors.New("not an age recipient (age1… or age1pq1…)")
	}
	return rs[0], nil
}

// MaxRecipients is how many recipients data can be sealed to. One more, the
// cluster's own, is added for metadata.
const MaxRecipients = 20

func isHybrid(r age.Recipient) bool {
	_, ok := r.(*age.HybridRecipient)
	return ok
}

// checkRecipients refuses a mix of post-quantum and classic recipients: age
// does not seal to both, since the weaker would decide.
func checkRecipients(rs []age.Recipient) error {
	if len(rs) > MaxRecipients {
		return fmt.Errorf("%d recipients, at most %d are allowed", len(rs), MaxRecipients)
	}
	for _, r := range rs {
		if isHybrid(r) != isHybrid(rs[0]) {
			return errors.New("post-quantum (age1pq1…) and classic (age1…) recipients cannot be mixed: the weaker would decide")
		}
	}
	return nil
}

// RecipientIDs names those whom data is sealed to: of each the first 8 bytes of
// the SHA-256 of its text, in hex. Nil when one of them has none.
func (r *Repo) RecipientIDs() []string {
	var out []string
	for _, to := range r.keys.Recipients {
		text, ok := to.(fmt.Stringer)
		if !ok {
			return nil
		}
		sum := sha256.Sum256([]byte(text.String()))
		out = append(out, hex.EncodeToString(sum[:8]))
	}
	slices.Sort(out)
	return out
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

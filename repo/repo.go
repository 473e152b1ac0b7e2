package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// Format is the version of the repository format that this package writes.
const Format = 1

// Keys is what a caller holds. Writing needs Cluster (with its signing key)
// and Recipients; reading metadata needs Cluster or Identities; reading data
// needs Identities. Every use needs a trust anchor: the signers named in
// Cluster, in Trusted, or both.
type Keys struct {
	Cluster    *KeyFile // the cluster key; nil off the database host
	Recipients []age.Recipient
	Identities []age.Identity
	Trusted    []PublicKey

	// IdentityFile is where Identities come from, nil when it is not known. What
	// it says of its cluster only explains why a repository is not trusted.
	IdentityFile *KeyFile
}

// Repo is an opened repository: a store, what its marker says, and the keys.
// It is safe for concurrent use.
type Repo struct {
	store  storage.Store
	marker Marker
	keys   Keys
	host   string

	archiving bool        // OpenToArchive
	trusted   []PublicKey // the anchors
	believed  atomic.Pointer[trust]
	retired   atomic.Pointer[RetiredKeyError] // why nothing may be signed; nil mostly
	settled   <-chan struct{}                 // closed when believed is final; nil for at once
	metadata  []age.Recipient                 // who can open metadata
	readers   []age.Identity                  // all identities, the caller's first
	slots     slots
	chunks    sync.Pool  // of spools, full-size chunks
	large     sync.Mutex // held while one of many objects takes much memory
}

// Format implements fmt.Formatter: no verb reaches the keys.
func (r *Repo) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "repository %s of cluster %s", r.marker.Repository, r.marker.Cluster)
}

// NewID makes the id of a new repository: 32 random hex digits.
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Create makes a new repository for the cluster named in keys.Cluster, with
// the id in it, and opens it. fs.ErrExist when the store has a marker already:
// nothing is changed then. ErrReadOnly without a signing key.
func Create(ctx context.Context, store storage.Store, keys Keys, host string, now time.Time) (*Repo, error) {
	c := keys.Cluster
	if c == nil || c.Signing == nil {
		return nil, ErrReadOnly
	}
	m := Marker{Format: Format, Repository: c.Repository, Cluster: c.Cluster,
		Created: now.UTC().Truncate(time.Second), Signer: c.Signing.Public().String()}
	if err := CheckClusterName(m.Cluster); err != nil {
		return nil, err
	}
	if err := checkRepositoryID(m.Repository); err != nil {
		return nil, err
	}
	// First all that can be refused, then the first byte in the store.
	r, err := newRepo(store, m, keys, host)
	if err != nil {
		return nil, err
	}
	if err := store.Create(ctx, MarkerKey, bytes.NewReader(m.marshal(*c.Signing))); err != nil {
		return nil, fmt.Errorf("create %s: %w", MarkerKey, err)
	}
	return r, nil
}

// Open reads and checks the marker. ErrNoRepository when there is none;
// *ForeignError when the cluster key is of another cluster or repository;
// *UntrustedError when no trusted key signed it, in an *OtherKeyError when the
// identity file is of another repository than this claims to be; *FormatError when
// it is of another format; ErrNoTrust without an anchor. The host is written into
// what is stored, to tell writers apart.
func Open(ctx context.Context, store storage.Store, keys Keys, host string) (*Repo, error) {
	return open(ctx, store, keys, host, false)
}

// OpenToArchive is Open for who stores WAL and nothing else: what this host's own
// signer has said in a later format is no error.
func OpenToArchive(ctx context.Context, store storage.Store, keys Keys, host string) (*Repo, error) {
	return open(ctx, store, keys, host, true)
}

func open(ctx context.Context, store storage.Store, keys Keys, host string, archiving bool) (*Repo, error) {
	// Who signs is asked for at the same time: a push waits for both.
	var statements firstStatements
	var statementsErr error
	asked := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(asked)
		statements, statementsErr = readFirst(ctx, store)
	}()
	m, raw, err := readMarker(ctx, store)
	if err != nil {
		stop()
		<-asked
		return nil, err
	}
	if c := keys.Cluster; c != nil {
		if c.Cluster != "" && c.Cluster != m.Cluster {
			return nil, &ForeignError{What: "cluster", Want: c.Cluster, Have: m.Cluster}
		}
		if c.Repository != "" && c.Repository != m.Repository {
			return nil, &ForeignError{What: "repository", Want: c.Repository, Have: m.Repository}
		}
	}
	r, err := newRepo(store, m, keys, host)
	if err != nil {
		return nil, err
	}
	r.archiving = archiving
	<-asked
	if statementsErr != nil {
		return nil, statementsErr
	}
	if err := r.learn(ctx, statements); err != nil {
		return nil, err
	}
	if err := raw.verify(m, r.who().keys); err != nil {
		return nil, explained(err, m, keys.IdentityFile)
	}
	return r, nil
}

// explained is an *OtherKeyError when the identity file is, by its own word, of
// another cluster or repository than the marker names. Nobody vouches for that
// marker: nothing but the message depends on it.
func explained(err error, m Marker, file *KeyFile) error {
	if file == nil || file.Cluster == "" || file.Repository == "" || file.Cluster == m.Cluster && file.Repository == m.Repository {
		return err
	}
	return &OtherKeyError{Cluster: file.Cluster, Repository: file.Repository, HaveCluster: m.Cluster, HaveRepository: m.Repository, Err: err}
}

func newRepo(store storage.Store, m Marker, keys Keys, host string) (*Repo, error) {
	r := &Repo{store: store, marker: m, keys: keys, host: cleanHost(host)}
	r.trusted = append(r.trusted, keys.Trusted...)
	r.readers = append(r.readers, keys.Identities...)
	if c := keys.Cluster; c != nil {
		r.trusted = append(r.trusted, c.Signers...)
		r.readers = append(r.readers, c.Identities...)
		if c.Signing != nil {
			r.trusted = append(r.trusted, c.Signing.Public())
		}
	}
	if len(r.trusted) == 0 {
		return nil, ErrNoTrust
	}
	for _, k := range r.trusted {
		if len(k.key) != ed25519.PublicKeySize {
			return nil, errors.New("an empty signing key is among the trusted ones")
		}
	}
	if len(keys.Recipients) > 0 {
		if err := checkRecipients(keys.Recipients); err != nil {
			return nil, err
		}
		r.metadata = append(r.metadata, keys.Recipients...)
		if c := keys.Cluster; c != nil {
			own, err := c.metadataRecipient(isHybrid(keys.Recipients[0]))
			if err != nil {
				return nil, err
			}
			r.metadata = append(r.metadata, own)
		}
	}
	return r, nil
}

// Store is the store below, for what needs no keys: listing and deleting.
func (r *Repo) Store() storage.Store { return r.store }

// Marker says whose repository this is.
func (r *Repo) Marker() Marker { return r.marker }

// Host is what the envelopes that are stored say of where they were made.
func (r *Repo) Host() string { return r.host }

// CanOpenData says whether an identity for data was given. Whether it fits is
// known only when something is opened.
func (r *Repo) CanOpenData() bool { return len(r.keys.Identities) > 0 }

// CheckPresent makes sure that the repository is still there: the marker can
// be read and is the one that was opened. It is asked before "the archive has
// no such file" is believed.
func (r *Repo) CheckPresent(ctx context.Context) error {
	m, raw, err := readMarker(ctx, r.store)
	if err != nil {
		return err
	}
	if m.Repository != r.marker.Repository {
		return &ForeignError{What: "repository", Want: r.marker.Repository, Have: m.Repository}
	}
	return raw.verify(m, r.who().keys)
}

// RegisterSystem notes that the cluster is, from now on, also the PostgreSQL
// system with this identifier. Known already is no error.
func (r *Repo) RegisterSystem(ctx context.Context, system postgres.SystemID, plain []byte) error {
	_, err := r.CreateEnvelope(ctx, SystemKey(system), KindSystem, bytes.NewReader(plain), int64(len(plain)))
	var conflict *ConflictError
	if errors.As(err, &conflict) {
		return nil // noted before, with another version or time
	}
	return err
}

// Systems lists the PostgreSQL systems that the cluster has been, by the names
// of the objects: what stands in them, and who signed it, is not looked at.
func (r *Repo) Systems(ctx context.Context) ([]postgres.SystemID, error) {
	var out []postgres.SystemID
	for info, err := range r.store.List(ctx, systemsPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list systems: %w", err)
		}
		id, err := postgres.ParseSystemID(info.Key[len(systemsPrefix):])
		if err != nil || SystemKey(id) != info.Key {
			continue // not one of ours
		}
		out = append(out, id)
	}
	return out, nil
}

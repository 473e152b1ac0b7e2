package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

var (
	// ErrNoRepository means that the store answers and has no marker object.
	ErrNoRepository = errors.New("no Lifeboat repository here (no " + MarkerKey + ")")

	// ErrNoIdentity means that data was to be opened without any identity.
	ErrNoIdentity = errors.New("no identity to open it with")

	// ErrWrongIdentity means that none of the identities fits the object.
	ErrWrongIdentity = errors.New("the identity does not fit: the object was not sealed to it")

	// ErrNoTrust means that no public signing key is known, so nothing in the
	// repository can be told from a forgery.
	ErrNoTrust = errors.New("no trusted signing key: cannot tell this repository from a forged one")

	// ErrReadOnly means that something was to be written without a signing
	// key or without recipients.
	ErrReadOnly = errors.New("cannot write without the cluster key and at least one recipient")

	// ErrMissing is in the *CorruptError about an object that something signed
	// refers to and that the store does not have. It is not fs.ErrNotExist.
	ErrMissing = errors.New("the store does not have it")
)

// opaque keeps the text of err but not that it is fs.ErrNotExist or
// fs.ErrExist: those two are the store's word on the object that was asked
// for, never a missing temporary directory or a missing pack. Whoever asks for a
// WAL segment takes fs.ErrNotExist for the end of the archive.
func opaque(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return errors.New(err.Error())
	}
	return err
}

// FormatError says that something is of a format that this program does not
// know.
type FormatError struct {
	Object string
	Have   int
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("object %s has repository format %d; this program knows format %d", e.Object, e.Have, Format)
}

// CorruptError says that an object is not what was once written there.
type CorruptError struct {
	Object string
	Reason string
	Err    error // may be nil
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("object %s is damaged: %s", e.Object, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap never yields fs.ErrNotExist or fs.ErrExist: damage is not absence.
func (e *CorruptError) Unwrap() error { return opaque(e.Err) }

// UntrustedError says that an object carries no valid signature of a trusted
// key for the place where it was found: it is forged, moved or altered.
type UntrustedError struct {
	Object string
	Reason string
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("object %s is not to be trusted: %s", e.Object, e.Reason)
}

// OtherKeyError says that a repository is not trusted, and that the key at hand
// is of another one than it claims to be.
type OtherKeyError struct {
	Cluster, Repository         string // of the key file
	HaveCluster, HaveRepository string // what the repository says of itself
	Err                         error  // *UntrustedError
}

func (e *OtherKeyError) Error() string {
	s := fmt.Sprintf("this is the recovery key of cluster %q, repository %s; the repository is %s", e.Cluster, e.Repository, e.HaveRepository)
	if e.HaveCluster != e.Cluster {
		s += fmt.Sprintf(" of cluster %q", e.HaveCluster)
	}
	return s
}

func (e *OtherKeyError) Unwrap() error { return e.Err }

// DisbelievedError says that an object is believed here, and not in the place to
// which it was to be copied. Nothing was written.
type DisbelievedError struct {
	Object string
	Reason string
}

func (e *DisbelievedError) Error() string {
	return fmt.Sprintf("object %s would not be trusted where it goes: %s", e.Object, e.Reason)
}

// ForeignError says that the repository belongs to somebody else.
type ForeignError struct {
	What string // "cluster" or "repository"
	Want string
	Have string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("by its %s the repository is of %s %q, not of %q", MarkerKey, e.What, e.Have, e.Want)
}

// ConflictError says that an object of this name with other content is
// already there. Nothing was written.
type ConflictError struct {
	Object               string
	HaveSHA256, SHA256   string // of the plain bytes: in the store, and refused
	HaveHost, Host       string // who stored it, and who was refused
	HaveSize, WantedSize int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("object %s is already stored with other content: there sha256 %s by host %s, refused sha256 %s by host %s",
		e.Object, e.HaveSHA256, e.HaveHost, e.SHA256, e.Host)
}

// LeasedError says that somebody else holds the lease.
type LeasedError struct {
	Name   string
	Holder string
	Until  time.Time // by the store's clock, if it is not renewed

	// Unsigned says that no key that is believed has signed it: a host without a cluster
	// key has, or whoever can write to the store.
	Unsigned bool
}

func (e *LeasedError) Error() string {
	return fmt.Sprintf("%s is being done by %s (its lease ends %s unless it is renewed)", e.Name, e.Holder, e.Until.UTC().Format(time.RFC3339))
}

// LaterFormat says whether an error is that a later version of the program has written
// something. That is no damage: who looks for damage does not know, with this version,
// whether there is any, and nothing of it may be taken for junk.
func LaterFormat(err error) bool {
	_, format := errors.AsType[*FormatError](err)
	return format
}

// AboutObject says whether an error is about what is stored, and so not about
// the store or the way to it: trying again would not help. It is about damage unless it
// is LaterFormat.
func AboutObject(err error) bool {
	_, corrupt := errors.AsType[*CorruptError](err)
	_, untrusted := errors.AsType[*UntrustedError](err)
	_, foreign := errors.AsType[*ForeignError](err)
	return corrupt || untrusted || LaterFormat(err) || foreign
}

package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// Statements, keys/<serial>, say who signs: one that is trusted adds another, or
// retires one. So a recovery key file, which names the signer of its day, believes
// what later ones sign, and nobody has to touch it.
//
// They are read in the order of their numbers, and the store creates each number
// once. So what was said first counts, and who steals a retired key cannot say
// anything before that. docs/adr/014 tells what this protects and what not.

const (
	keysPrefix       = "keys/"
	statementContext = "lifeboat-keys-1\n"
	statementDigits  = 8
	maxStatement     = 1 << 20 // bytes
	maxStatements    = 1000
)

// Statement is what one signer says of another.
type Statement struct {
	Format     int         `json:"format"`
	Repository string      `json:"repository"`
	Cluster    string      `json:"cluster"`
	Number     int         `json:"number"` // as in the key, from 1
	Made       time.Time   `json:"made"`
	Signer     string      `json:"signer"`            // who says it
	Adds       string      `json:"adds,omitempty"`    // a signer to be trusted
	Retires    *Retirement `json:"retires,omitempty"` // or one to be trusted no more
}

// Retirement says up to where a retired signer is believed: statements up to a
// number, WAL up to a segment of each timeline, and nothing else.
type Retirement struct {
	Signer     string   `json:"signer"`
	Statements int      `json:"statements"`
	WAL        []WALCut `json:"wal"`
}

// WALCut is the last segment of a timeline, and with it its history file, for
// which a retired signer is believed.
type WALCut struct {
	System   postgres.SystemID `json:"system"`
	Timeline postgres.Timeline `json:"timeline"`
	Last     string            `json:"last"` // 24 digits; "" for the history file alone
}

// RetiredKeyError says that this host would sign with a key that is retired:
// nobody would believe it, so nothing is stored.
type RetiredKeyError struct{ Signer string }

func (e *RetiredKeyError) Error() string {
	return fmt.Sprintf("the cluster key of this host, %s, is retired: what it signs is not believed", e.Signer)
}

// signedStatement is the object: the statement as it stands there, and the
// signature of those very bytes.
type signedStatement struct {
	Statement json.RawMessage `json:"statement"`
	Signature string          `json:"signature"`
}

func (s signedStatement) bytes() []byte {
	return fmt.Appendf(nil, "{\"statement\":%s,\"signature\":\"%s\"}\n", s.Statement, s.Signature)
}

func statementKey(number int) string {
	return fmt.Sprintf("%s%0*d", keysPrefix, statementDigits, number)
}

// SignersPrefix is where the statements lie, for who copies a repository.
const SignersPrefix = keysPrefix

func (s Statement) marshal(key SigningKey) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain strings and numbers always marshal
	}
	return signedStatement{raw, encode64(ed25519.Sign(key.key, append([]byte(statementContext), raw...)))}.bytes()
}

// parsedStatement is one that is well-formed; whether it counts is for trust.
type parsedStatement struct {
	Statement
	signer  PublicKey
	subject PublicKey // added or retired
	raw     []byte    // signed bytes
	sig     []byte
}

func parseStatement(key string, raw []byte, m Marker) (parsedStatement, error) {
	var p parsedStatement
	var s signedStatement
	corrupt := func(reason string, err error) (parsedStatement, error) {
		return p, &CorruptError{key, reason, err}
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return corrupt("not JSON", err)
	}
	if !bytes.Equal(s.bytes(), raw) {
		return corrupt("not in its one form", nil)
	}
	if err := json.Unmarshal(s.Statement, &p.Statement); err != nil {
		return corrupt("not a statement", err)
	}
	if p.Format != Format {
		return p, &FormatError{key, p.Format}
	}
	var errs [3]error
	p.signer, errs[0] = ParsePublicKey(p.Signer)
	subject := p.Adds
	if p.Retires != nil {
		subject = p.Retires.Signer
	}
	p.subject, errs[1] = ParsePublicKey(subject)
	p.sig, errs[2] = decode64(s.Signature, ed25519.SignatureSize)
	if err := errors.Join(errs[:]...); err != nil {
		return corrupt("not a statement", err)
	}
	if (p.Adds == "") == (p.Retires == nil) || statementKey(p.Number) != key {
		return corrupt("it says neither or both, or has another number", nil)
	}
	if p.Repository != m.Repository || p.Cluster != m.Cluster {
		return p, &UntrustedError{key, "it is of another cluster or repository"}
	}
	p.raw = append([]byte(statementContext), s.Statement...)
	return p, nil
}

// rawStatement is what lies under a statement's key.
type rawStatement struct {
	key string
	raw []byte
}

// readStatements reads all that are there, by number.
func readStatements(ctx context.Context, store storage.Store) ([]rawStatement, error) {
	var out []rawStatement
	for info, err := range store.List(ctx, keysPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list who signs: %w", opaque(err))
		}
		n, err := strconv.Atoi(strings.TrimPrefix(info.Key, keysPrefix))
		if err != nil || n < 1 || statementKey(n) != info.Key || len(out) == maxStatements {
			continue
		}
		raw, err := readSmall(ctx, store, info.Key, maxStatement)
		if err != nil {
			return nil, err
		}
		out = append(out, rawStatement{info.Key, raw})
	}
	return out, nil
}

// parseStatements passes over junk that somebody has put there, as everywhere: it
// says nothing. A statement of a later format could say anything.
func parseStatements(all []rawStatement, m Marker) ([]parsedStatement, error) {
	var out []parsedStatement
	for _, s := range all {
		p, err := parseStatement(s.key, s.raw, m)
		if _, newer := errors.AsType[*FormatError](err); newer {
			return nil, err
		}
		if err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

func readSmall(ctx context.Context, store storage.Store, key string, limit int64) ([]byte, error) {
	rc, err := store.Open(ctx, key, 0, limit)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, opaque(err))
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, opaque(err))
	}
	return raw, nil
}

// AddSigner says, in the name of this host's cluster key, that another signer is
// to be trusted. Said already is a success. ErrReadOnly without a signing key,
// *RetiredKeyError with a retired one.
func (r *Repo) AddSigner(ctx context.Context, k PublicKey, now time.Time) error {
	for _, s := range r.who().statements {
		if s.Adds == k.String() {
			return nil
		}
	}
	return r.state(ctx, Statement{Adds: k.String(), Made: now.UTC().Truncate(time.Second)})
}

// retire says that a signer is to be trusted up to the cut alone.
func (r *Repo) retire(ctx context.Context, cut Retirement, now time.Time) error {
	return r.state(ctx, Statement{Retires: &cut, Made: now.UTC().Truncate(time.Second)})
}

// state makes a statement with the next number and reads it back.
func (r *Repo) state(ctx context.Context, s Statement) error {
	c := r.keys.Cluster
	if c == nil || c.Signing == nil {
		return ErrReadOnly
	}
	if e := r.retired.Load(); e != nil {
		return e
	}
	all, err := readStatements(ctx, r.store)
	if err != nil {
		return err
	}
	for _, a := range all {
		n, _ := strconv.Atoi(strings.TrimPrefix(a.key, keysPrefix))
		s.Number = max(s.Number, n)
	}
	s.Number++
	if s.Number > maxStatements {
		return fmt.Errorf("there are %d statements under %s already", maxStatements, keysPrefix)
	}
	if s.Retires != nil {
		s.Retires.Statements = s.Number - 1
	}
	s.Format, s.Repository, s.Cluster, s.Signer = Format, r.marker.Repository, r.marker.Cluster, c.Signing.Public().String()
	key := statementKey(s.Number)
	err = r.store.Create(ctx, key, bytes.NewReader(s.marshal(*c.Signing)))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: somebody else has said something just now: look at \"lifeboat key status\"", key)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", key, opaque(err))
	}
	return r.loadTrust(ctx)
}

// CheckSigning asks once more whether this host's cluster key is retired, for who
// signs for a long time: *RetiredKeyError.
func (r *Repo) CheckSigning(ctx context.Context) error {
	if err := r.loadTrust(ctx); err != nil {
		return err
	}
	if e := r.retired.Load(); e != nil {
		return e
	}
	return nil
}

// loadTrust reads the statements.
func (r *Repo) loadTrust(ctx context.Context) error {
	all, err := readStatements(ctx, r.store)
	if err != nil {
		return err
	}
	return r.learn(all)
}

func (r *Repo) learn(raw []rawStatement) error {
	all, err := parseStatements(raw, r.marker)
	if err != nil {
		return err
	}
	r.believed.Store(newTrust(r.trusted, all))
	if c := r.keys.Cluster; c != nil && c.Signing != nil {
		if own := c.Signing.Public(); r.who().cuts[own.String()] != nil {
			r.retired.Store(&RetiredKeyError{own.ID()})
		}
	}
	return nil
}

// CopySigners brings the statements to another place, where they must be before
// what later signers have signed. An error where
// another one has the number.
func (r *Repo) CopySigners(ctx context.Context, to *Repo) error {
	if err := r.samePlace(to); err != nil {
		return err
	}
	all, err := readStatements(ctx, r.store)
	if err != nil {
		return err
	}
	for _, s := range all {
		n, _ := strconv.Atoi(strings.TrimPrefix(s.key, keysPrefix))
		if !slices.ContainsFunc(r.who().statements, func(st Statement) bool { return st.Number == n }) {
			continue
		}
		err := to.store.Create(ctx, s.key, bytes.NewReader(s.raw))
		if errors.Is(err, fs.ErrExist) {
			var have []byte
			if have, err = readSmall(ctx, to.store, s.key, maxStatement); err == nil && !bytes.Equal(have, s.raw) {
				err = errors.New("another statement is there: keys were rotated in one of the two places alone")
			}
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", s.key, opaque(err))
		}
	}
	return to.loadTrust(ctx)
}

package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

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

// stateTries is how often another number is tried, when somebody takes it meanwhile.
const stateTries = 100

// state makes a statement with the lowest number that is free behind all that count,
// and reads it back.
func (r *Repo) state(ctx context.Context, s Statement) error {
	own, ok := r.ownKey()
	if !ok {
		return ErrReadOnly
	}
	if err := r.CheckSigning(ctx); err != nil {
		return err
	}
	who := r.who()
	if len(who.statements) >= maxStatements {
		return fmt.Errorf("signers have said %d things under %s, and no more are followed", len(who.statements), keysPrefix)
	}
	s.Format, s.Repository, s.Cluster, s.Signer = Format, r.marker.Repository, r.marker.Cluster, own.String()
	before := who.highestThatCounts()
	for range stateTries {
		err := r.stateBehind(ctx, s, before)
		if err == nil {
			return r.loadTrust(ctx)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := r.CheckSigning(ctx); err != nil {
			return err
		}
		if r.who().highestThatCounts() != before {
			break
		}
	}
	return fmt.Errorf("write under %s: somebody else has said something just now: look at \"lifeboat key status\"", keysPrefix)
}

// stateBehind makes the statement behind another one. fs.ErrExist when its number was
// taken meanwhile.
func (r *Repo) stateBehind(ctx context.Context, s Statement, before int) (err error) {
	if s.Number, err = freeNumber(ctx, r.store, before); err != nil {
		return err
	}
	if s.Number > lastNumber {
		return fmt.Errorf("every number under %s is taken", keysPrefix)
	}
	if s.Retires != nil {
		s.Retires.Statements = s.Number - 1
	}
	signing := *r.keys.Cluster.Signing
	key := statementKey(s.Number)
	if err := r.store.Create(ctx, key, bytes.NewReader(s.marshal(signing))); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	if s.Number <= openNumbers {
		return nil
	}
	post := r.marker.signpost(s.Number, signing)
	if err := r.store.Create(ctx, post, bytes.NewReader(nil)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", post, opaque(err))
	}
	return nil
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

// CopySigners brings the statements to another place, where they must be before
// what later signers have signed. Where something else has the number there, this host
// says the same in its own name. ErrReadOnly when it cannot.
func (r *Repo) CopySigners(ctx context.Context, to *Repo) error {
	if err := r.samePlace(to); err != nil {
		return err
	}
	for _, s := range r.who().statements {
		if to.who().says(s) {
			continue
		}
		if err := r.copyStatement(ctx, to, s); err != nil {
			return fmt.Errorf("copy %s: %w", statementKey(s.Number), opaque(err))
		}
		if err := to.loadTrust(ctx); err != nil {
			return err
		}
	}
	return to.loadTrust(ctx)
}

func (r *Repo) copyStatement(ctx context.Context, to *Repo, s Statement) error {
	key := statementKey(s.Number)
	raw, err := readSmall(ctx, r.store, key, maxStatement)
	if err != nil {
		return err
	}
	free, err := freeNumber(ctx, to.store, to.who().highestThatCounts())
	if err != nil {
		return err
	}
	if free <= s.Number && s.Number <= openNumbers {
		err := copyUnder(ctx, to.store, free, s.Number, raw)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	s.Number = 0
	if s.Retires != nil {
		cut := *s.Retires
		s.Retires = &cut
	}
	return to.state(ctx, s)
}

// copyUnder stores a statement under its number, and nothing under those before it that
// are free, so that nobody says anything there later on. fs.ErrExist when it is taken.
func copyUnder(ctx context.Context, store storage.Store, free, number int, raw []byte) error {
	for n := free; n < number; n++ {
		if err := store.Create(ctx, statementKey(n), bytes.NewReader(nil)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return store.Create(ctx, statementKey(number), bytes.NewReader(raw))
}

// says says whether the same was said of the same signer.
func (t *trust) says(s Statement) bool {
	if s.Retires != nil {
		return t.cuts[s.Retires.Signer] != nil
	}
	return slices.ContainsFunc(t.statements, func(have Statement) bool { return have.Adds == s.Adds })
}

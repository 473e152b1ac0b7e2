package repo

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Whoever can write to the bucket can put junk under any number that is free, a
// million times. So what is read is bounded: the first numbers whatever lies there,
// and of those behind them only the ones to which a signpost points, a name that
// itself is signed. Junk behind the first numbers costs the listing of its names.

const (
	// openNumbers are the numbers, from 1 on, whose objects are all read.
	openNumbers     = 1000
	lastNumber      = 99_999_999 // eight digits
	signpostContext = "lifeboat-signpost-1\n"
)

// rawStatement is what lies under a statement's key.
type rawStatement struct {
	key string
	raw []byte
}

// firstStatements are the objects with the first numbers, in their order.
type firstStatements struct {
	all  []rawStatement
	more bool // there are names behind them
}

// readFirst reads them, many at once. One that is gone when it is read, or is longer
// than any statement, is none.
func readFirst(ctx context.Context, store storage.Store) (firstStatements, error) {
	var first firstStatements
	for info, err := range store.List(ctx, keysPrefix) {
		if err != nil {
			return first, fmt.Errorf("list who signs: %w", opaque(err))
		}
		n, _ := numberOf(info.Key)
		if n > openNumbers {
			first.more = true
			break
		}
		if info.Key == statementKey(n) && n > 0 && info.Size <= maxStatement {
			first.all = append(first.all, rawStatement{key: info.Key})
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(headersAtOnce)
	for i := range first.all {
		g.Go(func() (err error) {
			first.all[i].raw, err = readIfThere(gctx, store, first.all[i].key, maxStatement)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	return first, g.Wait()
}

// numberOf is the number with which a key under keys/ begins, and what stands behind
// its digits; 0 when there is none.
func numberOf(key string) (n int, rest string) {
	name := strings.TrimPrefix(key, keysPrefix)
	if len(name) < statementDigits {
		return 0, ""
	}
	u, err := strconv.ParseUint(name[:statementDigits], 10, 32)
	if err != nil {
		return 0, ""
	}
	return int(u), name[statementDigits:]
}

// signpost is the name that points to the statement with this number.
func (m Marker) signpost(number int, key SigningKey) string {
	sig := ed25519.Sign(key.key, m.signpostText(number))
	return statementKey(number) + "-" + key.Public().ID() + "-" + encode64(sig)
}

func (m Marker) signpostText(number int) []byte {
	return fmt.Appendf(nil, "%s%s\n%s\n", signpostContext, m.Repository, statementKey(number))
}

// pointed returns the number to which a signpost of somebody who is believed points;
// 0 for every other name.
func (t *trust) pointed(m Marker, key string) int {
	number, rest := numberOf(key)
	id, text, ok := strings.Cut(strings.TrimPrefix(rest, "-"), "-")
	if number == 0 || !ok {
		return 0
	}
	for _, k := range t.keys {
		if k.ID() != id || rest != "-"+id+"-"+text {
			continue
		}
		cut := t.cuts[k.String()]
		sig, err := decode64(text, ed25519.SignatureSize)
		if err == nil && (cut == nil || number <= cut.Statements) && ed25519.Verify(k.key, m.signpostText(number), sig) {
			return number
		}
	}
	return 0
}

// loadTrust reads the statements.
func (r *Repo) loadTrust(ctx context.Context) error {
	first, err := readFirst(ctx, r.store)
	if err != nil {
		return err
	}
	return r.learn(ctx, first)
}

// learn takes over who is believed. *FormatError when a signer that is believed has
// said something in a format that this program does not know.
func (r *Repo) learn(ctx context.Context, first firstStatements) error {
	all := parseStatements(first.all, r.marker)
	who := newTrust(r.trusted, all)
	if first.more {
		var err error
		if who, err = r.followSignposts(ctx, who, all); err != nil {
			return err
		}
	}
	if err := r.knowsAll(who); err != nil {
		return err
	}
	r.believed.Store(who)
	if own, ok := r.ownKey(); ok && who.cuts[own.String()] != nil {
		r.retired.Store(&RetiredKeyError{own.ID()})
	}
	return nil
}

// followSignposts reads, in their order, the statements behind the first numbers to
// which somebody points who is believed by then. It keeps nothing else.
func (r *Repo) followSignposts(ctx context.Context, who *trust, all []parsedStatement) (*trust, error) {
	for info, err := range r.store.List(ctx, keysPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list who signs: %w", opaque(err))
		}
		n := who.pointed(r.marker, info.Key)
		if n <= openNumbers || len(all) > 0 && all[len(all)-1].Number == n {
			continue
		}
		raw, err := readIfThere(ctx, r.store, statementKey(n), maxStatement)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p, err := parseStatement(statementKey(n), raw, r.marker); err == nil {
			all = append(all, p)
			who = newTrust(r.trusted, all)
		}
	}
	return who, nil
}

// knowsAll refuses to go on where something was said that cannot be understood: it
// may be about anybody. But nobody retires himself, in any format: a host that only
// archives goes on beside another one that has the same key and a later program.
func (r *Repo) knowsAll(who *trust) error {
	own, ok := r.ownKey()
	for _, s := range who.later {
		if !r.archiving || !ok || s.Signer != own.String() {
			return &FormatError{statementKey(s.Number), s.Format}
		}
	}
	return nil
}

// ownKey is the signer that this host is.
func (r *Repo) ownKey() (PublicKey, bool) {
	if c := r.keys.Cluster; c != nil && c.Signing != nil {
		return c.Signing.Public(), true
	}
	return PublicKey{}, false
}

// parseStatements passes over junk that somebody has put there, as everywhere: it
// says nothing.
func parseStatements(all []rawStatement, m Marker) []parsedStatement {
	var out []parsedStatement
	for _, s := range all {
		if p, err := parseStatement(s.key, s.raw, m); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// highestThatCounts is the number of the last statement that counts, 0 when none does.
func (t *trust) highestThatCounts() int {
	if len(t.statements) == 0 {
		return 0
	}
	return slices.MaxFunc(t.statements, func(a, b Statement) int { return cmp.Compare(a.Number, b.Number) }).Number
}

// freeNumber is the lowest number that is free behind another one. Everything between
// them is taken, so nobody can say anything in between later on.
func freeNumber(ctx context.Context, store storage.Store, behind int) (int, error) {
	free := behind + 1
	for info, err := range store.List(ctx, keysPrefix) {
		if err != nil {
			return 0, fmt.Errorf("list who signs: %w", opaque(err))
		}
		n, _ := numberOf(info.Key)
		if n > free {
			break
		}
		if n == free && info.Key == statementKey(n) {
			free++
		}
	}
	return free, nil
}

// readSmall reads an object, or as much of it as the limit. An error is never
// fs.ErrNotExist.
func readSmall(ctx context.Context, store storage.Store, key string, limit int64) ([]byte, error) {
	raw, err := readIfThere(ctx, store, key, limit)
	return raw, opaque(err)
}

// readIfThere is readSmall for what may be gone: fs.ErrNotExist.
func readIfThere(ctx context.Context, store storage.Store, key string, limit int64) ([]byte, error) {
	rc, err := store.Open(ctx, key, 0, limit)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, opaque(err))
	}
	return raw, nil
}

package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// The names of WAL that is still to come are known to everybody, and whoever can
// write to the bucket can take them. Archiving goes on: what finds its name taken by
// something that no believed signer has signed is stored beside it, under a name that
// is itself signed. Nobody can take that one beforehand, and a reader who meets a
// million names beside a segment opens none but those. FORMAT.md has the form, and
// docs/adr/021 the reasons.

const (
	walBesideMark    = "+"
	walBesideContext = "lifeboat-beside-1\n"
)

// besideWAL is the name beside the archive's key for what this signer stores.
func (m Marker) besideWAL(key string, k SigningKey) string {
	return key + walBesideMark + k.Public().ID() + "-" + encode64(ed25519.Sign(k.key, m.besideText(key)))
}

func (m Marker) besideText(key string) []byte {
	return fmt.Appendf(nil, "%s%s\n%s\n", walBesideContext, m.Repository, key)
}

// ArchiveKey is the key of the archive for which the name of an object stands: of
// WAL that was stored beside the key, that key and true, else the name itself. False for
// ok when the name is one beside a key and nobody who is believed has signed it.
func (r *Repo) ArchiveKey(name string) (key string, beside, ok bool) {
	key, rest, found := strings.Cut(name, walBesideMark)
	if !found || !strings.HasPrefix(name, walPrefix) {
		return name, false, true
	}
	if r.vouchesBeside(key, rest) {
		return key, true, true
	}
	return name, false, false
}

// BesideWhat is the key beside which the name of an object lies, whoever put it there;
// the name itself for every other one.
func BesideWhat(name string) string {
	key, _, _ := strings.Cut(name, walBesideMark)
	return key
}

func (r *Repo) vouchesBeside(key, rest string) bool {
	id, text, _ := strings.Cut(rest, "-")
	sig, err := decode64(text, ed25519.SignatureSize)
	if err != nil {
		return false
	}
	who := r.who()
	for _, k := range who.keys {
		if k.ID() == id && ed25519.Verify(k.key, r.marker.besideText(key), sig) {
			return who.believes(k, key) == nil
		}
	}
	return false
}

// ArchiveObject is an object below the archive's prefix.
type ArchiveObject struct {
	storage.Info        // with the key for which it stands
	Name         string // under which it lies
}

// ListArchive lists what lies below a prefix of the archive, as storage.Store's List
// does, each object under the key for which it stands. Where one lies beside its key,
// it comes in the place of what has taken the key. A name beside a key that nobody who
// is believed has signed comes as it is, and is no name of WAL.
func (r *Repo) ListArchive(ctx context.Context, prefix string) iter.Seq2[ArchiveObject, error] {
	return func(yield func(ArchiveObject, error) bool) {
		// What lies beside a key follows it at once: no letter of a key sorts before the mark.
		var held ArchiveObject
		flush := func() bool {
			o := held
			held = ArchiveObject{}
			return o.Name == "" || yield(o, nil)
		}
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				yield(ArchiveObject{}, err)
				return
			}
			key, beside, ok := r.ArchiveKey(info.Key)
			o := ArchiveObject{Info: info, Name: info.Key}
			o.Key = key
			switch {
			case beside && held.Key == key:
				held = o
			case !ok:
				if !yield(o, nil) {
					return
				}
			default:
				if !flush() {
					return
				}
				held = o
			}
		}
		flush()
	}
}

// goesBeside says whether what could not be stored under its key, for this reason, is
// to be stored beside it. That takes a key to sign the name with.
func (r *Repo) goesBeside(key string, why error) bool {
	return AboutObject(why) && strings.HasPrefix(key, walPrefix) && r.keys.Cluster != nil && r.keys.Cluster.Signing != nil
}

// storeBeside stores an envelope that found its key taken by something of no meaning.
func (r *Repo) storeBeside(ctx context.Context, key string, h Header, sealed *spool) (Stored, error) {
	name := r.marker.besideWAL(key, *r.keys.Cluster.Signing)
	b := &body{head: h.line(), rest: sealed}
	size := int64(len(b.head)) + sealed.size
	err := r.store.Create(ctx, name, b)
	b.end()
	if errors.Is(err, fs.ErrExist) {
		// Somebody who can delete has put something there, or this very call was sent twice.
		have, err := r.headerAt(ctx, name, key)
		if err != nil {
			return Stored{}, fmt.Errorf("compare with what is stored: %w", opaque(err))
		}
		return h.sameAs(have, key)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("store %s: %w", name, opaque(err))
	}
	return Stored{Header: h, Bytes: size, Beside: name}, nil
}

// inPlaces looks at what lies under key, and where that is nothing, or nothing that a
// believed signer has signed, at what lies beside it in the archive. It returns what
// the first look that succeeds returned, else the error about what was vouched for, else
// that about the key.
func (r *Repo) inPlaces(ctx context.Context, key string, look func(name string) error) error {
	err := look(key)
	if err == nil || !strings.HasPrefix(key, walPrefix) || !(errors.Is(err, fs.ErrNotExist) || AboutObject(err)) {
		return err
	}
	if r.settled != nil {
		<-r.settled // who is believed is being read just now
	}
	for info, listed := range r.store.List(ctx, key+walBesideMark) {
		if listed != nil {
			return fmt.Errorf("look beside %s: %w", key, opaque(listed))
		}
		if of, beside, _ := r.ArchiveKey(info.Key); !beside || of != key {
			continue
		}
		switch besides := look(info.Key); {
		case besides == nil:
			return nil
		case !errors.Is(besides, fs.ErrNotExist):
			err = besides
		}
	}
	return err
}

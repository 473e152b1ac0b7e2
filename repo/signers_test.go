package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// successor is the world's writer with a new cluster key that the old one vouches for.
func (w *world) successor(t *testing.T) (*KeyFile, *Repo) {
	t.Helper()
	next, err := NewClusterKey("shop", w.cluster.Repository)
	check(t, err)
	next.Signers = append(next.Signers, w.cluster.Signers...)
	next.Identities = append(next.Identities, w.cluster.Identities...)
	check(t, w.writer.AddSigner(t.Context(), next.Signing.Public(), testTime))
	r, err := Open(t.Context(), w.store, Keys{Cluster: next, Recipients: recipientsOf(t, w.recovery)}, "db2")
	check(t, err)
	return next, r
}

func (w *world) readAgain(t *testing.T, keys Keys) *Repo {
	t.Helper()
	r, err := Open(t.Context(), w.store, keys, "drill")
	check(t, err)
	return r
}

const signersSystem = postgres.SystemID(7000000000000000001)

func putSegment(t *testing.T, r *Repo, n int) string {
	t.Helper()
	return putOn(t, r, signersSystem, 1, n)
}

func putOn(t *testing.T, r *Repo, system postgres.SystemID, tl postgres.Timeline, n int) string {
	t.Helper()
	key := WALKey(system, postgres.WALName{Kind: postgres.WALSegment, Timeline: tl, Segment: fmt.Sprintf("%08X00000000%08X", uint32(tl), n)})
	_, err := r.CreateEnvelope(t.Context(), key, KindWAL, strings.NewReader("wal"), 3)
	check(t, err)
	return key
}

// readable says whether the object is believed; any other error fails the test.
func readable(t *testing.T, r *Repo, key string) bool {
	t.Helper()
	_, err := r.Header(t.Context(), key)
	var untrusted *UntrustedError
	if err != nil && !errors.As(err, &untrusted) {
		t.Fatal(err)
	}
	return err == nil
}

func TestSigners(t *testing.T) {
	w := newWorld(t)
	check(t, w.writer.RegisterSystem(t.Context(), signersSystem, []byte("{}")))
	first := putSegment(t, w.writer, 1)
	next, writer := w.successor(t)
	old := w.cluster.Signing.Public()

	// It still signs the newest: it cannot be retired.
	err := writer.Retire(t.Context(), old, testTime)
	var still *StillSigningError
	if !errors.As(err, &still) || still.Host != "db1" {
		t.Fatalf("retired although it signs: %v", err)
	}
	second := putSegment(t, writer, 2)
	check(t, writer.Reseal(t.Context(), MetadataObject{Key: SystemKey(signersSystem), Kind: KindSystem}))
	check(t, writer.Retire(t.Context(), old, testTime))
	check(t, writer.Retire(t.Context(), old, testTime)) // said already

	// What the old key signs behind its cut, its holder not having looked again.
	late := putSegment(t, w.writer, 3)
	system := SystemKey(signersSystem + 1)
	_, err = w.writer.CreateEnvelope(t.Context(), system, KindSystem, strings.NewReader("{}"), 2)
	check(t, err)
	history := WALKey(signersSystem, postgres.WALName{Kind: postgres.WALHistory, Timeline: 2})
	_, err = w.writer.CreateEnvelope(t.Context(), history, KindWAL, strings.NewReader("1"), 1)
	check(t, err)
	slice := SliceKey(signersSystem, 1, "000000010000000000000004", 0, 3)
	_, err = w.writer.CreateEnvelope(t.Context(), slice, KindWAL, strings.NewReader("wal"), 3)
	check(t, err)

	bare := *next // the key file when the old one is gone from it
	bare.Signers = bare.Signers[:1]
	for who, keys := range map[string]Keys{"the recovery key of the first day": w.readerKeys(), "the new cluster key": {Cluster: &bare}} {
		r := w.readAgain(t, keys)
		for key, want := range map[string]bool{first: true, second: true, SystemKey(signersSystem): true, late: false, system: false, history: false, slice: false} {
			if got := readable(t, r, key); got != want {
				t.Errorf("%s: %s is believed: %t", who, key, got)
			}
		}
	}
	// Who opens it now with the old key is told, and stores nothing.
	r := w.readAgain(t, w.writerKeys(t))
	_, err = r.CreateEnvelope(t.Context(), "wal/x", KindWAL, strings.NewReader("x"), 1)
	var retired *RetiredKeyError
	if !errors.As(err, &retired) {
		t.Errorf("the retired key signs: %v", err)
	}
	if err := w.writer.CheckSigning(t.Context()); !errors.As(err, &retired) {
		t.Errorf("who signs for long is not told: %v", err)
	}
	if err := r.AddSigner(t.Context(), newWorld(t).cluster.Signing.Public(), testTime); !errors.As(err, &retired) {
		t.Errorf("the retired key vouches: %v", err)
	}
}

// The key that signed all WAL of the system before an upgrade, and of a copy of the
// server on a timeline of its own, is retired all the same, and believed for that WAL;
// but not while it signs what is stored last, wherever that is.
func TestRetireWithDeadTimelines(t *testing.T) {
	w := newWorld(t)
	put := func(r *Repo, system postgres.SystemID, tl postgres.Timeline, n int) string {
		t.Helper()
		return putOn(t, r, system, tl, n)
	}
	upgraded := signersSystem + 1
	check(t, w.writer.RegisterSystem(t.Context(), signersSystem, []byte("{}")))
	check(t, w.writer.RegisterSystem(t.Context(), upgraded, []byte("{}")))
	dead := []string{put(w.writer, signersSystem, 1, 7), put(w.writer, signersSystem, 3, 9), put(w.writer, upgraded, 2, 4)}
	put(w.writer, upgraded, 1, 5)
	_, writer := w.successor(t)
	mine := put(writer, upgraded, 1, 6)
	put(w.writer, signersSystem, 3, 10) // the copy comes to life once more
	old := w.cluster.Signing.Public()
	var still *StillSigningError
	if err := writer.Retire(t.Context(), old, testTime); !errors.As(err, &still) || !strings.HasSuffix(still.Object, "00000003000000000000000A") {
		t.Fatalf("retired although it signs: %v", err)
	}
	dead = append(dead, WALKey(signersSystem, postgres.WALName{Kind: postgres.WALSegment, Timeline: 3, Segment: "00000003000000000000000A"}))
	put(writer, upgraded, 1, 7)
	check(t, writer.Retire(t.Context(), old, testTime))
	r := w.readAgain(t, w.readerKeys())
	for _, key := range append(dead, mine) {
		if !readable(t, r, key) {
			t.Errorf("%s is not believed", key)
		}
	}
	if late := put(w.writer, signersSystem, 3, 11); readable(t, r, late) {
		t.Error("it is believed behind its cut")
	}
}

// WAL that came by a copy looks as if it had come in just now. That of a timeline which
// is over, signed by the key before the last, does not hide that a server goes on
// with the last one.
func TestRetireWhereADeadTimelineWasCopied(t *testing.T) {
	w := newWorld(t)
	check(t, w.writer.RegisterSystem(t.Context(), signersSystem, []byte("{}")))
	first := w.writer
	w.cluster, w.writer = w.successor(t)
	last := w.cluster.Signing.Public()
	_, writer := w.successor(t)
	putOn(t, w.writer, signersSystem, 1, 7)
	copied := putOn(t, first, signersSystem, 2, 9)
	var still *StillSigningError
	if err := writer.Retire(t.Context(), last, testTime); !errors.As(err, &still) || still.Object != copied {
		t.Fatalf("retired although a server goes on with it: %v", err)
	}
	putOn(t, writer, signersSystem, 1, 8)
	check(t, writer.Retire(t.Context(), last, testTime))
}

// Keys were rotated in one of two places alone: what the old one has signed behind its
// cut is not brought there, where no restore would take it.
func TestCopyToWhereTheKeyIsRetired(t *testing.T) {
	w := newWorld(t)
	check(t, w.writer.RegisterSystem(t.Context(), signersSystem, []byte("{}")))
	putSegment(t, w.writer, 1)
	_, writer := w.successor(t)
	place, err := writer.OpenCopy(t.Context(), mem.New())
	check(t, err)
	check(t, w.writer.CopySigners(t.Context(), place))
	_, err = w.writer.CopyEnvelope(t.Context(), place, putSegment(t, w.writer, 2), KindWAL)
	check(t, err)
	putSegment(t, place, 3)
	check(t, place.Retire(t.Context(), w.cluster.Signing.Public(), testTime))
	late := putSegment(t, w.writer, 4)
	var disbelieved *DisbelievedError
	if _, err := w.writer.CopyEnvelope(t.Context(), place, late, KindWAL); !errors.As(err, &disbelieved) {
		t.Errorf("copied what is not believed there: %v", err)
	}
	if _, err := place.Store().Stat(t.Context(), late); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
}

// A key is retired while its holder stores a segment. At whatever moment that happens,
// what is acknowledged is believed afterwards.
func TestStoreSure(t *testing.T) {
	first := newWorld(t)
	check(t, first.writer.RegisterSystem(t.Context(), signersSystem, []byte("{}")))
	next, writer := first.successor(t)
	putSegment(t, writer, 3)
	old := first.cluster.Signing.Public()
	segment := WALKey(signersSystem, postgres.WALName{Kind: postgres.WALSegment, Timeline: 1, Segment: "000000010000000000000002"})
	store := func(r *Repo) error {
		s, err := r.Seal(segment, KindWAL, strings.NewReader("wal"), 3, SealOptions{})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = r.StoreSure(t.Context(), s)
		return err
	}
	refused := 0
	for n := int64(1); ; n++ {
		w := *first
		w.store = copyOf(t, first.store)
		successor := w.readAgain(t, Keys{Cluster: next, Recipients: recipientsOf(t, w.recovery)})
		h := fault.New(w.store, fault.Fault{At: n, Mode: fault.Meanwhile, Do: func() { check(t, successor.Retire(t.Context(), old, testTime)) }})
		stale, err := Open(t.Context(), h, w.writerKeys(t), "db1")
		if err == nil {
			err = store(stale)
		}
		if !h.Fired() {
			check(t, err)
			break
		}
		var retired *RetiredKeyError
		if errors.As(err, &retired) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		if err == nil && !readable(t, w.readAgain(t, w.readerKeys()), segment) {
			t.Errorf("retired at %s: what is acknowledged is not believed", h.FiredAt())
		}
	}
	if refused < 2 {
		t.Errorf("only %d were refused", refused)
	}

	// The same content is there already, signed by the old key behind its cut.
	stale, fresh := first.readAgain(t, first.writerKeys(t)), first.readAgain(t, Keys{Cluster: next, Recipients: recipientsOf(t, first.recovery)})
	check(t, writer.Retire(t.Context(), old, testTime))
	_, err := stale.CreateEnvelope(t.Context(), segment, KindWAL, strings.NewReader("wal"), 3)
	check(t, err)
	var untrusted *UntrustedError
	if err := store(fresh); !errors.As(err, &untrusted) {
		t.Errorf("a segment that nobody believes is said to be there: %v", err)
	}
}

// Who opened the repository before its key was retired, and takes a lease after that,
// neither commits a backup nor pins one.
func TestRetiredKeyCommitsNothing(t *testing.T) {
	w := newWorld(t)
	_, writer := w.successor(t)
	committing, pinning := w.readAgain(t, w.writerKeys(t)), w.readAgain(t, w.writerKeys(t))
	_, err := writer.ResealAll(t.Context(), w.retiring())
	check(t, err)
	w.writer = committing
	files, packs := manifestOf(rand.New(rand.NewPCG(1, 2)))
	var retired *RetiredKeyError
	if _, err := commit(t, w, testInfo(), files, packs); !errors.As(err, &retired) {
		t.Errorf("a backup that nobody believes is committed: %v", err)
	}
	if err := pinning.SetPin(t.Context(), Pin{Label: pinned}); !errors.As(err, &retired) {
		t.Errorf("a pin that nobody believes is set: %v", err)
	}
	labels, err := writer.Backups(t.Context())
	check(t, err)
	pins, err := writer.Pins(t.Context())
	check(t, err)
	if len(labels) != 0 || len(pins) != 0 {
		t.Errorf("%q, %+v", labels, pins)
	}
}

// Statements that count for nothing, from whoever can write to the bucket.
func TestForgedStatements(t *testing.T) {
	w := newWorld(t)
	next, writer := w.successor(t)
	putSegment(t, writer, 1)
	check(t, writer.Retire(t.Context(), w.cluster.Signing.Public(), testTime))
	thief, err := NewClusterKey("shop", w.cluster.Repository)
	check(t, err)
	mine := func(number int, by SigningKey, change func(*Statement)) []byte {
		s := Statement{Format: 1, Repository: w.cluster.Repository, Cluster: "shop", Number: number, Made: testTime,
			Signer: by.Public().String(), Adds: thief.Signing.Public().String()}
		if change != nil {
			change(&s)
		}
		return s.marshal(by)
	}
	good := w.get(t, statementKey(1))
	for what, object := range map[string][]byte{
		"by the thief himself":            mine(3, *thief.Signing, nil),
		"by the retired key":              mine(3, *w.cluster.Signing, nil),
		"of another repository":           mine(3, *next.Signing, func(s *Statement) { s.Repository = NewID() }),
		"of another cluster":              mine(3, *next.Signing, func(s *Statement) { s.Cluster = "bank" }),
		"with another number":             mine(4, *next.Signing, nil),
		"that names a signer it is not":   mine(3, *thief.Signing, func(s *Statement) { s.Signer = next.Signing.Public().String() }),
		"that says two things":            mine(3, *next.Signing, func(s *Statement) { s.Retires = &Retirement{Signer: s.Adds} }),
		"that says nothing":               mine(3, *next.Signing, func(s *Statement) { s.Adds = "" }),
		"that was moved":                  good,
		"with a blank that is not signed": append(mine(3, *next.Signing, nil), ' '),
		"that is junk":                    []byte("junk"),
	} {
		check(t, w.store.Create(t.Context(), statementKey(3), bytes.NewReader(object)))
		for who, keys := range map[string]Keys{"recovery": w.readerKeys(), "new": {Cluster: next}} {
			signers, _ := w.readAgain(t, keys).Signers()
			for _, s := range signers {
				if s.Key.Equal(thief.Signing.Public()) {
					t.Errorf("%s: a statement %s is believed", who, what)
				}
			}
		}
		check(t, w.store.Delete(t.Context(), statementKey(3)))
	}
	// The same, said by who is trusted, counts: the test can fail.
	check(t, w.store.Create(t.Context(), statementKey(3), bytes.NewReader(mine(3, *next.Signing, nil))))
	if signers, _ := w.readAgain(t, w.readerKeys()).Signers(); len(signers) != 3 {
		t.Errorf("%d signers", len(signers))
	}
	// Of a later format: it could say anything.
	check(t, w.store.Create(t.Context(), statementKey(4), bytes.NewReader(mine(4, *next.Signing, func(s *Statement) { s.Format = 2 }))))
	var format *FormatError
	if _, err := Open(t.Context(), w.store, w.readerKeys(), "x"); !errors.As(err, &format) {
		t.Errorf("%v", err)
	}
}

// A statement of the old key before its retirement that its successor did not see
// is void once it is retired, whatever its number.
func TestStatementBehindTheCut(t *testing.T) {
	w := newWorld(t)
	next, writer := w.successor(t)
	putSegment(t, writer, 1)
	thief, err := NewClusterKey("shop", w.cluster.Repository)
	check(t, err)
	check(t, writer.retire(t.Context(), Retirement{Signer: w.cluster.Signing.Public().String(), WAL: []WALCut{}}, testTime))
	late := Statement{Format: 1, Repository: w.cluster.Repository, Cluster: "shop", Number: 3, Made: testTime,
		Signer: w.cluster.Signing.Public().String(), Adds: thief.Signing.Public().String()}
	check(t, w.store.Create(t.Context(), statementKey(3), bytes.NewReader(late.marshal(*w.cluster.Signing))))
	for _, keys := range []Keys{w.readerKeys(), {Cluster: next}} {
		signers, ignored := w.readAgain(t, keys).Signers()
		if len(signers) != 2 || len(ignored) != 1 || ignored[0].Number != 3 {
			t.Errorf("%v %v", signers, ignored)
		}
	}
}

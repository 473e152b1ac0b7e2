package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// KnownLocksVersion is the form of what KnownLocks.Encode writes.
const KnownLocksVersion = 1

const (
	// governanceTrust is how long a lock in the mode GOVERNANCE is believed without
	// asking again: who has the right can take it off. One in COMPLIANCE can only
	// become longer, and is believed to its end.
	governanceTrust = 24 * time.Hour

	// lockEntry is the bytes of one object: a hash of what it is, when its retention
	// ends, and until when that is believed, both in seconds since 1970.
	lockEntry = 16 + 8 + 8

	// mostLocks bounds a file: 32 MB. Those that end last stay.
	mostLocks = 1_000_000
)

// KnownLocks are the retentions of objects that a host has asked for. It may be used
// by several goroutines.
type KnownLocks struct {
	mu      sync.Mutex
	all     map[[16]byte]knownLock
	now     time.Time // of the run that asks
	changed bool
}

type knownLock struct{ until, believed int64 }

// NewKnownLocks knows nothing.
func NewKnownLocks() *KnownLocks { return &KnownLocks{all: map[[16]byte]knownLock{}} }

// ParseKnownLocks reads what Encode wrote, nil for nothing.
func ParseKnownLocks(raw []byte) (*KnownLocks, error) {
	k := NewKnownLocks()
	if len(raw)%lockEntry != 0 {
		return k, errors.New("what is known of Object Lock is not what it should be, and not used")
	}
	for e := range slices.Chunk(raw, lockEntry) {
		k.all[[16]byte(e)] = knownLock{int64(binary.BigEndian.Uint64(e[16:])), int64(binary.BigEndian.Uint64(e[24:]))}
	}
	return k, nil
}

// Encode is what is known now and was known to another process (old, from the same
// file), without what is over.
func (k *KnownLocks) Encode(old []byte) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if other, err := ParseKnownLocks(old); err == nil {
		for id, lock := range other.all {
			if _, ok := k.all[id]; !ok {
				k.all[id] = lock
			}
		}
	}
	type entry struct {
		id [16]byte
		knownLock
	}
	var keep []entry
	for id, lock := range k.all {
		if lock.believed > k.now.Unix() {
			keep = append(keep, entry{id, lock})
		}
	}
	slices.SortFunc(keep, func(a, b entry) int {
		if a.believed != b.believed {
			return int(max(-1, min(1, b.believed-a.believed)))
		}
		return bytes.Compare(a.id[:], b.id[:])
	})
	out := make([]byte, 0, min(len(keep), mostLocks)*lockEntry)
	for _, e := range keep[:min(len(keep), mostLocks)] {
		out = append(out, e.id[:]...)
		out = binary.BigEndian.AppendUint64(out, uint64(e.until))
		out = binary.BigEndian.AppendUint64(out, uint64(e.believed))
	}
	return out
}

// Changed says whether anything was learned.
func (k *KnownLocks) Changed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// lockID names an object as it was stored: one that is stored again is another.
func lockID(o storage.Info) [16]byte {
	raw := binary.BigEndian.AppendUint64([]byte(o.Key+"\x00"), uint64(o.ModTime.UnixNano()))
	raw = binary.BigEndian.AppendUint64(raw, uint64(o.Size))
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(raw, o.Tag))
	return [16]byte(sum[:16])
}

// A lock that is believed to its end is one in COMPLIANCE.
func (l knownLock) retention() storage.Retention {
	r := storage.Retention{Mode: storage.Governance, Until: time.Unix(l.until, 0)}
	if l.believed == l.until {
		r.Mode = storage.Compliance
	}
	return r
}

// holds is the retention of the object, if it is still believed.
func (k *KnownLocks) holds(o storage.Info, now time.Time) (storage.Retention, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = now
	lock, ok := k.all[lockID(o)]
	return lock.retention(), ok && lock.believed > now.Unix()
}

// add notes a retention. That there is none is not kept: it may be mended.
func (k *KnownLocks) add(o storage.Info, r storage.Retention) {
	if r.Mode != storage.Governance && r.Mode != storage.Compliance {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	lock := knownLock{r.Until.Unix(), r.Until.Unix()}
	if r.Mode == storage.Governance {
		lock.believed = min(k.now.Add(governanceTrust).Unix(), lock.until-1)
	}
	k.all[lockID(o)] = lock
	k.changed = true
}

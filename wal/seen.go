package wal

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// Headers remembers which objects of an archive had a header that holds, in 40 bytes
// each, and how the store described them: one of which size, time or tag have changed
// is read again. It is safe for concurrent use.
type Headers struct {
	trust [16]byte // who was believed: under others, nothing is known

	mu      sync.Mutex
	entries map[[16]byte]headerEntry
	changes bool
}

// headerEntry is what is remembered of one object.
type headerEntry struct {
	size   int64
	stamp  uint64 // of time and tag
	sealed uint64 // the beginning of the signed hash of the sealed bytes
	listed bool   // it was there when this process listed
}

// HeadersVersion is the version of what Encode writes.
const HeadersVersion = 1

// maxHeaders bounds what Encode writes, in objects: 30 MiB. What is left out is read
// again each time.
const maxHeaders = 786432

const entrySize = 16 + 8 + 8 + 8

// NewHeaders knows nothing yet. The trust is repo.TrustID.
func NewHeaders(trust [16]byte) *Headers {
	return &Headers{trust: trust, entries: map[[16]byte]headerEntry{}}
}

// ParseHeaders reads what Encode wrote. What was written under another trust, and
// nothing at all, knows nothing. An error when it is not of that form.
func ParseHeaders(raw []byte, trust [16]byte) (*Headers, error) {
	h := NewHeaders(trust)
	if len(raw) == 0 {
		return h, nil
	}
	if len(raw) < 16 || (len(raw)-16)%entrySize != 0 {
		return h, errors.New("read which headers were checked: the length is not one")
	}
	if !bytes.Equal(raw[:16], trust[:]) {
		return h, nil
	}
	var last []byte
	for rest := raw[16:]; len(rest) > 0; rest = rest[entrySize:] {
		if last != nil && bytes.Compare(last, rest[:16]) >= 0 {
			return NewHeaders(trust), errors.New("read which headers were checked: they are not in order")
		}
		last = rest[:16]
		h.entries[[16]byte(last)] = headerEntry{
			size:   int64(binary.BigEndian.Uint64(rest[16:])),
			stamp:  binary.BigEndian.Uint64(rest[24:]),
			sealed: binary.BigEndian.Uint64(rest[32:]),
		}
	}
	return h, nil
}

// Changed says whether there is anything that was not known before.
func (h *Headers) Changed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changes
}

// Encode is what is known now, of objects that are still there, with what another
// process has written meanwhile, which is old.
func (h *Headers) Encode(old []byte) []byte {
	also, _ := ParseHeaders(old, h.trust) // what cannot be read is read again from the store
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys [][16]byte
	for k, e := range h.entries {
		if e.listed {
			keys = append(keys, k)
		}
	}
	for k := range also.entries {
		if _, known := h.entries[k]; !known {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	keys = keys[:min(len(keys), maxHeaders)]
	out := append(make([]byte, 0, 16+len(keys)*entrySize), h.trust[:]...)
	for _, k := range keys {
		e, own := h.entries[k]
		if !own {
			e = also.entries[k]
		}
		out = append(out, k[:]...)
		out = binary.BigEndian.AppendUint64(out, uint64(e.size))
		out = binary.BigEndian.AppendUint64(out, e.stamp)
		out = binary.BigEndian.AppendUint64(out, e.sealed)
	}
	return out
}

// holds says whether the header of the object was read when the store described it
// as it does now.
func (h *Headers) holds(o storage.Info) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := shortKey(o.Key)
	e, ok := h.entries[k]
	if ok && !e.listed {
		e.listed = true
		h.entries[k] = e
	}
	return ok && e.size == o.Size && e.stamp == stampOf(o)
}

// changed is the error of an object that has another size than before under the same
// signature of its bytes: of what never changes, a part was lost or something added.
func (h *Headers) changed(o storage.Info, now repo.Header) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.entries[shortKey(o.Key)]
	if ok && e.size != o.Size && e.sealed == sealedOf(now) {
		return &repo.CorruptError{Object: o.Key, Reason: fmt.Sprintf("it has %d bytes, and had %d when this host first saw it", o.Size, e.size)}
	}
	return nil
}

func (h *Headers) add(o storage.Info, header repo.Header) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries[shortKey(o.Key)] = headerEntry{o.Size, stampOf(o), sealedOf(header), true}
	h.changes = true
}

func shortKey(key string) [16]byte {
	sum := sha256.Sum256([]byte(key))
	return [16]byte(sum[:16])
}

func stampOf(o storage.Info) uint64 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(o.ModTime.UnixNano()))
	binary.BigEndian.PutUint64(b[8:], o.Tag)
	sum := sha256.Sum256(b[:])
	return cmp.Or(binary.BigEndian.Uint64(sum[:]), 1)
}

func sealedOf(h repo.Header) uint64 {
	sum := sha256.Sum256([]byte(h.Sealed))
	return binary.BigEndian.Uint64(sum[:])
}

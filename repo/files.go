package repo

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"strings"
)

const (
	maxFiles    = 3_500_000 // file records
	maxNames    = 48 << 20  // bytes: the last elements of all paths, and each directory that holds something once
	maxDirs     = 1 << 18   // directories that hold something
	maxFilePath = 1<<16 - 1 // bytes of a path

	fileChunk = 1 << 20
)

// Files are the file records of a manifest as a restore needs them, without the
// times, IDs and sums: some 20 bytes each and their names. A directory is held once,
// whatever number of files lie in it. The same path is there once only.
//
// A value is read by any number of goroutines, once it is complete.
type Files struct {
	at     []uint32 // where each record begins in the chunks
	chunks [][]byte // of fileChunk bytes; no record crosses their ends
	names  int
	seed   maphash.Seed
	dirs   []uint32 // where their paths begin
	byDir  index
	byPath index
}

// NewFiles checks file records, each alone and that no path is there twice, and
// holds them. It refuses what no manifest can hold.
func NewFiles(n int, records iter.Seq[FileEntry]) (*Files, error) {
	if n > maxFiles {
		return nil, tooManyFiles(int64(n))
	}
	f := newFiles(n)
	for e := range records {
		if err := f.add(e); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func tooManyFiles(n int64) error {
	return fmt.Errorf("%d files and directories, at most %d are allowed", n, maxFiles)
}

// newFiles has room for n records.
func newFiles(n int) *Files {
	f := &Files{at: make([]uint32, 0, n), seed: maphash.MakeSeed(), byPath: index{slots: make([]uint32, n+n/3+1)}}
	return f
}

// add checks a record and takes it.
func (f *Files) add(e FileEntry) error {
	if err := e.Check(); err != nil {
		return err
	}
	if len(f.at) == cap(f.at) {
		return tooManyFiles(int64(len(f.at)) + 1)
	}
	dir, name := splitPath(e.Path)
	d, err := f.dir(dir)
	if err != nil {
		return err
	}
	if len(e.Path) > maxFilePath {
		return fmt.Errorf("file path %.200q has %d bytes", e.Path, len(e.Path))
	}
	slot, _, there := f.byPath.find(maphash.String(f.seed, e.Path), func(i uint32) bool { return f.is(int(i), d, name) })
	if there {
		return fmt.Errorf("file %.200q is there twice", e.Path)
	}
	if err := f.count(len(name)); err != nil {
		return err
	}
	f.byPath.slots[slot] = uint32(len(f.at)) + 1
	var head [2 + 3*binary.MaxVarintLen64]byte
	mode := uint16(e.Mode)
	if e.Type == Dir {
		mode |= dirBit
	}
	b := binary.LittleEndian.AppendUint16(head[:0], mode)
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = binary.AppendUvarint(b, uint64(d))
	b = binary.AppendUvarint(b, uint64(len(name)))
	f.at = append(f.at, f.store(b, name))
	return nil
}

// dirBit stands among the bits of a mode, of which a record has nine.
const dirBit = 1 << 15

// splitPath cuts a path at its last slash; dir is "" for what lies at the top.
func splitPath(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

func (f *Files) count(n int) error {
	if f.names += n; f.names > maxNames {
		return fmt.Errorf("the names of its files have more than %d bytes", maxNames)
	}
	return nil
}

// dir is the number of a directory that holds something.
func (f *Files) dir(p string) (uint32, error) {
	h := maphash.String(f.seed, p)
	same := func(i uint32) bool { return string(f.dirPath(i)) == p }
	if len(f.dirs)*4 >= len(f.byDir.slots)*3 {
		f.byDir.grow(func(i uint32) uint64 { return maphash.Bytes(f.seed, f.dirPath(i)) })
	}
	slot, i, there := f.byDir.find(h, same)
	if there {
		return i, nil
	}
	if len(f.dirs) == maxDirs {
		return 0, fmt.Errorf("more than %d directories that hold something", maxDirs)
	}
	if len(p) > maxFilePath {
		return 0, fmt.Errorf("file path %.200q has %d bytes", p, len(p))
	}
	if err := f.count(len(p)); err != nil {
		return 0, err
	}
	f.byDir.slots[slot] = uint32(len(f.dirs)) + 1
	f.dirs = append(f.dirs, f.store(binary.AppendUvarint(nil, uint64(len(p))), p))
	return uint32(len(f.dirs) - 1), nil
}

func (f *Files) dirPath(i uint32) []byte {
	b := f.from(f.dirs[i])
	n, k := binary.Uvarint(b)
	return b[k : k+int(n)]
}

// store appends bytes to the last chunk, or to a new one where they do not fit.
func (f *Files) store(head []byte, text string) uint32 {
	last := len(f.chunks) - 1
	if last < 0 || len(f.chunks[last])+len(head)+len(text) > fileChunk {
		f.chunks = append(f.chunks, make([]byte, 0, fileChunk))
		last++
	}
	at := last*fileChunk + len(f.chunks[last])
	f.chunks[last] = append(append(f.chunks[last], head...), text...)
	return uint32(at)
}

func (f *Files) from(at uint32) []byte { return f.chunks[at/fileChunk][at%fileChunk:] }

// record is one as it is held.
type record struct {
	mode uint16
	size int64
	dir  uint32
	name []byte
}

func (f *Files) record(i int) record {
	b := f.from(f.at[i])
	r := record{mode: binary.LittleEndian.Uint16(b)}
	b = b[2:]
	size, n := binary.Uvarint(b)
	b = b[n:]
	dir, n := binary.Uvarint(b)
	b = b[n:]
	length, n := binary.Uvarint(b)
	r.size, r.dir, r.name = int64(size), uint32(dir), b[n:n+int(length)]
	return r
}

func (f *Files) is(i int, dir uint32, name string) bool {
	r := f.record(i)
	return r.dir == dir && string(r.name) == name
}

// Len is how many there are.
func (f *Files) Len() int { return len(f.at) }

// At is the i-th record, from 0 on.
func (f *Files) At(i int) FileEntry {
	r := f.record(i)
	e := FileEntry{Type: Regular, Path: string(r.name), Mode: uint32(r.mode &^ dirBit), Size: r.size}
	if r.mode&dirBit != 0 {
		e.Type = Dir
	}
	if dir := f.dirPath(r.dir); len(dir) > 0 {
		e.Path = string(dir) + "/" + e.Path
	}
	return e
}

// Size is how many bytes the i-th file has; -1 for a directory, and where there is none.
func (f *Files) Size(i int) int64 {
	if i < 0 || i >= len(f.at) {
		return -1
	}
	r := f.record(i)
	if r.mode&dirBit != 0 {
		return -1
	}
	return r.size
}

// All yields all records in their order.
func (f *Files) All() iter.Seq2[int, FileEntry] {
	return func(yield func(int, FileEntry) bool) {
		for i := range f.at {
			if !yield(i, f.At(i)) {
				return
			}
		}
	}
}

// Find is the record of a path.
func (f *Files) Find(p string) (FileEntry, bool) {
	dir, name := splitPath(p)
	_, d, there := f.byDir.find(maphash.String(f.seed, dir), func(i uint32) bool { return string(f.dirPath(i)) == dir })
	if !there {
		return FileEntry{}, false
	}
	_, i, there := f.byPath.find(maphash.String(f.seed, p), func(i uint32) bool { return f.is(int(i), d, name) })
	if !there {
		return FileEntry{}, false
	}
	return f.At(int(i)), true
}

// Parents yields each directory that holds something once, but for the top.
func (f *Files) Parents() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f.dirs {
			if p := f.dirPath(uint32(i)); len(p) > 0 && !yield(string(p)) {
				return
			}
		}
	}
}

// index is a hash table of numbers, with open addressing. The zero value holds nothing.
type index struct {
	slots []uint32 // 0 is free, else the number and 1; never all taken
}

// find is where a number that is the same stands, or where it would.
func (x *index) find(hash uint64, same func(uint32) bool) (slot int, number uint32, there bool) {
	if len(x.slots) == 0 {
		return 0, 0, false
	}
	slot = int(hash % uint64(len(x.slots)))
	for x.slots[slot] != 0 {
		if n := x.slots[slot] - 1; same(n) {
			return slot, n, true
		}
		if slot++; slot == len(x.slots) {
			slot = 0
		}
	}
	return slot, 0, false
}

func (x *index) grow(hash func(uint32) uint64) {
	old := x.slots
	x.slots = make([]uint32, max(64, 2*len(old)))
	for _, n := range old {
		if n != 0 {
			slot, _, _ := x.find(hash(n-1), func(uint32) bool { return false })
			x.slots[slot] = n
		}
	}
}

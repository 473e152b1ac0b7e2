package repo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// spool holds written bytes for reading again and again: in memory up to a
// limit, beyond it in an unlinked temporary file. So the size of a body never
// decides the memory.
type spool struct {
	limit  int64
	chunks [][]byte
	file   *os.File
	size   int64
	pool   *sync.Pool // of chunks, for a caller with many spools; may be nil
}

const (
	spoolChunk  = 1 << 20
	spoolMemory = 24 << 20
)

func newSpool() *spool { return &spool{limit: spoolMemory} }

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.size+int64(len(p)) > s.limit {
		if err := s.toFile(); err != nil {
			return 0, err
		}
	}
	if s.file != nil {
		n, err := s.file.WriteAt(p, s.size)
		s.size += int64(n)
		return n, err
	}
	for rest := p; len(rest) > 0; {
		last := len(s.chunks) - 1
		if last < 0 || len(s.chunks[last]) == spoolChunk {
			s.chunks = append(s.chunks, s.newChunk())
			last++
		}
		n := min(len(rest), spoolChunk-len(s.chunks[last]))
		s.chunks[last] = append(s.chunks[last], rest[:n]...)
		rest = rest[n:]
	}
	s.size += int64(len(p))
	return len(p), nil
}

// newChunk makes the next chunk, or takes one that was used before. A first one
// that is new grows as needed: most bodies are a few KiB.
func (s *spool) newChunk() []byte {
	if s.pool != nil {
		if c, ok := s.pool.Get().(*[spoolChunk]byte); ok {
			return c[:0]
		}
	}
	if len(s.chunks) == 0 {
		return nil
	}
	return make([]byte, 0, spoolChunk)
}

// free gives the chunks back.
func (s *spool) free() {
	for _, c := range s.chunks {
		if s.pool != nil && cap(c) >= spoolChunk {
			s.pool.Put((*[spoolChunk]byte)(c[:spoolChunk]))
		}
	}
	s.chunks = nil
}

// memory is how many bytes of memory it holds.
func (s *spool) memory() int64 { return int64(len(s.chunks)) * spoolChunk }

func (s *spool) toFile() error {
	f, err := os.CreateTemp("", "lifeboat-spool-")
	if err != nil {
		return fmt.Errorf("make temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return fmt.Errorf("unlink temporary file: %w", err)
	}
	for _, c := range s.chunks {
		if _, err := f.Write(c); err != nil {
			f.Close()
			return fmt.Errorf("write temporary file: %w", err)
		}
	}
	s.free()
	s.file = f
	return nil
}

// Close frees the memory or the file; the spool is empty then.
func (s *spool) Close() error {
	f := s.file
	s.free()
	s.file, s.size = nil, 0
	if f == nil {
		return nil
	}
	return f.Close()
}

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	n := 0
	for n < len(p) && off < s.size {
		c := s.chunks[off/spoolChunk]
		m := copy(p[n:], c[off%spoolChunk:])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Reader reads all of it from the start.
func (s *spool) Reader() *io.SectionReader { return io.NewSectionReader(s, 0, s.size) }

// body is a header followed by a spool, as one seekable reader. A store may
// read on for a moment after it has answered, as net/http does when a server
// refuses early: end keeps it from a spool that is used for something else.
type body struct {
	head []byte
	rest *spool
	off  int64

	mu    sync.Mutex
	ended bool
}

// end fails every later Read. It returns when none is under way.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errors.New("read after the end of storing")
	}
	if b.off < int64(len(b.head)) {
		n := copy(p, b.head[b.off:])
		b.off += int64(n)
		return n, nil
	}
	n, err := b.rest.ReadAt(p, b.off-int64(len(b.head)))
	b.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Seek implements io.Seeker.
func (b *body) Seek(off int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		off += b.off
	case io.SeekEnd:
		off += int64(len(b.head)) + b.rest.size
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	b.off = off
	return off, nil
}

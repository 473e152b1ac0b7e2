package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// maxSmallFile is the most bytes that a timeline history file or a backup
// history file may have.
const maxSmallFile = 1 << 20

// PushOptions says what a pushed file must be.
type PushOptions struct {
	// System is the system identifier that the segment must carry. It may be
	// 0, then the segment's own counts; files without a header need it.
	System postgres.SystemID
	// SegmentSize is what the cluster's control file tells; 0 trusts the
	// header of the segment.
	SegmentSize postgres.SegmentSize
}

// ChangedError says that a file was not the same, or not as long, at the end
// of reading as at the start. Nothing was stored.
type ChangedError struct{ Path, Reason string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s changed while it was read: %s", e.Path, e.Reason)
}

// TwoPrimariesError says that the archive holds other content under the name
// of the pushed file. Nothing was replaced.
type TwoPrimariesError struct {
	Name string
	*repo.ConflictError
}

func (e *TwoPrimariesError) Error() string {
	c := e.ConflictError
	if c.SHA256 == "" {
		return fmt.Sprintf("another %s is archived already, by host %s, and %s has not come to its end: "+
			"two primaries may be archiving to one repository, or one was put back", e.Name, c.HaveHost, c.Host)
	}
	return fmt.Sprintf("another %s is archived already; two primaries may be archiving to one repository: "+
		"host %s stored sha256 %s (%d bytes), host %s has sha256 %s (%d bytes)",
		e.Name, c.HaveHost, c.HaveSHA256, c.HaveSize, c.Host, c.SHA256, c.WantedSize)
}

func (e *TwoPrimariesError) Unwrap() error { return e.ConflictError }

// Push archives the file at path: a WAL segment, a partial segment, a timeline
// history file or a backup history file, told by its name. It returns nil
// only after the store has acknowledged the object, or when the very same
// content is stored already, and its signer is believed even then. What is there
// is never replaced: *TwoPrimariesError. *HeaderError when a segment is not what
// its name says; *ChangedError when the file is written to meanwhile. A segment of
// which slices are stored must hold the same bytes: *TwoPrimariesError too. After
// an error the archive holds nothing new of it, or all of it.
func Push(ctx context.Context, r *repo.Repo, path string, o PushOptions) (repo.Stored, error) {
	src, err := openSource(path)
	if err != nil {
		return repo.Stored{}, fmt.Errorf("push %s: %w", filepath.Base(path), err)
	}
	f, err := src.seal(ctx, r, o, repo.SealOptions{})
	if err != nil {
		return repo.Stored{}, err
	}
	defer f.Close()
	return f.store(ctx, r)
}

// sealedFile is a file that can be stored.
type sealedFile struct {
	*repo.Sealed
	src    *source
	name   postgres.WALName
	system postgres.SystemID
	facts  fileFacts    // when it was opened
	slices *slicesCheck // nil for what is no whole segment
}

// seal checks the file and makes the envelope of it. Meanwhile a whole segment
// is held against its slices. Closing the result closes the source; after an
// error it is closed already.
func (s *source) seal(ctx context.Context, r *repo.Repo, o PushOptions, so repo.SealOptions) (*sealedFile, error) {
	f := &sealedFile{src: s, facts: s.facts}
	if err := f.seal(ctx, r, o, so); err != nil {
		f.Close()
		return nil, fmt.Errorf("push %s: %w", s.Name(), err)
	}
	return f, nil
}

func (f *sealedFile) seal(ctx context.Context, r *repo.Repo, o PushOptions, so repo.SealOptions) (err error) {
	if f.name, err = postgres.ParseWALName(filepath.Base(f.src.Name())); err != nil {
		return err
	}
	system, body, err := f.src.check(f.name, o)
	if err != nil {
		return err
	}
	f.system = system
	if f.name.Kind == postgres.WALSegment {
		f.slices = beginSlicesCheck(ctx, r, system, f.name, f.src.File, f.src.size)
	}
	f.Sealed, err = r.Seal(repo.WALKey(system, f.name), repo.KindWAL, &endingReader{ctx, body}, f.src.size, so)
	return err
}

// Close frees what the file takes. The second call does nothing.
func (f *sealedFile) Close() {
	if f.slices != nil {
		f.slices.cancel()
	}
	if f.Sealed != nil {
		_ = f.Sealed.Close()
	}
	_ = f.src.Close()
}

func (f *sealedFile) store(ctx context.Context, r *repo.Repo) (stored repo.Stored, err error) {
	if f.slices != nil {
		err = f.slices.wait(ctx)
	}
	if err == nil {
		stored, err = r.StoreSure(ctx, f.Sealed)
	}
	return stored, storeError("push", f.name.String(), err)
}

// storeError names what was being done with which file; what is archived
// otherwise already is *TwoPrimariesError, which tells all by itself.
func storeError(doing, name string, err error) error {
	if _, told := errors.AsType[*TwoPrimariesError](err); told {
		return err
	}
	if conflict, ok := errors.AsType[*repo.ConflictError](err); ok {
		return &TwoPrimariesError{name, conflict}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, name, err)
	}
	return nil
}

// endingReader ends with its context: to seal 1 GiB takes seconds, and a server
// that shuts down does not wait so long.
type endingReader struct {
	ctx context.Context
	io.Reader
}

func (r *endingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// source is a file being pushed. Its Read fails, instead of ending, when the
// file is not at the end what it was at the start.
type source struct {
	*os.File
	size    int64
	modTime time.Time
	facts   fileFacts
	read    int64
}

// openSource opens a regular file. Anything else, such as a pipe that nobody
// writes to, must not block.
func openSource(path string, flags ...int) (*source, error) {
	mode := os.O_RDONLY | syscall.O_NONBLOCK
	for _, f := range flags {
		mode |= f
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &source{File: f, size: info.Size(), modTime: info.ModTime(), facts: factsOf(info)}, nil
}

// check holds the file against its name and returns the system it belongs to
// and all its bytes to read.
func (s *source) check(name postgres.WALName, o PushOptions) (postgres.SystemID, io.Reader, error) {
	if name.Kind == postgres.WALHistory || name.Kind == postgres.WALBackup {
		switch {
		case s.size > maxSmallFile:
			return 0, nil, fmt.Errorf("a %s of %d bytes; at most %d are expected", name.Kind, s.size, maxSmallFile)
		case s.size == 0:
			return 0, nil, fmt.Errorf("the %s is empty", name.Kind)
		case o.System == 0:
			return 0, nil, fmt.Errorf("a %s does not tell its system: the system identifier is needed", name.Kind)
		}
		return o.System, s, nil
	}
	first, body, err := peek(s, postgres.SegmentHeaderSize)
	if err != nil {
		return 0, nil, err
	}
	h, err := checkSegment(name, first, s.size, o)
	return h.SystemID, body, err
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.File.Read(p)
	s.read += int64(n)
	if err != io.EOF && s.read <= s.size {
		return n, err
	}
	info, err := s.File.Stat()
	switch {
	case err != nil:
		return n, err
	case s.read != s.size || info.Size() != s.size:
		return n, &ChangedError{s.Name(), fmt.Sprintf("it had %d bytes, and has %d", s.size, max(s.read, info.Size()))}
	case !info.ModTime().Equal(s.modTime):
		return n, &ChangedError{s.Name(), "it was written to"}
	}
	return n, io.EOF
}

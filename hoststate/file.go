package hoststate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// MaxSize is the largest content of a file, in bytes. A larger one is not written,
// and one that is found counts as broken.
const MaxSize = 32 << 20

// newSuffix ends the name of a file that is being written. What a crash left is
// replaced by the next write.
const newSuffix = ".new"

// BrokenError says that a file is there and is not what this version of Lifeboat
// wrote: it counts as absent.
type BrokenError struct {
	Path   string
	Reason string // never a part of the content
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("%s is not used: %s", e.Path, e.Reason)
}

// Read returns the content of a file that Update wrote for the same version. It is
// nil without an error when there is none, and nil with a *BrokenError when what is
// there cannot be used. Readers need no lock: files are replaced whole.
func (d *Dir) Read(name string, version int) ([]byte, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%q is no name of a state file", name)
	}
	in, err := d.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of this host: %w", err)
	}
	defer in.Close()
	return d.read(in, name, version)
}

func (d *Dir) read(in *os.Root, name string, version int) ([]byte, error) {
	f, err := openRegular(in, name, os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, errNotRegular):
		return nil, d.broken(name, errNotRegular.Error())
	case err != nil:
		return nil, fmt.Errorf("read the state of this host: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxSize+maxHeader+1))
	if err != nil {
		return nil, fmt.Errorf("read the state of this host: %w", err)
	}
	content, reason := decode(raw, name, version)
	if reason != "" {
		return nil, d.broken(name, reason)
	}
	return content, nil
}

var errNotRegular = errors.New("it is not a regular file")

// openRegular opens a regular file, and nothing that a link leads to or that would
// make it wait.
func openRegular(in *os.Root, name string, flag int) (*os.File, error) {
	seen, err := in.Lstat(name)
	if err == nil && !seen.Mode().IsRegular() {
		return nil, errNotRegular
	}
	if err != nil && (flag&os.O_CREATE == 0 || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	f, err := in.OpenFile(name, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	// What was put in its place since is another file.
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || seen != nil && !os.SameFile(seen, info)) {
		err = errNotRegular
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (d *Dir) broken(name, reason string) error { return &BrokenError{d.Path(name), reason} }

// Update replaces a file by what change makes of its content, nil when there is none
// or none that can be used. A nil result of change leaves the file as it is. Nobody
// else writes files of this repository meanwhile, so change must not take long. After
// an error the file is the old one or the new one, whole.
func (d *Dir) Update(ctx context.Context, name string, version int, change func(old []byte) ([]byte, error)) error {
	if !validName(name) || name == lockFile || strings.HasSuffix(name, newSuffix) {
		return fmt.Errorf("%q is no name of a state file", name)
	}
	in, err := d.open(true)
	if err != nil {
		return fmt.Errorf("write the state of this host: %w", err)
	}
	defer in.Close()
	held, err := lock(ctx, in)
	if err != nil {
		return fmt.Errorf("write the state of this host: %w", err)
	}
	defer held.Close()
	old, err := d.read(in, name, version)
	if _, broken := errors.AsType[*BrokenError](err); err != nil && !broken {
		return err
	}
	content, err := change(old)
	if err != nil || content == nil {
		return err
	}
	if len(content) > MaxSize {
		return fmt.Errorf("write the state of this host: %s would have %d bytes, and %d are the most", d.Path(name), len(content), MaxSize)
	}
	if err := replace(in, name, encode(content, name, version)); err != nil {
		return fmt.Errorf("write the state of this host: %w", err)
	}
	return nil
}

// replace writes a file beside, brings it to disk and renames it.
func replace(in *os.Root, name string, raw []byte) (err error) {
	temp := name + newSuffix
	if err := in.RemoveAll(temp); err != nil {
		return err
	}
	f, err := in.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = in.Remove(temp)
		}
	}()
	_, err = f.Write(raw)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := ownLikeParent(in, temp); err != nil {
		return err
	}
	if info, err := in.Lstat(name); err == nil && info.IsDir() {
		if err := in.RemoveAll(name); err != nil { // rename(2) replaces no directory by a file
			return err
		}
	}
	if err := in.Rename(temp, name); err != nil {
		return err
	}
	dir, err := in.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// magic begins each file, so that a later version can tell.
const magic = "lifeboat-state 1"

// maxHeader is more than the first line of a file can have.
const maxHeader = 512

// header is the first line: which file it is, in which version, and the sum of the rest.
func header(content []byte, name string, version int) string {
	return fmt.Sprintf("%s %s %d %x\n", magic, name, version, sha256.Sum256(content))
}

func encode(content []byte, name string, version int) []byte {
	return append([]byte(header(content, name, version)), content...)
}

// decode accepts exactly what encode writes. The reason is "" then.
func decode(raw []byte, name string, version int) (content []byte, reason string) {
	line, content, ok := bytes.Cut(raw, []byte("\n"))
	switch {
	case !ok || !bytes.HasPrefix(line, []byte(magic+" ")):
		return nil, "it is not a file of this version of Lifeboat"
	case len(content) > MaxSize:
		return nil, "it is too large"
	case string(line)+"\n" != header(content, name, version):
		return nil, "it is damaged, or of another version of Lifeboat"
	}
	return content, ""
}

// ReadJSON is Read of a file that UpdateJSON wrote. The value is the zero one when
// there is no file, or none that can be used.
func ReadJSON[T any](d *Dir, name string, version int) (T, error) {
	raw, err := d.Read(name, version)
	if err != nil || raw == nil {
		return *new(T), err
	}
	return parse[T](d, name, raw)
}

func parse[T any](d *Dir, name string, raw []byte) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return *new(T), d.broken(name, "it holds something else than it should") // the error could quote it
	}
	return v, nil
}

// UpdateJSON is Update of a value. change works on the zero value when there is no
// file that can be used, and says whether the value is to be written.
func UpdateJSON[T any](ctx context.Context, d *Dir, name string, version int, change func(*T) bool) error {
	return d.Update(ctx, name, version, func(old []byte) ([]byte, error) {
		var v T
		if old != nil {
			if known, err := parse[T](d, name, old); err == nil {
				v = known
			}
		}
		if !change(&v) {
			return nil, nil
		}
		return json.Marshal(v)
	})
}

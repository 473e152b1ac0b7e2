package wal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

const (
	// pushedDir is the directory of what is remembered, within SpoolDir.
	pushedDir = "pushed"

	// pushedMagic begins each memory, so that a later version can tell.
	pushedMagic = "lifeboat-pushed 1"

	// pushedAge is how long a memory counts. PostgreSQL asks within seconds. A
	// memory that was left over, while somebody emptied the repository and
	// made it again, must not speak for what is there now.
	pushedAge = 10 * time.Minute

	// pushedYoung is how old the last change of a file must be when it is
	// opened, to be remembered: the clock of a file system ticks, and two
	// changes within one tick look like one.
	pushedYoung = 50 * time.Millisecond

	// pushedTemp begins the names of memories that are being written.
	pushedTemp = "new-"
)

// fileFacts tell a file from every other and from itself after any change. The
// zero value is of no file: nothing is known of it.
type fileFacts struct {
	dev, inode        uint64
	size              int64
	modified, changed int64 // nanoseconds since 1970
}

// settled says whether a change of the file after now would show in its facts.
// A time of whole seconds is of a file system that counts no finer.
func (f fileFacts) settled(now time.Time) bool {
	return f != (fileFacts{}) && f.changed%int64(time.Second) != 0 &&
		now.Sub(time.Unix(0, max(f.changed, f.modified))) >= pushedYoung
}

// PushMemory remembers which files of a data directory's pg_wal are durable in
// a repository, so that a push of one of them need not ask the store. It lies
// in SpoolDir, one small file for each WAL file, and is only ever a help: what
// cannot be written, or read, or does not fit in every detail, is forgotten.
//
// A memory holds for one repository at one address, one system, one file name,
// and for the very file that was read: device, inode, size and both times. A
// copied or restored data directory, a segment that was recycled and a file
// that was written to have others.
type PushMemory struct {
	DataDir    string
	Name       string // tells it from those of other repositories of the data directory; "" for the only one
	Repository string // its id
	Address    string // where it is, and all else that decides it
	System     postgres.SystemID
	Now        func() time.Time
}

// Recall says whether the file at path is remembered as durable, and with
// which SHA-256. Files outside of pg_wal never are.
func (m PushMemory) Recall(path string) (sum string, known bool) {
	if !m.covers(path) {
		return "", false
	}
	name, err := postgres.ParseWALName(filepath.Base(path))
	if err != nil {
		return "", false
	}
	return m.recall(name)
}

// covers says whether path names a file right in pg_wal.
func (m PushMemory) covers(path string) bool {
	if m.Repository == "" {
		return false // two without an id would be one
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false
	}
	wal, err := os.Stat(m.walDir())
	return err == nil && os.SameFile(dir, wal)
}

func (m PushMemory) walDir() string { return filepath.Join(m.DataDir, "pg_wal") }

func (m PushMemory) dir() string {
	dir := pushedDir
	if m.Name != "" {
		dir += "." + m.Name
	}
	return filepath.Join(m.DataDir, SpoolDir, dir)
}

// facts of a file in pg_wal as it is now.
func (m PushMemory) facts(name postgres.WALName) fileFacts {
	info, err := os.Lstat(filepath.Join(m.walDir(), name.String()))
	if err != nil {
		return fileFacts{}
	}
	return factsOf(info)
}

func (m PushMemory) recall(name postgres.WALName) (sum string, known bool) {
	sum, age, known := m.look(name)
	return sum, known && age <= pushedAge
}

// look says what is remembered, however old.
func (m PushMemory) look(name postgres.WALName) (sum string, age time.Duration, known bool) {
	facts := m.facts(name)
	if facts == (fileFacts{}) {
		return "", 0, false
	}
	text, err := readSmall(filepath.Join(m.dir(), name.String()))
	if err != nil {
		return "", 0, false
	}
	sum, at, err := parsePushed(text, m.subject(name, facts))
	age = m.Now().Sub(at)
	return sum, age, err == nil && age >= 0
}

// readSmall reads a file that is no link, up to what a memory has at most.
func readSmall(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return string(text), err
}

// subject is what a memory is about, in one line.
func (m PushMemory) subject(name postgres.WALName, f fileFacts) string {
	address := sha256.Sum256([]byte(m.Address))
	return fmt.Sprintf("repository=%s address=%x system=%s file=%s device=%d inode=%d size=%d modified=%d changed=%d",
		m.Repository, address, m.System, name, f.dev, f.inode, f.size, f.modified, f.changed)
}

// pushedText is a memory: what it is about, the hash of the file and the time,
// and a sum over all of it, because nothing is synced and a crash of the
// machine may leave any bytes.
func pushedText(subject, sum string, at time.Time) string {
	text := fmt.Sprintf("%s\n%s\nsha256=%s at=%d\n", pushedMagic, subject, sum, at.UnixNano())
	check := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%s%x\n", text, check)
}

// parsePushed accepts exactly what pushedText writes about the subject.
func parsePushed(text, subject string) (sum string, at time.Time, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 {
		return "", at, errors.New("not a memory of a push")
	}
	var ns int64
	if _, err := fmt.Sscanf(lines[2], "sha256=%s at=%d", &sum, &ns); err != nil {
		return "", at, err
	}
	at = time.Unix(0, ns)
	if raw, err := hex.DecodeString(sum); err != nil || len(raw) != sha256.Size || pushedText(subject, sum, at) != text {
		return "", at, errors.New("a memory of another push")
	}
	return sum, at, nil
}

// remember notes that the file of these facts, which was opened after the given
// moment, is durable. It must be called only after the store has acknowledged
// it. An error means that nothing, or what was there before, is remembered.
func (m PushMemory) remember(name postgres.WALName, f fileFacts, opened time.Time, sum string) error {
	if !f.settled(opened) {
		return errors.New("the file may still change without a trace")
	}
	if f != m.facts(name) {
		return errors.New("the file is not the one that was stored")
	}
	for _, dir := range []string{filepath.Dir(m.dir()), m.dir()} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	temp, err := os.CreateTemp(m.dir(), pushedTemp)
	if err != nil {
		return err
	}
	_, err = temp.WriteString(pushedText(m.subject(name, f), sum, m.Now()))
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), filepath.Join(m.dir(), name.String()))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// prune forgets all files but those that PostgreSQL still wants archived, and
// removes what killed pushes left.
func (m PushMemory) prune(ready map[string]bool) {
	entries, err := os.ReadDir(m.dir())
	if err != nil {
		return
	}
	for _, e := range entries {
		if ready[e.Name()] {
			continue
		}
		if strings.HasPrefix(e.Name(), pushedTemp) {
			info, err := e.Info()
			if err != nil || m.Now().Sub(info.ModTime()) < pushedAge {
				continue // another push may be writing it
			}
		}
		_ = os.Remove(filepath.Join(m.dir(), e.Name())) // another push may have done it
	}
}

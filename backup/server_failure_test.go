package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// onPhase runs f once, when the backup comes to a phase.
func onPhase(o *backup.Options, phase string, f func()) {
	var once sync.Once
	o.Observe = func(p backup.Progress) {
		if p.Phase == phase {
			once.Do(f)
		}
	}
}

// A tablespace that is made after the server was asked who it is, and before
// the start of the backup: its record is in no WAL that is replayed.
func TestTablespaceMadeJustBeforeTheStart(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	dir := filepath.Join(t.TempDir(), "ts")
	check(t, os.Mkdir(dir, 0o700))
	o := b.options()
	onPhase(&o, "checkpoint", func() {
		b.Exec(t, "create tablespace late location '"+dir+"'")
		b.Exec(t, "create table l tablespace late as select 1 x")
	})
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	if len(info.Tablespaces) != 1 || info.Tablespaces[0].Path != dir {
		t.Errorf("tablespaces of the backup: %+v", info.Tablespaces)
	}
	if path := b.QueryString(t, "select pg_relation_filepath('l')"); len(b.contents(t, info.Label)[path]) != 8192 {
		t.Errorf("%s is not in the backup", path)
	}
}

// Archiving stops working while the files are copied: without the WAL up to
// the stop there is no backup. What it has stored is not sent again.
func TestArchivingFailsDuringTheCopy(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	command := b.QueryString(t, "show archive_command")
	o := b.options()
	o.WALTimeout = 3 * time.Second
	onPhase(&o, "copy", func() { b.Setting(t, "archive_command", "false") })
	_, err := backup.Run(context.Background(), b.repo, o)
	if _, ok := errors.AsType[*backup.ArchivingError](err); !ok {
		t.Errorf("got %v, want an ArchivingError", err)
	}
	labels, err := b.repo.Backups(context.Background())
	check(t, err)
	if len(labels) != 0 {
		t.Errorf("backups %v exist", labels)
	}
	// Nothing is used of the control file's, nor of that of postgresql.conf if it was
	// copied once more because the setting made it longer.
	stored := len(b.packs(t)) - 1
	b.Setting(t, "archive_command", command)
	info := b.run(t)
	again := func(n int) bool {
		return strings.Contains(info.ChangesWhy, fmt.Sprintf("%d packs of the interrupted", n))
	}
	if stored < 2 || !again(stored) && !again(stored-1) || info.ChangedBytes > info.RawBytes/20 {
		t.Errorf("%d packs were stored; then %d of %d bytes were sent: %s", stored, info.ChangedBytes, info.RawBytes, info.ChangesWhy)
	}
}

// The time limits that a server has for its users do not end a backup, which
// idles on its connection while it copies.
func TestServerTimeoutsDoNotEndTheBackup(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{Settings: map[string]string{
		"idle_session_timeout": "900ms", "idle_in_transaction_session_timeout": "900ms", "statement_timeout": "900ms", "lock_timeout": "900ms"}})
	o := b.options()
	onPhase(&o, "copy", func() {
		// Longer than each limit; the sessions of this test itself are cut.
		time.Sleep(1500 * time.Millisecond)
	})
	_, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
}

// A file that cannot be read fails the backup: nothing is left out in silence.
func TestUnreadableFileEndsTheBackup(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	b.Exec(t, "create table t as select 1 x; checkpoint")
	for _, size := range []int{10, 3 << 20} { // together with others, and on its own
		path := filepath.Join(b.DataDir(), "base", fmt.Sprint(size))
		check(t, os.WriteFile(path, make([]byte, size), 0o200))
		_, err := backup.Run(context.Background(), b.repo, b.options())
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "base/"+fmt.Sprint(size)) {
			t.Errorf("%d bytes: %v", size, err)
		}
		check(t, os.Remove(path))
	}
	labels, err := b.repo.Backups(context.Background())
	check(t, err)
	if len(labels) != 0 {
		t.Errorf("backups %v exist", labels)
	}
}

// Names that some format or shell would trip over, files of no bytes, and
// links of all kinds.
func TestOddNamesAndLinks(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	at := func(name string) string { return filepath.Join(b.DataDir(), name) }
	names := []string{"back\\slash", "a=b", "[section]", "#comment", "quote'\"", "blank at end ", "über", "tmp", "x.tmp", "%p", "new\nline"}
	for _, name := range names {
		check(t, os.WriteFile(at(name), []byte("in "+name), 0o600))
	}
	// No text can hold this name.
	check(t, os.WriteFile(at("latin\xfc"), []byte("in latin"), 0o600))
	check(t, os.WriteFile(at("nothing"), nil, 0o600))
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("outside"), 0o600))
	check(t, os.Mkdir(filepath.Join(outside, "directory"), 0o700))
	check(t, os.WriteFile(filepath.Join(outside, "directory", "inner"), []byte("inner"), 0o600))
	for name, to := range map[string]string{"to_file": filepath.Join(outside, "file"), "to_link": "to_file", "to_directory": filepath.Join(outside, "directory"),
		"circle": "circle", "nowhere": "/nowhere/at/all"} {
		check(t, os.Symlink(to, at(name)))
	}
	var warned []string
	o := b.options()
	o.Warn = func(s string) { warned = append(warned, s) }
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	got := b.contents(t, info.Label)
	for _, name := range names {
		if string(got[name]) != "in "+name {
			t.Errorf("%q holds %q", name, got[name])
		}
	}
	for path, want := range map[string]string{"nothing": "", "to_file": "outside", "to_link": "outside", "to_directory/inner": "inner", "latin\xfc": "in latin"} {
		if have, ok := got[path]; !ok || string(have) != want {
			t.Errorf("%q holds %q, %t", path, have, ok)
		}
	}
	all := strings.Join(warned, "\n")
	for _, name := range []string{"circle", "nowhere", "to_directory"} {
		if !strings.Contains(all, name) {
			t.Errorf("no warning of %s: %s", name, all)
		}
	}
}

// A file is cut to nothing after it was listed, as truncate does.
func TestFileCutToNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	sizes := map[string]int{"zz_small": 100, "zz_large": 3 << 20}
	for name, size := range sizes {
		check(t, os.WriteFile(filepath.Join(b.DataDir(), name), make([]byte, size), 0o600))
	}
	o := b.options()
	o.Jobs = 1
	onPhase(&o, "copy", func() {
		for name := range sizes {
			check(t, os.Truncate(filepath.Join(b.DataDir(), name), 0))
		}
	})
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	// contents fails for a file that is not all there.
	if got := b.contents(t, info.Label); len(got["zz_small"]) != 0 || got["zz_large"] == nil {
		t.Errorf("%d and %d bytes", len(got["zz_small"]), len(got["zz_large"]))
	}
}

// together is a store in which the first Create of a pack waits for a second.
type together struct {
	storage.Store
	mu    sync.Mutex
	packs int
	both  chan struct{}
	alone bool
}

func (s *together) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if strings.HasPrefix(key, "packs/") {
		s.mu.Lock()
		if s.packs++; s.packs == 2 {
			close(s.both)
		}
		s.mu.Unlock()
		select {
		case <-s.both:
		case <-time.After(20 * time.Second):
			s.mu.Lock()
			s.alone = true
			s.mu.Unlock()
		}
	}
	return s.Store.Create(ctx, key, body)
}

// Packs are on their way to the store at once, not one after the other.
func TestPacksAreStoredTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	s := &together{Store: b.repo.Store(), both: make(chan struct{})}
	keys, err := readKeys(filepath.Join(filepath.Dir(b.root), "cluster.key"))
	check(t, err)
	r, err := repo.Open(context.Background(), s, keys, "testhost")
	check(t, err)
	_, err = backup.Run(context.Background(), r, b.options())
	check(t, err)
	if s.alone || s.packs < 2 {
		t.Errorf("a pack waited 20 seconds for a second one; %d in all", s.packs)
	}
}

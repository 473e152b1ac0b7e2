package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func TestMain(m *testing.M) {
	servertest.Main(m, map[string]func() int{"archive": archive})
}

// archive is the archive_command of these tests: archive REPOSITORY KEYFILE PATH.
func archive() int {
	err := func() error {
		r, err := openRepo(context.Background(), os.Args[1], os.Args[2])
		if err != nil {
			return err
		}
		raw, err := os.ReadFile("global/pg_control")
		if err != nil {
			return err
		}
		c, err := postgres.ParseControlFile(raw)
		if err != nil {
			return err
		}
		o := wal.PushOptions{System: c.SystemID}
		if len(os.Args) > 4 { // with summaries, and looking ahead
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			memory := wal.PushMemory{Repository: r.Marker().Repository, DataDir: dir, System: c.SystemID, Now: time.Now, Address: os.Args[1]}
			_, _, err = wal.PushAhead(context.Background(), r, filepath.Join(dir, os.Args[3]), o,
				wal.Ahead{Memory: memory, Sealers: 2, Blocks: true, Begin: time.Second, Finish: 5 * time.Second})
			return err
		}
		_, err = wal.Push(context.Background(), r, os.Args[3], o)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func openRepo(ctx context.Context, root, keyFile string) (*repo.Repo, error) {
	keys, err := readKeys(keyFile)
	if err != nil {
		return nil, err
	}
	s, err := file.New(root)
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, s, keys, "testhost")
}

// readKeys makes the cluster key the recipient and the identity of everything.
func readKeys(keyFile string) (repo.Keys, error) {
	f, err := os.Open(keyFile)
	if err != nil {
		return repo.Keys{}, err
	}
	defer f.Close()
	k, err := repo.ParseKeyFile(f)
	if err != nil {
		return repo.Keys{}, err
	}
	to, err := repo.ParseRecipient(k.Recipients()[0])
	if err != nil {
		return repo.Keys{}, err
	}
	keys := repo.Keys{Cluster: k, Identities: k.Identities}
	keys.Recipients = append(keys.Recipients, to)
	return keys, nil
}

// bench is a server that archives to a repository.
type bench struct {
	*servertest.Cluster
	repo *repo.Repo
	root string
}

func newBench(t *testing.T, o servertest.Options) *bench {
	t.Helper()
	dir := t.TempDir()
	root, keyFile := filepath.Join(dir, "repository"), filepath.Join(dir, "cluster.key")
	k, err := repo.NewClusterKey("test", repo.NewID())
	check(t, err)
	check(t, os.WriteFile(keyFile, k.Marshal("test key"), 0o600))
	s, err := file.Init(root)
	check(t, err)
	keys, err := readKeys(keyFile)
	check(t, err)
	r, err := repo.Create(context.Background(), s, keys, "testhost", time.Now())
	check(t, err)
	if o.Settings == nil {
		o.Settings = map[string]string{}
	}
	if _, ok := o.Settings["archive_mode"]; !ok {
		o.Settings["archive_mode"] = "on"
		o.Settings["archive_command"] = fmt.Sprintf("%s %s %s %%p", servertest.Command(t, "archive"), root, keyFile)
	}
	return &bench{servertest.New(t, o), r, root}
}

func (b *bench) options() backup.Options {
	return backup.Options{
		DataDir: b.DataDir(), Conn: b.ConnString(), Jobs: 2, WALTimeout: 2 * time.Minute,
		Host: "testhost", Program: "test", Now: time.Now,
	}
}

func (b *bench) run(t *testing.T) *repo.Info {
	t.Helper()
	info, err := backup.Run(context.Background(), b.repo, b.options())
	check(t, err)
	return info
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents reads every file of a backup through its manifest, and fails when
// a byte of a file is missing.
func (b *bench) contents(t *testing.T, label string) map[string][]byte {
	t.Helper()
	ctx := context.Background()
	m, err := b.repo.OpenManifest(ctx, label)
	check(t, err)
	defer m.Close()
	files := make([][]byte, m.Files.Len())
	covered := make([]int64, m.Files.Len())
	for i, f := range m.Files.All() {
		files[i] = make([]byte, f.Size)
	}
	pr, err := b.repo.NewPackReader()
	check(t, err)
	defer pr.Close()
	for p, err := range m.Packs() {
		check(t, err)
		var refs []repo.FrameRef
		for _, f := range p.Frames {
			refs = append(refs, f.FrameRef)
		}
		pack, err := b.repo.FetchPack(ctx, p.PackRef, refs)
		check(t, err)
		for _, f := range p.Frames {
			raw, err := pr.Frame(pack, f.FrameRef)
			check(t, err)
			for _, s := range f.To {
				copy(files[s.File][s.Off:], raw[s.At:s.At+s.Len])
				covered[s.File] += int64(s.Len)
			}
		}
	}
	out := map[string][]byte{}
	for i, f := range m.Files.All() {
		if covered[i] != f.Size {
			t.Errorf("%s: %d of %d bytes are in the backup", f.Path, covered[i], f.Size)
		}
		if _, twice := out[f.Path]; twice {
			t.Errorf("%s is in the manifest twice", f.Path)
		}
		out[f.Path] = files[i]
	}
	return out
}

func TestBackupHoldsTheDataDirectory(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{Checksums: true})
	b.Pgbench(t, "-i", "-s", "3", "-q")
	b.Exec(t, "create unlogged table u (x int); insert into u select generate_series(1, 1000)")
	b.Exec(t, "create table empty ()")
	b.Exec(t, "checkpoint")
	unlogged := b.QueryString(t, "select pg_relation_filepath('u')")
	accounts := b.QueryString(t, "select pg_relation_filepath('pgbench_accounts')")
	info := b.run(t)
	got := b.contents(t, info.Label)

	for _, want := range []string{"PG_VERSION", "global/pg_control", "pg_wal", "pg_wal/archive_status", "pg_tblspc", unlogged + "_init"} {
		if _, ok := got[want]; !ok {
			t.Errorf("%s is not in the backup", want)
		}
	}
	for _, leave := range []string{"postmaster.pid", "postmaster.opts", unlogged} {
		if _, ok := got[leave]; ok {
			t.Errorf("%s is in the backup", leave)
		}
	}
	for path := range got {
		if strings.HasPrefix(path, "pg_wal/0") {
			t.Errorf("the WAL segment %s is in the backup", path)
		}
	}
	onDisk, err := os.ReadFile(filepath.Join(b.DataDir(), accounts))
	check(t, err)
	if string(onDisk) != string(got[accounts]) {
		t.Errorf("%s is not in the backup as it is on disk", accounts)
	}
	if info.BadCount != 0 || !info.Checksums {
		t.Errorf("bad pages %d, checksums %t", info.BadCount, info.Checksums)
	}
}

func TestRefusesWithoutArchiving(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]map[string]string{
		"off":     {"archive_mode": "off"},
		"empty":   {"archive_mode": "on", "archive_command": ""},
		"failing": {"archive_mode": "on", "archive_command": "false"},
		// It says that it worked and stores nothing: the worst of them.
		"lying": {"archive_mode": "on", "archive_command": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, servertest.Options{Settings: settings})
			o := b.options()
			o.WALTimeout = 2 * time.Second
			_, err := backup.Run(context.Background(), b.repo, o)
			if _, ok := errors.AsType[*backup.ArchivingError](err); !ok {
				t.Fatalf("got %v, want an ArchivingError", err)
			}
			for info, err := range b.repo.Store().List(context.Background(), "packs/") {
				check(t, err)
				t.Errorf("something was copied: %s", info.Key)
			}
		})
	}
}

package restore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// objects reads what a store holds under a prefix.
func objects(t testing.TB, s storage.Store, prefix string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for info, err := range s.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		rc, err := s.Open(context.Background(), info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		rc.Close()
		if err != nil {
			t.Fatal(err)
		}
		out[info.Key] = b
	}
	return out
}

// replace puts other bytes under a key; nil removes it.
func replace(t testing.TB, s storage.Store, key string, b []byte) {
	t.Helper()
	if err := s.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	if b == nil {
		return
	}
	if err := s.Create(context.Background(), key, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

// notStartable makes sure that what a failed restore left cannot be started.
func notStartable(t testing.TB, p *Plan) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(p.DataDir, postgres.ControlPath)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a control file after a failed restore (%v)", err)
	}
}

// Every object that a restore reads is damaged in every way; each time it
// fails for that reason, leaves nothing that starts, and works in the same
// directory once the object is whole again.
func TestApplyDamage(t *testing.T) {
	t.Parallel()
	r, store, _ := newTestRepo(t)
	tr := smallTree(t)
	info := build(t, r, backupA, tr, built{spread: true})
	dir := t.TempDir()
	p := planFor(info, dir)
	ways := map[string]func([]byte) []byte{
		"missing":   func([]byte) []byte { return nil },
		"empty":     func([]byte) []byte { return []byte{} },
		"truncated": func(b []byte) []byte { return b[:len(b)-1] },
		"half":      func(b []byte) []byte { return b[:len(b)/2] },
		"flipped": func(b []byte) []byte {
			b = slices.Clone(b)
			b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
			return b
		},
		"longer": func(b []byte) []byte { return append(slices.Clone(b), 'x') },
	}
	all := objects(t, store, "packs/")
	all[repo.ManifestKey(backupA)] = objects(t, store, "backups/")[repo.ManifestKey(backupA)]
	for key, good := range all {
		for way, damage := range ways {
			replace(t, store, key, damage(good))
			err := Apply(context.Background(), r, p, Options{})
			switch {
			case err == nil && way == "longer" && strings.HasPrefix(key, "packs/"):
				// Only what the manifest vouches for was read.
				applied(t, p, tr)
				if err := os.RemoveAll(p.DataDir); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(p.Tablespaces[0].To); err != nil {
					t.Fatal(err)
				}
			case !damaged(err) && !(way == "missing" && errors.Is(err, os.ErrNotExist)):
				t.Errorf("%s, %s: error %v", key, way, err)
			default:
				notStartable(t, p)
			}
		}
		replace(t, store, key, good)
	}
	if err := Apply(context.Background(), r, p, Options{}); err != nil {
		t.Fatal(err)
	}
	applied(t, p, tr)
}

// The packs of two backups change places; each is a genuine object.
func TestApplySwappedPacks(t *testing.T) {
	t.Parallel()
	r, store, _ := newTestRepo(t)
	p := planFor(build(t, r, backupA, smallTree(t), built{spread: true}), t.TempDir())
	packs := objects(t, store, "packs/")
	keys := make([]string, 0, len(packs))
	for k := range packs {
		keys = append(keys, k)
	}
	for i, k := range keys {
		replace(t, store, k, packs[keys[(i+1)%len(keys)]])
	}
	if err := Apply(context.Background(), r, p, Options{}); !damaged(err) {
		t.Errorf("error %v", err)
	}
	notStartable(t, p)
}

// A manifest that is found under another label, or in another repository, is
// not that backup's, although its signature is good.
func TestApplyMovedManifest(t *testing.T) {
	t.Parallel()
	r, store, _ := newTestRepo(t)
	const other = "20260131T030000Z-00000b"
	p := planFor(build(t, r, backupA, smallTree(t), built{}), t.TempDir())
	build(t, r, other, smallTree(t), built{})
	replace(t, store, repo.ManifestKey(backupA), objects(t, store, "backups/")[repo.ManifestKey(other)])
	_, untrusted := errors.AsType[*repo.UntrustedError](Apply(context.Background(), r, p, Options{}))
	if !untrusted {
		t.Error("a moved manifest was believed")
	}
	if _, err := os.Stat(p.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written before the manifest was known to be genuine (%v)", err)
	}
}

// The plan rests on the info object; the manifest must say the same.
func TestApplyManifestIsNotTheInfo(t *testing.T) {
	t.Parallel()
	r, _, _ := newTestRepo(t)
	info := build(t, r, backupA, smallTree(t), built{})
	for _, change := range []func(*repo.Info){
		func(i *repo.Info) { i.StartLSN++ },
		func(i *repo.Info) { i.System++ },
		func(i *repo.Info) { i.BackupLabel += "x" },
		func(i *repo.Info) { i.Tablespaces = []repo.Tablespace{{OID: 16400, Path: "/srv/other"}} },
	} {
		changed := info
		change(&changed)
		if err := Apply(context.Background(), r, planFor(changed, t.TempDir()), Options{}); !damaged(err) {
			t.Errorf("error %v", err)
		}
	}
}

// PostgreSQL refuses the label of a standby with a control file that is not one
// of a standby: such a restore is no success.
func TestApplyControlFileOfAnotherServer(t *testing.T) {
	t.Parallel()
	const label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nBACKUP FROM: "
	for _, c := range []struct {
		from  string
		state postgres.DBState
		ok    bool
	}{
		{"standby", postgres.DBInProduction, false},
		{"standby", postgres.DBShutdowned, false},
		{"standby", postgres.DBInArchiveRecovery, true},
		{"standby", postgres.DBShutdownedInRecovery, true},
		{"primary", postgres.DBInProduction, true},
	} {
		r, _, _ := newTestRepo(t)
		tr := smallTree(t)
		tr[postgres.ControlPath] = entry{body: inState(controlFile(t), c.state)}
		info := build(t, r, backupA, tr, built{info: func(i *repo.Info) { i.BackupLabel = label + c.from + "\n" }})
		p := planFor(info, t.TempDir())
		err := Apply(context.Background(), r, p, Options{})
		if _, refused := errors.AsType[*BackupError](err); refused == c.ok || c.ok && err != nil {
			t.Errorf("%s, %s: error %v", c.from, c.state, err)
		}
		if !c.ok {
			notStartable(t, p)
		}
	}
}

// inState is a control file of PostgreSQL 13 to 17 in another state.
func inState(control []byte, state postgres.DBState) []byte {
	out := slices.Clone(control)
	binary.LittleEndian.PutUint32(out[16:], uint32(state))
	binary.LittleEndian.PutUint32(out[288:], crc32.Checksum(out[:288], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

func TestApplyKeys(t *testing.T) {
	t.Parallel()
	r, store, k := newTestRepo(t)
	p := planFor(build(t, r, backupA, smallTree(t), built{}), t.TempDir())
	other := newKeyring(t)
	for name, c := range map[string]struct {
		keys repo.Keys
		want error
	}{
		"another identity":                           {repo.Keys{Identities: []age.Identity{other.identity}, Trusted: k.cluster.Signers}, repo.ErrWrongIdentity},
		"another identity and the cluster's own key": {repo.Keys{Cluster: k.cluster, Identities: []age.Identity{other.identity}}, repo.ErrWrongIdentity},
		"no identity":                                {repo.Keys{Cluster: k.cluster}, repo.ErrNoIdentity},
	} {
		r := openTestRepo(t, store, c.keys)
		if err := Apply(context.Background(), r, p, Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", name, err)
		}
		notStartable(t, p)
		if _, err := Load(context.Background(), r, Target{DataDir: p.DataDir}, Options{}); name != "another identity and the cluster's own key" && !errors.Is(err, c.want) {
			t.Errorf("load, %s: error %v", name, err)
		}
	}
}

// The last check of all: nothing failed, and yet bytes are missing.
func TestCheckComplete(t *testing.T) {
	t.Parallel()
	files, err := repo.NewFiles(2, slices.Values([]repo.FileEntry{{Type: repo.Regular, Path: "a", Size: 10}, {Type: repo.Regular, Path: "b"}}))
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{layout: &layout{manifest: files}, written: make([]atomic.Int64, 2)}
	w.written[0].Store(9)
	if e, ok := errors.AsType[*IncompleteError](w.checkComplete()); !ok || e.Path != "a" {
		t.Errorf("error %v", e)
	}
	w.written[0].Store(10)
	if err := w.checkComplete(); err != nil {
		t.Error(err)
	}
}

func TestContents(t *testing.T) {
	t.Parallel()
	r, store, _ := newTestRepo(t)
	tr := smallTree(t)
	tr["standby.signal"] = entry{body: []byte{}}
	for i := range fewPacks { // so that packs are listed
		body := pattern(65<<10 + i)
		tr["base/1/big"+string(rune('0'+i))] = entry{body: body}
	}
	info := build(t, r, backupA, tr, built{spread: true})
	c, err := readContents(context.Background(), r, info)
	if err != nil || c.Err != nil {
		t.Fatal(err, c.Err)
	}
	var inDir, inSpace int64
	for name, e := range tr {
		if strings.HasPrefix(name, "pg_tblspc/") {
			inSpace += int64(len(e.body))
		} else {
			inDir += int64(len(e.body))
		}
	}
	packs := objects(t, store, "packs/")
	var stored int64
	for _, b := range packs {
		stored += int64(len(b))
	}
	if c.Bytes[0] != inDir || c.Bytes[1] != inSpace || c.Files[1] != 1 || c.Fetch > stored || c.Fetch < stored-1000 || !c.HasConf || !c.Standby {
		t.Errorf("%+v, want %d and %d bytes and %d to fetch", c, inDir, inSpace, stored)
	}
	if len(packs) <= fewPacks {
		t.Fatalf("only %d packs", len(packs))
	}
	for key, b := range packs {
		for _, damage := range [][]byte{nil, b[:len(b)-1]} {
			replace(t, store, key, damage)
			c, err := readContents(context.Background(), r, info)
			if err != nil || !damaged(c.Err) || !strings.Contains(c.Err.Error(), key) {
				t.Errorf("%s: %v, %v", key, c, err)
			}
		}
		replace(t, store, key, b)
		break
	}
}

// brake makes a store slow or fail after some reads.
type brake struct {
	*mem.Store
	after atomic.Int64
	act   func(ctx context.Context) error
}

func (b *brake) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if b.after.Add(-1) < 0 {
		if err := b.act(ctx); err != nil {
			return nil, err
		}
	}
	return b.Store.Open(ctx, key, off, n)
}

// The n-th read fails, for each n: the error is reported, nothing can start,
// and the next restore into the same directories works.
func TestApplyFaultSweep(t *testing.T) {
	t.Parallel()
	r, store, k := newTestRepo(t)
	tr := smallTree(t)
	info := build(t, r, backupA, tr, built{spread: true})
	b := &brake{Store: store, act: func(context.Context) error { return storage.ErrUnavailable }}
	b.after.Store(100)
	r = openTestRepo(t, b, k.keys())
	dir := t.TempDir()
	p := planFor(info, dir)
	for n := int64(0); ; n++ {
		b.after.Store(n)
		err := Apply(context.Background(), r, p, Options{Jobs: 2})
		if err == nil {
			if n < 5 {
				t.Errorf("only %d reads were needed", n)
			}
			break
		}
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Fatalf("read %d: %v", n, err)
		}
		notStartable(t, p)
		if f := lookAt(p.DataDir); n > 0 && !f.Marked {
			t.Fatalf("read %d: the directory is not marked as unfinished: %+v", n, f)
		}
	}
	applied(t, p, tr)
}

func TestApplyCancelled(t *testing.T) {
	t.Parallel()
	r, store, k := newTestRepo(t)
	tr := smallTree(t)
	info := build(t, r, backupA, tr, built{spread: true})
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stopped by the user")
	b := &brake{Store: store, act: func(ctx context.Context) error {
		cancel(stop)
		<-ctx.Done()
		return ctx.Err()
	}}
	b.after.Store(100)
	r = openTestRepo(t, b, k.keys())
	b.after.Store(4)
	p := planFor(info, t.TempDir())
	done := make(chan error)
	go func() { done <- Apply(ctx, r, p, Options{}) }()
	select {
	case err := <-done:
		if !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	notStartable(t, p)
}

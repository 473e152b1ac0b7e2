package asroot

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// fingerprint is the hash of all that lies below a directory: names, owners, modes,
// content.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		if !info.Mode().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		h.Write(data)
		return err
	}))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A drill of root runs its server as the account that owned the data directory,
// behind the fence, also where the WAL makes a tablespace at production's own
// path; production stays as it is, and nothing stays in staging.
func TestDrillAsRoot(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	data, config, key := filepath.Join(h.home, "data"), filepath.Join(h.home, "lifeboat.yaml"), filepath.Join(h.home, "test-recovery.key")
	tablespace, staging, root := filepath.Join(h.home, "ts"), filepath.Join(h.dir, "staging"), filepath.Join(h.dir, "root")
	must(t, h.install.Initdb(ctx, server.InitdbOptions{DataDir: data, Account: h.account, NoSync: true}))
	must(t, os.Mkdir(tablespace, 0o700))
	must(t, os.Chown(tablespace, int(h.account.UID), int(h.account.GID)))
	must(t, os.Mkdir(staging, 0o755))
	must(t, os.Mkdir(root, 0o700))
	h.run(t, false, "init", "--cluster", "test", "--pgdata", data, "--repository", "file://"+filepath.Join(h.home, "repository"), "--config", config,
		"--conn", server.ConnString(filepath.Join(h.home, "s"), server.DefaultPort, "postgres", "postgres"))
	srv, err := server.Start(ctx, h.install, server.Options{DataDir: data, SocketDir: filepath.Join(h.home, "s"), DieWithParent: true, Settings: map[string]string{
		"fsync": "off", "archive_mode": "on", "archive_command": h.program + " --config " + config + ` wal push "%p"`}})
	must(t, err)
	defer func() { _ = srv.Stop(context.WithoutCancel(ctx), server.Immediate) }()
	must(t, srv.WaitReady(ctx))
	sql := func(s string) string { return h.sql(t, srv.SocketDir(), srv.Port(), s) }
	h.run(t, true, "--config", config, "backup")
	sql("create tablespace ts location '" + tablespace + "'")
	sql("create table t tablespace ts as select generate_series(1, 1000) n")
	flush(t, sql)
	must(t, srv.Stop(ctx, server.Fast))
	before := fingerprint(t, data) + fingerprint(t, tablespace)

	// The key is root's alone: the server fetches nothing.
	closed := filepath.Join(root, "root.key")
	raw, err := os.ReadFile(key)
	must(t, err)
	must(t, os.WriteFile(closed, raw, 0o600))
	for _, level := range []string{"standard", "deep"} {
		out := h.run(t, false, "--config", config, "drill", "--json", "--identity", closed, "--staging", staging, "--level", level)
		var d evidence.Drill
		must(t, json.Unmarshal([]byte(out), &d))
		if f := d.Fence; d.Verdict != evidence.Passed || f == nil || f.User == "postgres" || f.User == "root" || f.Network != "isolated" || f.Files != "isolated" || d.By.User != "root" {
			t.Errorf("%s: %s by %s, fence %+v", level, d.Verdict, d.By.User, f)
		}
		if left, err := os.ReadDir(staging); err != nil || len(left) > 0 || !d.Cleanup.Done {
			t.Errorf("%s: left in staging: %v %v", level, left, err)
		}
	}
	if fingerprint(t, data)+fingerprint(t, tablespace) != before {
		t.Error("production was changed")
	}

	// A directory that the account cannot pass through is found before anything is fetched.
	code, _, stderr := h.lifeboat(t, false, "--config", config, "drill", "--identity", closed, "--staging", root)
	if left, _ := os.ReadDir(root); code != 4 || len(left) != 1 {
		t.Errorf("staging behind a closed directory: exit code %d, left %v\n%s", code, left, stderr)
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// copyTo runs a copy and returns its report.
func (s *site) copyTo(t *testing.T, url string, args ...string) copyReport {
	t.Helper()
	var r copyReport
	if err := json.Unmarshal([]byte(s.run(t, append([]string{"copy", "--json", "--to", url}, args...)...)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// A copy is restored from when the original is gone, and gives the same cluster.
func TestCopy(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"directory to directory", "S3 to S3"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			o := siteOptions{s3: store != "directory to directory", server: servertest.Options{WALSegmentSize: 1 << 20, Checksums: true}}
			s := newSite(t, o)
			s.Exec(t, variety)
			s.run(t, "backup")
			first := s.mark(t, "between")
			s.nextLabel(t) // so that the second one is the newest
			s.run(t, "backup")
			latest := content(t, s.Cluster)
			s.flush(t)
			url := "file://" + filepath.Join(s.dir, "copy")
			if o.s3 {
				url = fmt.Sprintf("s3://%s/copy?endpoint=%s&path_style=true&ca_file=%s&region=us-east-1", s.bucket.Bucket, s.bucket.Endpoint, s.bucket.CAFile)
			}

			var listed []backupReport
			if err := json.Unmarshal([]byte(s.run(t, "backups", "--json")), &listed); err != nil {
				t.Fatal(err)
			}
			// The newest, without any key that opens data, and then all WAL.
			one := s.copyTo(t, url)
			if one.Label != listed[1].Label || one.Existed != 0 || one.Packs == 0 || one.Segments < 1 {
				t.Errorf("%+v", one)
			}
			r := s.restoreTo(t, "--repository", url, "--target-immediate", "--target-action", "promote")
			sameContent(t, r, latest)
			stopAll(t, r)
			all := s.copyTo(t, url, "--all-wal", listed[0].Label)
			if all.Label != listed[0].Label || all.Segments <= one.Segments || all.Existed == 0 {
				t.Errorf("%+v", all)
			}
			again := s.copyTo(t, url, "--all-wal", listed[0].Label)
			if again.Existed != again.Objects || again.Bytes != 0 {
				t.Errorf("%+v", again)
			}
			s.Stop(t, server.Immediate)

			if !o.s3 {
				defer away(t, filepath.Join(s.dir, "repository"))()
			}
			r = s.restoreTo(t, append([]string{"--repository", url}, first["name"].flags...)...)
			sameContent(t, r, first["name"].content)
			stopAll(t, r)
			r = s.restoreTo(t, "--repository", url)
			sameContent(t, r, latest)
			stopAll(t, r)
		})
	}
}

// nextLabel waits until a new backup's label sorts behind those there are.
func (s *site) nextLabel(t *testing.T) {
	t.Helper()
	var listed []backupReport
	if err := json.Unmarshal([]byte(s.run(t, "backups", "--json")), &listed); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the next second", func() bool {
		return time.Now().UTC().Format("20060102T150405Z") > listed[len(listed)-1].Label[:16]
	})
}

func TestCopyRefused(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	other := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup", "--repository", "near")
	refused := func(code int, text string, args ...string) {
		t.Helper()
		got, stdout, stderr := s.exec(t, append([]string{"copy"}, args...)...)
		if got != code || stdout != "" || !strings.Contains(stderr, text) || !strings.Contains(stderr, "hint:") {
			t.Errorf("copy %s: exit code %d, want %d: %s%s", strings.Join(args, " "), got, code, stdout, stderr)
		}
	}
	refused(2, "--to is missing")
	refused(2, "is where the backup is", "--to", "near")
	refused(2, "not a URL", "--to", "elsewhere")
	refused(2, "is not the label", "--to", "far", "newest")
	refused(1, "holds another repository", "--to", "file://"+filepath.Join(other.dir, "repository"))
	refused(1, "there is no backup", "--to", "near", "--repository", "far")
	if got, _, stderr := s.exec(t, "copy", "--to", "far", "20260131T020000Z-1a2b3c"); got != 1 || !strings.Contains(stderr, "holds no backup 20260131T020000Z-1a2b3c") {
		t.Errorf("%d %s", got, stderr)
	}

	// Damage does not travel, and without all its WAL there is no copy.
	packs, err := filepath.Glob(filepath.Join(s.near, "packs", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	sound, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte(nil), sound...)
	broken[len(broken)/2] ^= 1
	rewrite(t, packs[0], broken)
	refused(1, "damaged", "--to", "far")
	rewrite(t, packs[0], sound)
	var plan restoreReport
	if err := json.Unmarshal([]byte(s.run(t, "restore", "--dry-run", "--json", "--to", filepath.Join(t.TempDir(), "x"), "--identity", s.identity, "--repository", "near")), &plan); err != nil {
		t.Fatal(err)
	}
	gone, err := filepath.Glob(filepath.Join(s.near, "wal", "*", "*", plan.Plan.WAL.First))
	if err != nil || len(gone) != 1 || os.Remove(gone[0]) != nil {
		t.Fatal(gone, err)
	}
	refused(1, plan.Plan.WAL.First, "--to", "far")
	if paths, _ := filepath.Glob(filepath.Join(s.far, "backups", "*", "manifest")); len(paths) != 0 {
		t.Errorf("%q", paths)
	}
}

// rewrite puts other bytes into an object, as a broken disk does.
func rewrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A copy that is killed, whenever, leaves no backup or a whole one, and running it
// again completes it.
func TestCopyKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20, Checksums: true}})
	s.Exec(t, variety)
	// Noise, so that there are several packs.
	s.Exec(t, "create table noise as select string_agg(md5(random()::text), '') x from generate_series(1, 400000) i group by i % 2000")
	s.run(t, "backup")
	want := content(t, s.Cluster)
	s.flush(t)
	s.Stop(t, server.Immediate)
	dir := filepath.Join(s.dir, "copy")
	url := "file://" + dir
	empty := func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	whole := s.copyTo(t, url, "--all-wal")
	took := time.Since(began)
	kill, partly := 0, 0
	for range *kills {
		empty()
		cmd := exec.Command(servertest.Command(t, "lifeboat"), "copy", "--to", url, "--all-wal", "--config", s.config)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(rand.N(took), func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		timer.Stop()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			kill++
		}
		manifests, _ := filepath.Glob(filepath.Join(dir, "backups", "*", "manifest"))
		objects := countFiles(t, dir)
		if objects > 1 && len(manifests) == 0 {
			partly++
		}
		if len(manifests) == 1 { // then it is whole
			s.run(t, "restore", "--dry-run", "--to", filepath.Join(t.TempDir(), "x"), "--identity", s.identity, "--repository", url)
		}
		r := s.copyTo(t, url, "--all-wal")
		if r.Objects != whole.Objects || len(manifests) == 0 && r.Bytes == 0 {
			t.Errorf("after a kill: %+v, without: %+v", r, whole)
		}
	}
	if kill == 0 || partly == 0 {
		t.Errorf("%d copies were killed, %d of them half way: the test tests nothing", kill, partly)
	}
	defer away(t, filepath.Join(s.dir, "repository"))()
	r := s.restoreTo(t, "--repository", url)
	sameContent(t, r, want)
	r.Stop(t, server.Fast)
	r.Checksums(t)
}

func countFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n
}

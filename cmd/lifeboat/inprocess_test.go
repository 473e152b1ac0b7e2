package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// outcome is what a run of the program ended with.
type outcome struct {
	code           int
	stdout, stderr string
	facts          string // of stdout, for who compares runs: without what is another each time
}

func (o outcome) text() string { return o.stdout + o.stderr }

// inProcess runs the program inside of the test, which is much faster than a process:
// for commands that start none of their own. State is the directory in which the host
// remembers what it has seen.
func inProcess(state string, args ...string) outcome {
	var out, errs bytes.Buffer
	a := newApp()
	a.ui = &ui{stdout: cleaner{w: &out}, stderr: cleaner{w: &errs, bar: true}, secrets: &out, width: func() int { return 80 }}
	a.environ = []string{"STATE_DIRECTORY=" + state, "HOME=" + state, "PATH=" + os.Getenv("PATH")}
	code := a.run(args)
	return outcome{code: code, stdout: out.String(), stderr: errs.String()}
}

// bareSite is a repository in a directory with its keys and a configuration, and
// without a server.
type bareSite struct {
	dir, config, clusterKey, repository string
	keys                                repo.Keys
	repo                                *repo.Repo
}

func newBareSite(t *testing.T) *bareSite {
	t.Helper()
	dir := t.TempDir()
	s := &bareSite{dir: dir, config: filepath.Join(dir, "lifeboat.yaml"), clusterKey: filepath.Join(dir, "cluster.key"), repository: filepath.Join(dir, "repository")}
	cluster, err := repo.NewClusterKey("shop", repo.NewID())
	must(t, err)
	recovery, err := repo.NewRecoveryKey(cluster)
	must(t, err)
	s.keys.Cluster = cluster
	s.keys.Recipients, err = parseRecipients(recovery.Recipients())
	must(t, err)
	must(t, os.WriteFile(s.clusterKey, cluster.Marshal(""), 0o600))
	must(t, os.WriteFile(s.config, configText(map[string][]string{
		"cluster": {"shop"}, "repository": {"file://" + s.repository}, "cluster_key": {s.clusterKey}, "recipients": recovery.Recipients(),
	}), 0o600))
	store, err := file.Init(s.repository)
	must(t, err)
	s.repo, err = repo.Create(t.Context(), store, s.keys, "db1", time.Now())
	must(t, err)
	return s
}

func (s *bareSite) run(args ...string) outcome {
	return inProcess(filepath.Join(s.dir, "lifeboat-state"), append(args, "--config", s.config)...)
}

// document runs a command that must end with 0 and reads its JSON.
func (s *bareSite) document(t *testing.T, into any, args ...string) {
	t.Helper()
	got := s.run(append(args, "--json")...)
	if got.code != 0 {
		t.Fatalf("%s: exit code %d\n%s", strings.Join(args, " "), got.code, got.text())
	}
	must(t, json.Unmarshal([]byte(got.stdout), into))
}

// plant stores an object as somebody does who writes files into the directory.
func (s *bareSite) plant(t *testing.T, key, content string) {
	t.Helper()
	path := filepath.Join(s.repository, filepath.FromSlash(key))
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever lies under the name of a lease is gone after it was broken, its holder is told,
// and the next one takes it at once.
func TestLeaseBreak(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	held, err := s.repo.AcquireLease(t.Context(), repo.BackupLease, repo.Claim{Holder: "db2, process 7"}, time.Now())
	must(t, err)
	unsigned := fmt.Sprintf(`{"holder":"x","token":"t","since":"%s","expires":"9999-01-31T02:00:00Z"}`, time.Now().UTC().Format(time.RFC3339))
	s.plant(t, "leases/backup/00000000000000000077", unsigned)
	s.plant(t, "leases/backup/18446744073709551614", unsigned)
	s.plant(t, "leases/backup/junk", "junk")

	status := func() leaseListed {
		t.Helper()
		var r leaseReport
		s.document(t, &r, "lease", "status")
		if len(r.Leases) != 1 || r.Leases[0].Name != "backup" {
			t.Fatalf("%+v", r)
		}
		return r.Leases[0]
	}
	if l := status(); !l.Held || !l.Signed || l.Holder != "db2, process 7" || l.Objects != 4 {
		t.Errorf("before: %+v", l)
	}
	if got := s.run("lease", "break", "backup"); got.code != 2 || !strings.Contains(got.stderr, "--yes") || !status().Held {
		t.Errorf("without --yes: exit code %d\n%s", got.code, got.text())
	}
	var broken brokenReport
	s.document(t, &broken, "lease", "break", "backup", "--yes")
	if broken != (brokenReport{"backup", 4}) {
		t.Errorf("%+v", broken)
	}
	if l := status(); l.Held || l.Objects != 1 || l.Junk != 0 {
		t.Errorf("after: %+v", l)
	}
	if err := held.Renew(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "lease") {
		t.Errorf("the holder goes on: %v", err)
	}
	next, err := s.repo.AcquireLease(t.Context(), repo.BackupLease, repo.Claim{Holder: "db3"}, time.Now())
	must(t, err)
	must(t, next.Release(t.Context()))
	for _, name := range []string{"../../x", "A", "x/y"} {
		if got := s.run("lease", "break", name, "--yes"); got.code == 0 {
			t.Errorf("a lease named %q was broken", name)
		}
	}
}

// Junk under the last number, and under those that come next, does not keep the cluster
// key from being replaced.
func TestRotateBesideJunk(t *testing.T) {
	t.Parallel()
	for what, keys := range map[string][]string{"the last": {"keys/99999999"}, "the next": {"keys/00000001", "keys/00000002", "keys/99999999"}} {
		s := newBareSite(t)
		for _, key := range keys {
			s.plant(t, key, "junk")
		}
		before, err := os.ReadFile(s.clusterKey)
		must(t, err)
		var r rotateReport
		s.document(t, &r, "key", "rotate", "--new-cluster-key")
		now, err := os.ReadFile(s.clusterKey)
		must(t, err)
		if string(now) == string(before) || !strings.Contains(string(now), r.ClusterKey) {
			t.Errorf("junk under %s number: the cluster key is the old one", what)
		}
		s.noNextKey(t)
		var status keyReport
		s.document(t, &status, "key", "status")
		if len(status.Repositories) != 1 || len(status.Repositories[0].Signers) != 2 {
			t.Errorf("junk under %s number: %+v", what, status)
		}
	}
}

// A cluster key that nobody has vouched for does not stay on the disk.
func TestNextClusterKeyIsRemoved(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	before, err := os.ReadFile(s.clusterKey)
	must(t, err)
	// A statement cannot be stored where a file has the name of its directory.
	s.plant(t, "keys", "")
	if got := s.run("key", "rotate", "--new-cluster-key"); got.code == 0 {
		t.Fatalf("a statement was stored: %s", got.text())
	}
	s.noNextKey(t)
	if now, _ := os.ReadFile(s.clusterKey); string(now) != string(before) {
		t.Error("the cluster key is another")
	}
	must(t, os.Remove(filepath.Join(s.repository, "keys")))
	s.document(t, new(rotateReport), "key", "rotate", "--new-cluster-key")
	s.noNextKey(t)
}

func (s *bareSite) noNextKey(t *testing.T) {
	t.Helper()
	if _, err := os.Lstat(s.clusterKey + nextSuffix); !os.IsNotExist(err) {
		t.Errorf("%s%s: %v", s.clusterKey, nextSuffix, err)
	}
}

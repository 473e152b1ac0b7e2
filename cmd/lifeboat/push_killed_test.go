package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Killed at any moment, a push that looks ahead leaves only memories that are
// true; the backlog drains and restores.
func TestPushAheadKilled(t *testing.T) {
	t.Parallel()
	k := &killer{sweepSite: newSweepSite(t), random: rand.New(rand.NewPCG(rand.Uint64(), 0))}
	k.run(t, "backup")
	names := k.pileUp(t, 16)
	k.settle(t)
	clean := func() {
		if err := os.RemoveAll(filepath.Join(k.DataDir(), "lifeboat.spool")); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			objects, err := filepath.Glob(filepath.Join(k.dir, "repository", "wal", "*", "*", name))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range objects {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	first := filepath.Join(k.DataDir(), "pg_wal", names[0])
	whole := measured(func() { clean(); k.run(t, "wal", "push", first) })
	killed, remembered := 0, 0
	for range *kills {
		clean()
		if k.kill(t, whole, "wal", "push", first) {
			killed++
		}
		remembered += k.checkRemembered(t)
	}
	count(t, killed)
	t.Logf("%d files were remembered after %d kills", remembered, killed)

	want := content(t, k.Cluster)
	k.archiveAgain(t, "")
	k.waitDrained(t)
	k.flush(t)
	for _, name := range names {
		if !k.archived(t, name) {
			t.Errorf("%s is not archived", name)
		}
	}
	k.Kill9(t)
	c := k.restoreTo(t)
	sameContent(t, c, want)
	stopAll(t, c)
}

// checkRemembered makes sure that what is remembered is in the archive, as
// "wal fetch" sees it.
func (k *killer) checkRemembered(t *testing.T) (remembered int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(k.DataDir(), "lifeboat.spool", "pushed"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "new-") {
			continue
		}
		remembered++
		if !k.archived(t, e.Name()) {
			t.Errorf("%s is remembered and not archived", e.Name())
		}
	}
	return remembered
}

// archived says whether the archive holds a file of pg_wal as it is there.
func (k *killer) archived(t *testing.T, name string) bool {
	t.Helper()
	back := filepath.Join(t.TempDir(), "back")
	code, _, stderr := k.exec(t, "wal", "fetch", name, back, "--identity", k.identity)
	if code != 0 {
		t.Log(stderr)
		return false
	}
	return hashOf(t, back) == hashOf(t, filepath.Join(k.DataDir(), "pg_wal", name))
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// rescueTools is the directory with the age that "make tools" builds; it skips the test
// where a tool is missing.
func rescueTools(t *testing.T) string {
	t.Helper()
	tools, err := filepath.Abs("../../.tools/bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"python3", "zstd", filepath.Join(tools, "age")} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: install python3 and zstd, and run make tools", tool)
		}
	}
	return tools
}

// rescue runs the script on the directory "repository" and returns where it wrote.
func (s *site) rescue(t *testing.T, tools string) (out string) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "out")
	cmd := exec.Command("python3", "../../testdata/rescue/rescue.py", filepath.Join(s.dir, "repository"), s.identity, out)
	cmd.Env = append(os.Environ(), "PATH="+tools+string(os.PathListSeparator)+os.Getenv("PATH"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// A real server's repository comes back with age, zstd and the rescue script
// alone, to the last byte that was streamed.
func TestRescueWithoutLifeboat(t *testing.T) {
	t.Parallel()
	tools := rescueTools(t)
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t as select n, md5(n::text) from generate_series(1, 5000) n")
	st := s.stream(t, "--create-slot", "--interval", "100ms")
	s.run(t, "backup")
	for range 3 { // so that the last segment has slices
		s.Exec(t, "insert into t select n, md5(n::text) from generate_series(1, 3000) n")
		s.waitDurable(t, s.QueryString(t, "select pg_current_wal_flush_lsn()"))
	}
	want := content(t, s.Cluster)
	st.kill(t)
	s.Kill9(t)

	out := s.rescue(t, tools)
	data := filepath.Join(out, "data")
	if err := os.WriteFile(filepath.Join(data, "recovery.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := servertest.Open(t, data, servertest.Options{Settings: map[string]string{
		"restore_command": "cp " + filepath.Join(out, "wal") + "/%f %p", "archive_mode": "off"}})
	c.WaitPromoted(t)
	sameContent(t, c, want)
}

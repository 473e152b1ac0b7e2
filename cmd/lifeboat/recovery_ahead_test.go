package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// recordQueue makes restore_command tell, before each call for a segment, how many
// are ahead. On a busy machine recovery can be faster than what fetches ahead: from
// the third call on it waits until one was seen, 20 seconds at most.
func recordQueue(t *testing.T, settings map[string]string, log string) map[string]string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "look")
	text := fmt.Sprintf(`count() { ls %s/fetch 2>/dev/null | grep -c '^[0-9A-F]*$' >>"$1"; }
case $2 in *.*) exit ;; esac
count "$1"
[ "$(wc -l <"$1")" -lt 3 ] && exit
while ! grep -q '[1-9]' "$1" && [ "$(wc -l <"$1")" -lt 200 ]; do
	sleep 0.1
	count "$1"
done`, wal.SpoolDir)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	settings["restore_command"] = fmt.Sprintf("sh %s %s %%f; %s", script, log, settings["restore_command"])
	return settings
}

// Recovery by a real server uses the queue, gets all of the WAL, and leaves
// nothing behind when it opens.
func TestRecoveryFetchesAhead(t *testing.T) {
	t.Parallel()
	for size, first := range map[int]string{1: "000000010000000000000FFE", 16: "0000000100000000000000FE", 64: "00000001000000000000003E"} {
		t.Run(fmt.Sprint(size, " MiB"), func(t *testing.T) {
			// Two segments before the end of a run of names.
			begin := func(dataDir string) {
				if out, err := exec.Command(servertest.Find(t).Path("pg_resetwal"), "-l", first, "-D", dataDir).CombinedOutput(); err != nil {
					t.Fatalf("pg_resetwal: %v: %s", err, out)
				}
			}
			s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: size << 20}, initdb: begin})
			r := &recovery{site: s, base: filepath.Join(t.TempDir(), "base")}
			r.Program(t, "pg_basebackup", "-D", r.base, "-X", "none", "-c", "fast")
			for range 4 {
				s.Exec(t, fmt.Sprintf("create table t%d as select i, md5(i::text) w from generate_series(1, %d) i", rand.N(1<<30), 30000*min(size, 4)))
				s.flush(t)
			}
			if r.objects(t); s.QueryString(t, "select pg_walfile_name(pg_current_wal_lsn()) > '000000010000000100000000'") != "t" {
				t.Fatal("the names did not get to the end of their run")
			}
			want := content(t, s.Cluster)
			log := filepath.Join(t.TempDir(), "ahead")
			dir := r.copyBase(t)
			c := servertest.Open(t, dir, servertest.Options{Settings: recordQueue(t, r.settings(t, nil, "--identity "+r.identity), log)})
			c.WaitPromoted(t)
			sameContent(t, c, want)
			if ahead, err := os.ReadFile(log); err != nil || !strings.ContainsAny(string(ahead), "123456789") {
				t.Errorf("nothing was ever ahead: %q, %v", ahead, err)
			}
			if left, err := filepath.Glob(filepath.Join(dir, wal.SpoolDir, "fetch*")); err != nil || len(left) > 0 {
				t.Errorf("left in the spool after the promotion: %v, %v", left, err)
			}
		})
	}
}

// While connections to the store are cut in the middle, recovery gets every
// byte, or it stops; it never ends early.
func TestRecoveryThroughCuts(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, true)
	r.moreWAL(t, 30)
	want := content(t, r.Cluster)
	proxy, err := s3test.StartProxy(r.bucket.Addr, s3test.ProxyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		cuts := 0
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		proxy.SetRule(s3test.Rule{AfterDown: 50_000})
		for {
			select {
			case <-stop:
				stopped <- cuts
				return
			case <-tick.C:
				if proxy.Fired() {
					cuts++
					proxy.SetRule(s3test.Rule{AfterDown: 30_000 + rand.Int64N(500_000)})
				}
			}
		}
	}()
	flags := fmt.Sprintf("--identity %s --s3-endpoint https://%s", r.identity, proxy.Addr())
	c := servertest.Open(t, r.copyBase(t), servertest.Options{Settings: r.settings(t, r.env, flags)})
	c.WaitPromoted(t)
	close(stop)
	cuts := <-stopped
	t.Logf("%d connections were cut", cuts)
	if cuts < 3 {
		t.Error("too few cuts to prove anything")
	}
	sameContent(t, c, want)
	c.Stop(t, server.Immediate)
}

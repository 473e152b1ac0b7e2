package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

var (
	chaosRuns = flag.Int("chaos", 3, "how many runs TestWALChaos makes")
	chaosSeed = flag.Uint64("chaos-seed", 0, "seed of the first run of TestWALChaos, the next ones count on from it; 0 is a new one")
)

// chaosMode is how WAL gets to the store in a run.
type chaosMode int

const (
	chaosPush chaosMode = iota // archive_command
	chaosStream
	chaosBoth
	chaosSync // a commit waits for the store
	chaosModes
)

func (m chaosMode) String() string {
	return [...]string{"push", "stream", "push and stream", "synchronous"}[m]
}

func (m chaosMode) pushes() bool  { return m == chaosPush || m == chaosBoth }
func (m chaosMode) streams() bool { return m != chaosPush }

// chaos is a cluster to which bad things happen, run after run. The server that
// was killed goes on in the next run, as does the archive.
type chaos struct {
	*site
	network  *badNetwork
	count    int             // of runs
	pidFile  string          // of the wal push under way
	promised map[int64]bool  // rows that must come back, of all runs
	acked    int             // commits that were acknowledged
	required [chaosModes]int // those of them that had to come back
	faults   map[string]int
	age      int // runs since the last backup
}

// TestWALChaos writes to a server while the network to the store fails and
// server, pusher and streamer are killed, and restores after each run. Every
// commit must come back that was acknowledged, and before the kill reported as
// archived: by the position of the replication slot or in pg_stat_archiver. In
// synchronous mode every acknowledged commit must.
func TestWALChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	c := newChaos(t)
	for i := range uint64(*chaosRuns) {
		ok := t.Run(fmt.Sprintf("seed %d", seed+i), func(t *testing.T) { c.run(t, seed+i) })
		if !ok {
			t.Fatalf("to repeat: -chaos 1 -chaos-seed %d", seed+i)
		}
	}
	t.Logf("%d commits were acknowledged in %d runs; had to come back, and did:", c.acked, *chaosRuns)
	for m, n := range c.required {
		t.Logf("  %s: %d", chaosMode(m), n)
		if n == 0 && *chaosRuns >= 20 {
			t.Errorf("no commit had to come back in mode %s: nothing was tested", chaosMode(m))
		}
	}
	t.Logf("faults: %v", c.faults)
}

func newChaos(t *testing.T) *chaos {
	c := &chaos{promised: map[int64]bool{}, faults: map[string]int{}}
	c.site = newSite(t, siteOptions{s3: true, server: servertest.Options{WALSegmentSize: 1 << 20}, way: func(target string) string {
		c.network = newBadNetwork(t, target)
		return c.network.proxy.Addr()
	}})
	c.Exec(t, `create table chaos (id bigint, x bytea); alter table chaos alter x set storage external;
		select pg_create_physical_replication_slot('lifeboat', true)`)
	c.site.run(t, "backup")
	c.Stop(t, server.Fast)
	c.pidFile = filepath.Join(c.dir, "pusher.pid")
	// Killing the command itself would make PostgreSQL's archiver pause for ten
	// seconds (PGARCH_RESTART_INTERVAL), longer than a run.
	script := fmt.Sprintf("#!/bin/sh\n%s &\necho $! >%s.new && mv %s.new %s\nwait $! || exit 1\n",
		c.command(t, `wal push "$1"`), c.pidFile, c.pidFile, c.pidFile)
	if err := os.WriteFile(filepath.Join(c.dir, "push.sh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

// chaosRun is one run. It has one life, or two with a crash of the server
// between them.
type chaosRun struct {
	*chaos
	seed    uint64
	mode    chaosMode
	random  *rand.Rand
	stream  *streamer // nil when none runs
	journal *journal
	log     []string // what was done, for the report of a failure
}

func (c *chaos) run(t *testing.T, seed uint64) {
	r := &chaosRun{chaos: c, seed: seed, mode: chaosMode(seed % uint64(chaosModes)), random: rand.New(rand.NewPCG(seed, 1)),
		journal: &journal{first: int64(c.count) << 24}}
	c.count++
	defer func() {
		if t.Failed() {
			t.Logf("mode %s: %s", r.mode, strings.Join(r.log, ", "))
		}
	}()
	for range 1 + r.random.IntN(2) {
		r.live(t)
	}
	acked, required := r.journal.count(r.mode == chaosSync)
	c.acked += acked
	c.required[r.mode] += len(required)
	for _, id := range required {
		c.promised[id] = true
	}
	r.check(t)
	t.Logf("mode %s: %d commits, %d had to come back; %s", r.mode, acked, len(required), strings.Join(r.log, ", "))
}

// live lets the server run, and ends with the loss of the whole host.
func (r *chaosRun) live(t *testing.T) {
	command, standbys := "", ""
	if r.mode.pushes() {
		command = filepath.Join(r.dir, "push.sh") + " %p"
	}
	if r.mode == chaosSync {
		standbys = "lifeboat"
	}
	r.Setting(t, "archive_command", command)
	r.Setting(t, "synchronous_standby_names", standbys)
	r.Start(t)
	if r.age++; r.age > 8 && r.mode.pushes() {
		r.site.run(t, "backup")
		r.age = 0
	}
	w := r.journal.begin(r.ConnString())
	if r.mode == chaosSync {
		w.proveWaiting(t)
	}
	if r.mode.streams() {
		r.startChaosStream(t)
		r.waitDurable(t, r.QueryString(t, "select pg_current_wal_flush_lsn()"))
	}
	if r.mode.pushes() {
		eventually(t, "the archiver to catch up", func() bool {
			return r.QueryString(t, "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'") == "0"
		})
	}
	w.writers(2)
	if r.mode.pushes() {
		r.pushOne(t, w)
	}
	r.strike(t)
	r.crash(t)
	w.wait()
	r.network.heal(t)
}

// pushOne waits until a segment with commits is reported as archived, so that
// there is something to hold the archive to.
func (r *chaosRun) pushOne(t *testing.T, w *clients) {
	var upTo postgres.LSN
	eventually(t, "a few commits", func() bool {
		_, upTo = w.state()
		return upTo != 0
	})
	r.Exec(t, "select pg_switch_wal()")
	eventually(t, "their segment to be archived", func() bool {
		reported, _ := w.state()
		return reported >= upTo
	})
}

// strike lets a few things go wrong, one after another.
func (r *chaosRun) strike(t *testing.T) {
	for range 2 + r.random.IntN(4) {
		time.Sleep(time.Duration(r.random.IntN(200)) * time.Millisecond)
		if r.mode.pushes() && r.random.IntN(2) == 0 {
			r.Exec(t, "select pg_switch_wal()") // or there is nothing to push
		}
		what := "heals"
		switch n := r.random.IntN(12); {
		case n < 5:
			r.network.heal(t) // one fault at a time; the last one stays
			what = r.network.worsen(t, r.random)
		case n < 6:
			r.network.heal(t)
		case n < 8 && r.stream != nil:
			what = "kills the streamer"
			r.stream.kill(t)
			r.startChaosStream(t)
		case n < 10 && r.mode.pushes() && r.killPusher(t):
			what = "kills the pusher"
		default:
			what = "switches the segment"
			r.Exec(t, "select pg_switch_wal()")
		}
		r.faults[what]++
		r.log = append(r.log, what)
	}
	time.Sleep(time.Duration(r.random.IntN(300)) * time.Millisecond)
}

func (r *chaosRun) startChaosStream(t *testing.T) *streamer {
	args := []string{"--heartbeat", "1s"}
	if r.mode == chaosSync {
		args = append(args, "--synchronous")
	} else {
		args = append(args, "--interval", fmt.Sprintf("%dms", 10+r.random.IntN(200)))
	}
	r.stream = r.startStream(t, args...)
	return r.stream
}

// killPusher kills the wal push under way; false when none is.
func (r *chaosRun) killPusher(t *testing.T) bool {
	text, err := os.ReadFile(r.pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !strings.Contains(string(command), r.config) { // a stranger with its old number
		return false
	}
	return syscall.Kill(pid, syscall.SIGKILL) == nil
}

// crash is the loss of the host: all at once.
func (r *chaosRun) crash(t *testing.T) {
	r.Kill9(t)
	r.killPusher(t)
	if r.stream != nil {
		r.stream.kill(t)
		r.stream = nil
	}
	r.faults["kills the server"]++
	r.log = append(r.log, "kills the server")
}

// check restores to the end of the archive and looks for every row that was
// promised, in this run or an earlier one.
func (r *chaosRun) check(t *testing.T) {
	c := r.restored(t)
	defer stopAll(t, c)
	rows, err := c.Conn(t).Query(context.Background(), "select id from chaos")
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]bool{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		there[id] = true
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	var missing []int64
	for id := range r.promised {
		if !there[id] {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		own := slices.DeleteFunc(slices.Clone(missing), func(id int64) bool { return id < r.journal.first })
		t.Errorf("%d promised commits are lost, %d of them of this run: %v; reported as archived was %s", len(missing), len(own),
			r.journal.describe(own), r.journal.reported)
	}
	var replayed postgres.LSN
	if replayed, err = postgres.ParseLSN(c.QueryString(t, "select coalesce(pg_last_wal_replay_lsn(), '0/0')")); err == nil && t.Failed() {
		t.Logf("recovery ended at %s", replayed)
	}
}

var upToGap = regexp.MustCompile(`restore up to the gap with --target-lsn (\S+),`)

// restored restores to the end of the archive. Pushes archive several segments
// at once, so when the host dies one may be there and one before it not: then
// the restore refuses to leave out what lies behind the gap unasked, and says
// how to ask. A stream leaves no gap.
func (r *chaosRun) restored(t *testing.T) *servertest.Cluster {
	dir := filepath.Join(t.TempDir(), "restored")
	args := []string{"restore", "--to", dir, "--identity", r.identity}
	code, _, stderr := r.exec(t, args...)
	if hint := upToGap.FindStringSubmatch(stderr); code != 0 && hint != nil && r.mode.pushes() {
		r.log = append(r.log, "leaves a gap")
		r.faults["leaves a gap"]++
		code, _, stderr = r.exec(t, append(args, "--target-lsn", hint[1], "--target-action", "promote")...)
	}
	if code != 0 {
		t.Fatalf("restore: exit code %d\n%s", code, stderr)
	}
	return r.open(t, dir)
}

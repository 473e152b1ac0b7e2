package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
)

var (
	disasterRuns = flag.Int("disasters", 1, "how often TestRPO loses server and stream, in each mode")
	disasterSeed = flag.Uint64("disaster-seed", 0, "seed of the moments at which TestRPO kills; 0 is a new one")
)

// commitLoad commits rows over several connections until the server is gone, and
// remembers what the server acknowledged.
type commitLoad struct {
	mu      sync.Mutex
	acked   map[int64]time.Time // by the number in the row
	latency []time.Duration
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

const loadClients = 4

// startLoad begins with the row first; pause is what each client waits between
// its commits.
func startLoad(t *testing.T, c *servertest.Cluster, first int64, pause time.Duration) *commitLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &commitLoad{acked: map[int64]time.Time{}, cancel: cancel}
	t.Cleanup(l.stop)
	for client := range int64(loadClients) {
		conn, err := pgx.Connect(ctx, c.ConnString())
		if err != nil {
			t.Fatal(err)
		}
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			defer conn.Close(context.Background())
			for n := first + client; l.commit(ctx, conn, n); n += loadClients {
				if pause > 0 {
					time.Sleep(pause)
				}
			}
		}()
	}
	return l
}

// commit inserts one row; false when the server did not acknowledge it.
func (l *commitLoad) commit(ctx context.Context, conn *pgx.Conn, n int64) bool {
	began := time.Now()
	if _, err := conn.Exec(ctx, "insert into load values ($1, clock_timestamp(), repeat('x', 200))", n); err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[n] = time.Now()
	l.latency = append(l.latency, time.Since(began))
	return true
}

// stop ends the load and waits for it.
func (l *commitLoad) stop() {
	l.cancel()
	l.wg.Wait()
}

// TestRPO kills server and stream together, at random moments under load, and
// restores what the store has: what was lost is measured, and bounded. With
// --synchronous nothing may be lost that the server acknowledged.
func TestRPO(t *testing.T) {
	seed := *disasterSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-disaster-seed %d", seed)
	var without time.Duration
	for _, mode := range []struct {
		name  string
		flags []string
		bound time.Duration
	}{{"interval of 1s", nil, 2 * time.Second}, {"synchronous", []string{"--synchronous"}, 0}} {
		t.Run(mode.name, func(t *testing.T) {
			d := newDisasters(t, rand.New(rand.NewPCG(seed, uint64(mode.bound))), mode.flags)
			for range *disasterRuns {
				if lost := d.strike(t); lost > mode.bound {
					t.Errorf("%v were lost, allowed are %v", lost, mode.bound)
				}
			}
			d.print(t)
			if mode.flags == nil {
				without = median(d.commit)
				return
			}
			t.Logf("synchronous mode adds %v to the median commit; one PUT of 1 KiB takes %s", median(d.commit)-without, spread(d.puts(t)))
		})
	}
}

// disasters is a site that is lost again and again.
type disasters struct {
	*site
	random *rand.Rand
	flags  []string
	next   int64 // number of the next row
	rpo    []time.Duration
	commit []time.Duration // latencies
	lost   int             // acknowledged rows that did not come back
	acked  int
}

func newDisasters(t *testing.T, random *rand.Rand, flags []string) *disasters {
	t.Helper()
	s := newSite(t, siteOptions{s3: true})
	s.Setting(t, "archive_mode", "off")
	s.Restart(t)
	s.Exec(t, "create table load (n bigint primary key, at timestamptz, filler text)")
	st := s.stream(t, "--create-slot")
	s.run(t, "backup")
	st.stop(t)
	if flags != nil {
		s.Setting(t, "synchronous_standby_names", "lifeboat")
		s.Exec(t, "select pg_reload_conf()")
	}
	return &disasters{site: s, random: random, flags: flags, next: 1}
}

// strike lets the load run for a while, kills everything, restores, and says
// how long before the kill the oldest commit was acknowledged that did not come
// back; 0 when all came back. The newest row that did is no measure: before the
// load began nothing was committed.
func (d *disasters) strike(t *testing.T) time.Duration {
	t.Helper()
	st := d.stream(t, d.flags...)
	l := startLoad(t, d.Cluster, d.next, 0)
	timer := time.NewTimer(500*time.Millisecond + time.Duration(d.random.Int64N(int64(2500*time.Millisecond))))
	<-timer.C
	killed := time.Now()
	st.kill(t)
	d.Kill9(t)
	l.stop()
	there := d.recovered(t)
	lost, rpo := 0, time.Duration(0)
	for n, at := range l.acked {
		d.next = max(d.next, n+loadClients)
		if !there[n] {
			lost++
			rpo = max(rpo, killed.Sub(at))
		}
	}
	d.next += loadClients // a row that was not acknowledged may be there
	d.acked, d.lost, d.commit = d.acked+len(l.acked), d.lost+lost, append(d.commit, l.latency...)
	d.rpo = append(d.rpo, rpo)
	d.Start(t)
	return rpo
}

// recovered restores the newest backup to the end of the archive and says which
// rows came back.
func (d *disasters) recovered(t *testing.T) (there map[int64]bool) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	d.run(t, "restore", "--to", dir, "--identity", d.identity)
	c := d.open(t, dir)
	defer c.Stop(t, server.Immediate)
	rows, err := c.Conn(t).Query(context.Background(), "select n from load")
	if err != nil {
		t.Fatal(err)
	}
	there = map[int64]bool{}
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&n}, func() error {
		there[n] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}

// print shows the distributions.
func (d *disasters) print(t *testing.T) {
	t.Logf("%d disasters, %d acknowledged commits, %d of them lost", len(d.rpo), d.acked, d.lost)
	t.Logf("RPO: %s", spread(d.rpo))
	t.Logf("latency of a commit, %d clients: %s", loadClients, spread(d.commit))
}

// puts is how long each of some small PUTs takes, one after another.
func (d *disasters) puts(t *testing.T) []time.Duration {
	t.Helper()
	for _, e := range d.env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	ctx := context.Background()
	store, err := s3.New(ctx, s3.Options{Bucket: d.bucket.Bucket, Endpoint: d.bucket.Endpoint, CAFile: d.bucket.CAFile, PathStyle: true,
		Region: "us-east-1", Prefix: "puts"})
	if err != nil {
		t.Fatal(err)
	}
	var out []time.Duration
	for i := range 200 {
		began := time.Now()
		if err := store.Create(ctx, fmt.Sprintf("put/%d", i), bytes.NewReader(make([]byte, 1024))); err != nil {
			t.Fatal(err)
		}
		out = append(out, time.Since(began))
	}
	return out
}

func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func spread(all []time.Duration) string {
	s := slices.Sorted(slices.Values(all))
	if len(s) == 0 {
		return "none"
	}
	at := func(q float64) time.Duration {
		return s[int(q*float64(len(s)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("least %v, median %v, 95 %% %v, most %v", at(0), at(0.5), at(0.95), at(1))
}

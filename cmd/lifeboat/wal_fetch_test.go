package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/cmd/lifeboat/early"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/wal"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// replayed is a directory in which "wal fetch" is run as PostgreSQL runs it.
type replayed struct {
	*recovery
	dir   string
	queue string
	names []string
	want  map[string][]byte
}

func newReplayed(t *testing.T, r *recovery) *replayed {
	t.Helper()
	p := &replayed{recovery: r, dir: r.copyBase(t), want: map[string][]byte{}}
	p.queue = filepath.Join(p.dir, wal.SpoolDir, "fetch")
	for _, object := range r.objects(t) {
		p.names = append(p.names, filepath.Base(object))
	}
	plain := t.TempDir()
	for _, name := range p.names {
		path := filepath.Join(plain, name)
		r.run(t, "wal", "fetch", name, path, "--identity", r.identity)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p.want[name] = content
	}
	t.Cleanup(func() { p.endPrefetch(t) })
	return p
}

// cmd is restore_command for a file.
func (p *replayed) cmd(t *testing.T, name string, flags ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"wal", "fetch", name, "pg_wal/RECOVERYXLOG", "--config", p.config, "--identity", p.identity}, flags...)
	cmd := exec.Command(servertest.Command(t, "lifeboat"), args...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), p.env...)
	return cmd
}

// fetch runs restore_command and holds what it brought against the original.
func (p *replayed) fetch(t *testing.T, name string, flags ...string) (code int, stderr string) {
	t.Helper()
	cmd := p.cmd(t, name, flags...)
	var out bytes.Buffer
	cmd.Stderr = &out
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, "pg_wal", "RECOVERYXLOG")
	got, readErr := os.ReadFile(path)
	switch {
	case err == nil && (readErr != nil || !bytes.Equal(got, p.want[name])):
		t.Errorf("%s: exit code 0, and %d other bytes: %v", name, len(got), readErr)
	case err != nil && !errors.Is(readErr, fs.ErrNotExist):
		t.Errorf("%s: %v, and there is a file", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// awaitQueued waits until a segment is in the queue.
func (p *replayed) awaitQueued(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Lstat(filepath.Join(p.queue, name)); err == nil {
			return
		}
		if time.Now().After(deadline) {
			entries, _ := os.ReadDir(p.queue)
			t.Fatalf("%s was not fetched ahead within a minute: %v", name, entries)
		}
	}
}

// endPrefetch removes the queue, so that a prefetch ends, and waits for it.
func (p *replayed) endPrefetch(t *testing.T) {
	t.Helper()
	lock, _ := os.Open(filepath.Join(p.queue, "filling"))
	if err := wal.ClearFetched(p.dir); err != nil {
		t.Error(err)
	}
	if lock != nil {
		_ = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		lock.Close()
	}
}

// moreWAL writes and archives about n segments of 1 MiB.
func (r *recovery) moreWAL(t *testing.T, n int) {
	t.Helper()
	r.Exec(t, fmt.Sprintf("create table more%d as select i, md5(i::text) a, md5((i + 1)::text) b from generate_series(1, %d) i", rand.N(1<<30), 8000*n))
	r.flush(t)
}

// What was fetched ahead is handed over without the store, and what was not
// proven there stays with the store.
func TestFetchAhead(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, false)
	p := newReplayed(t, r)
	if code, stderr := p.fetch(t, p.names[0]); code != 0 || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	p.awaitQueued(t, p.names[1])
	p.awaitQueued(t, p.names[2])
	repository := filepath.Join(r.dir, "repository")
	hide := func() func() {
		if err := os.Rename(repository, repository+".away"); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.Rename(repository+".away", repository); err != nil {
				t.Fatal(err)
			}
		}
	}
	show := hide()
	if code, stderr := p.fetch(t, p.names[1]); code != 0 || stderr != "" {
		t.Errorf("from the queue alone: exit code %d: %s", code, stderr)
	}
	// It is gone from there, and so is what was ahead once that is known.
	if code, stderr := p.fetch(t, p.names[1]); code != 200 || !strings.Contains(stderr, "error:") {
		t.Errorf("without a store: exit code %d: %s", code, stderr)
	}
	show()
	t.Run("off", func(t *testing.T) {
		p := newReplayed(t, r)
		if code, _ := p.fetch(t, p.names[0], "--no-prefetch"); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Lstat(filepath.Dir(p.queue)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with --no-prefetch there is a queue: %v", err)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		p := newReplayed(t, r)
		p.fetch(t, p.names[0])
		p.awaitQueued(t, p.names[1])
		p.awaitQueued(t, p.names[2])
		if err := os.Truncate(filepath.Join(p.queue, p.names[1]), 4096); err != nil {
			t.Fatal(err)
		}
		code, stderr := p.fetch(t, p.names[1])
		if code != 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "damaged") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
	t.Run("cleared", func(t *testing.T) {
		for _, ask := range []string{"00000002.history", "000000020000000000000001", "0000000100000009000000FF"} {
			p := newReplayed(t, r)
			p.fetch(t, p.names[0])
			p.awaitQueued(t, p.names[1])
			p.awaitQueued(t, p.names[2])
			if code, stderr := p.fetch(t, ask); code != 1 {
				t.Errorf("%s: exit code %d: %s", ask, code, stderr)
			}
			if entries, err := os.ReadDir(filepath.Dir(p.queue)); err != nil || len(entries) > 0 {
				t.Errorf("%s left %v in the spool, %v", ask, entries, err)
			}
		}
	})
	t.Run("no place", func(t *testing.T) {
		p := newReplayed(t, r)
		if err := os.WriteFile(filepath.Dir(p.queue), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range p.names[:3] {
			if code, stderr := p.fetch(t, name); code != 0 || strings.Contains(stderr, "error:") {
				t.Errorf("%s: exit code %d: %s", name, code, stderr)
			}
		}
		if err := os.Remove(filepath.Dir(p.queue)); err != nil {
			t.Fatal(err)
		}
	})
}

// A segment that lies ready is handed over before main: main would refuse this
// command line.
func TestHandedOverBeforeMain(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, false)
	p := newReplayed(t, r)
	control, err := wal.ReadControl(t.Context(), p.dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.cmd(t, p.names[1], "--no-such-flag")
	cmd.Env = []string{"HOME=" + p.dir}
	q, err := queue.New(p.dir, control, early.Source(cmd.Args[1:], cmd.Env, p.dir, p.names[1], "pg_wal/RECOVERYXLOG"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := postgres.ParseWALName(p.names[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Asked(first, false); err != nil {
		t.Fatal(err)
	}
	source := func(_ context.Context, name postgres.WALName, to *os.File) error {
		if _, ok := p.want[name.Segment]; !ok {
			return fs.ErrNotExist
		}
		_, err := to.Write(p.want[name.Segment])
		return err
	}
	if _, err := q.Fill(t.Context(), func(context.Context) (queue.Source, error) { return source, nil }, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(p.dir, "pg_wal", "RECOVERYXLOG"))
	if err != nil || !bytes.Equal(got, p.want[p.names[1]]) {
		t.Errorf("%d other bytes, %v", len(got), err)
	}
	again := p.cmd(t, p.names[1], "--no-such-flag")
	again.Env = cmd.Env
	if out, err := again.CombinedOutput(); again.ProcessState.ExitCode() != 200 {
		t.Errorf("the second time: %v: %s", err, out)
	}
}

// prefetches are the processes that fetch ahead for the directory.
func (p *replayed) prefetches(t *testing.T) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Skip("without /proc the process cannot be found")
	}
	var pids []int
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("\x00prefetch\x00")) {
			continue
		}
		if cwd, err := os.Readlink(filepath.Join(filepath.Dir(path), "cwd")); err != nil || cwd != p.dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// Whenever fetch or prefetch is killed, what is handed over is whole and the
// next call succeeds.
func TestFetchKilled(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-kill-seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r := newRecovery(t, false)
	r.moreWAL(t, 20)
	p := newReplayed(t, r)
	whole := measured(func() { p.fetch(t, p.names[0], "--no-prefetch") })
	fetches, fills := 0, 0
	for range 3 {
		for _, name := range p.names {
			cmd := p.cmd(t, name)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(random.Int64N(int64(2*whole))), func() { _ = cmd.Process.Kill() })
			if cmd.Wait() != nil {
				fetches++
			}
			timer.Stop()
			if random.IntN(2) == 0 {
				for _, pid := range p.prefetches(t) {
					if syscall.Kill(pid, syscall.SIGKILL) == nil {
						fills++
					}
				}
			}
			if got, err := os.ReadFile(filepath.Join(p.dir, "pg_wal", "RECOVERYXLOG")); err == nil && !bytes.Equal(got, p.want[name]) {
				t.Errorf("%s: a killed fetch left %d other bytes", name, len(got))
			}
			if code, stderr := p.fetch(t, name); code != 0 {
				t.Errorf("%s: after a kill: exit code %d: %s", name, code, stderr)
			}
			files, err := filepath.Glob(filepath.Join(p.queue, strings.Repeat("[0-9A-F]", 24)))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				got, err := os.ReadFile(file)
				if err == nil && !bytes.Equal(got, p.want[filepath.Base(file)]) {
					t.Errorf("the queue holds %d other bytes as %s", len(got), filepath.Base(file))
				}
			}
		}
	}
	t.Logf("killed: %d fetches, %d prefetches", fetches, fills)
	if fetches == 0 || fills == 0 {
		t.Error("too few kills to prove anything")
	}
}

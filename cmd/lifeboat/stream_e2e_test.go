package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// streamer is a "lifeboat wal stream" that runs.
type streamer struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	lines bytes.Buffer
	ended chan error
}

// stream starts a stream and waits until it receives.
func (s *site) stream(t *testing.T, args ...string) *streamer {
	t.Helper()
	st := s.startStream(t, args...)
	st.waitFor(t, "streaming timeline")
	return st
}

func (s *site) startStream(t *testing.T, args ...string) *streamer {
	t.Helper()
	cmd := exec.Command(servertest.Command(t, "lifeboat"), append([]string{"wal", "stream", "--config", s.config}, args...)...)
	cmd.Env = append(os.Environ(), s.env...)
	st := &streamer{cmd: cmd, ended: make(chan error, 1)}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			st.mu.Lock()
			fmt.Fprintln(&st.lines, lines.Text())
			st.mu.Unlock()
		}
		st.ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("the stream said:\n%s", st.said())
		}
	})
	return st
}

func (st *streamer) said() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.lines.String()
}

// waitFor waits until the stream has said something.
func (st *streamer) waitFor(t *testing.T, what string) {
	t.Helper()
	eventually(t, "the stream to say "+what, func() bool { return strings.Contains(st.said(), what) })
}

// eventually waits for a condition, at most a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stop ends the stream in order; it must exit with 0.
func (st *streamer) stop(t *testing.T) {
	t.Helper()
	if err := st.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-st.ended:
		if err != nil {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the stream did not end")
	}
}

// kill ends the stream as a crash does.
func (st *streamer) kill(t *testing.T) {
	t.Helper()
	_ = st.cmd.Process.Kill()
	<-st.ended
}

// waitDurable waits until the slot has moved to a position.
func (s *site) waitDurable(t *testing.T, lsn string) {
	t.Helper()
	eventually(t, "the slot to reach "+lsn, func() bool {
		return s.QueryString(t, "select coalesce(restart_lsn >= '"+lsn+"', false) from pg_replication_slots where slot_name = 'lifeboat'") == "t"
	})
}

// Without archive_command, what was committed a moment ago comes back from the
// slices of a segment that never was complete.
func TestStreamAlone(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]siteOptions{"directory": {}, "S3": {s3: true}} {
		t.Run(name, func(t *testing.T) {
			o.server.Settings = map[string]string{"wal_level": "replica"}
			s := newSite(t, o)
			s.Setting(t, "archive_mode", "off")
			s.Restart(t)
			st := s.stream(t, "--create-slot")
			s.Exec(t, "create table t as select generate_series(1, 1000) n")
			s.run(t, "backup")
			s.Exec(t, "insert into t select generate_series(1001, 2000)")
			lsn := s.QueryString(t, "select pg_current_wal_flush_lsn()")
			s.waitDurable(t, lsn)
			if !o.s3 {
				eventually(t, "a block summary", func() bool {
					for key := range s.objects(t) {
						if strings.HasPrefix(key, "blocks/") {
							return true
						}
					}
					return false
				})
			}
			st.kill(t)
			s.Kill9(t)
			c := s.restoreTo(t)
			if got := c.QueryString(t, "select count(*) from t"); got != "2000" {
				t.Errorf("%s rows came back", got)
			}
		})
	}
}

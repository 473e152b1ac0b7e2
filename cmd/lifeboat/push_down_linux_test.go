package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// dropping is an address whose packets get lost: the queue of connections of
// its listener is full, so the kernel answers no other.
func dropping(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}).String()
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		cancel()
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
	return ""
}

// throttling is the URL of a store that always has too much to do.
func throttling(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// SIGTERM ends a push at once, with a code that leaves the archiver alive.
func TestPushIsStopped(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{s3: true, server: servertest.Options{WALSegmentSize: 1 << 20}})
	name := s.pileUp(t, 1)[0]
	addr, accepted := silent(t)
	cmd := exec.Command(servertest.Command(t, "lifeboat"), "wal", "push", "pg_wal/"+name, "--config", s.config, "--s3-endpoint", "https://"+addr)
	cmd.Env, cmd.Dir = append(os.Environ(), s.env...), s.DataDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-accepted
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if took := time.Since(begin); cmd.ProcessState.ExitCode() != 1 || took > 10*time.Second {
		t.Errorf("stopped after %v with %v", took, err)
	}
}

// TestStoreDown: whatever is wrong with the way to the store, the push fails
// within its limit, in one line that names the reason, and one hint.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{s3: true, server: servertest.Options{WALSegmentSize: 1 << 20}})
	path := filepath.Join(s.DataDir(), "pg_wal", s.pileUp(t, 3)[0])
	mute, _ := silent(t)
	for what, far := range map[string]struct{ flags, reason string }{
		"refused":        {"--s3-endpoint https://" + refusing(t), "connection refused"},
		"no such name":   {"--s3-endpoint https://no-such-host.invalid", "no such host"},
		"never answered": {"--s3-endpoint https://" + mute, "timeout"},
		"never accepted": {"--s3-endpoint https://" + dropping(t), "timeout"},
		"throttled":      {"--s3-endpoint " + throttling(t), "SlowDown"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel() // they wait
			const limit = 3 * time.Second
			begin := time.Now()
			code, _, stderr := s.exec(t, append([]string{"wal", "push", path, "--store-timeout", limit.String()}, strings.Fields(far.flags)...)...)
			took := time.Since(begin)
			t.Logf("after %v: %s", took, stderr)
			if code != 1 || strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "lifeboat: hint: ") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if !strings.Contains(stderr, far.reason) || strings.Contains(stderr, "context ") {
				t.Errorf("the reason %q is not told: %s", far.reason, stderr)
			}
			if took > limit+4*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

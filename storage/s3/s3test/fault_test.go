package s3test_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// echo sends text through a proxy to a server that sends it back, and says what
// came and how long it took.
func echo(t *testing.T, p *s3test.Proxy, text []byte) ([]byte, time.Duration, error) {
	t.Helper()
	began := time.Now()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(began.Add(10 * time.Second))
	go func() {
		_, _ = c.Write(text)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	return got, time.Since(began), err
}

// Each fault does what it says, in either direction, and is over when it ends.
func TestFaults(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	p, err := s3test.StartProxy(server.Addr().String(), s3test.ProxyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	text := bytes.Repeat([]byte("lifeboat"), 1000)
	whole := func() {
		t.Helper()
		if got, _, err := echo(t, p, text); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("without a fault: %d bytes, %v", len(got), err)
		}
	}
	for _, up := range []bool{true, false} {
		for _, c := range []struct {
			kind     s3test.FaultKind
			n        int64
			come     int           // bytes that arrive
			atLeast  time.Duration // and how long it takes
			mayError bool
		}{
			{s3test.Delays, 50, len(text), 50 * time.Millisecond, false},
			{s3test.Throttles, 40_000, len(text), 100 * time.Millisecond, false},
			{s3test.Truncates, 777, 777, 0, true},
			{s3test.Resets, 20, 0, 20 * time.Millisecond, true},
			{s3test.Swallows, 60, 0, 60 * time.Millisecond, true},
			{s3test.Dribbles, 100, len(text), 79 * 50 * time.Microsecond, false},
		} {
			whole()
			p.SetFault(&s3test.Fault{Kind: c.kind, Up: up, N: c.n})
			got, took, err := echo(t, p, text)
			// What a close has overtaken on its way back is lost.
			if len(got) > c.come || len(got) < c.come && !c.mayError || !bytes.HasPrefix(text, got) || took < c.atLeast || err != nil && !c.mayError {
				t.Errorf("%s, up %v: %d bytes after %v, %v; want %d after %v", c.kind, up, len(got), took, err, c.come, c.atLeast)
			}
			if c.kind == s3test.Resets && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s, up %v: %v, want a reset", c.kind, up, err)
			}
			p.SetFault(nil)
		}
	}
	for range 2 {
		if err := p.Refuse(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := echo(t, p, text); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refusing: %v", err)
	}
	for range 2 {
		if err := p.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	whole()
}

package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// viaProxy gives a store that reaches the server through a proxy.
func viaProxy(t *testing.T, server *s3test.Server, way s3test.ProxyOptions) (*s3.Store, *s3test.Proxy) {
	t.Helper()
	proxy, err := s3test.StartProxy(server.Addr, way)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	o := options(server)
	o.Endpoint = "https://" + proxy.Addr()
	return open(t, o), proxy
}

func read(ctx context.Context, store storage.Store, key string, off, n int64) ([]byte, error) {
	body, err := store.Open(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(body)
	return got, errors.Join(err, body.Close())
}

// A key that is taken is daily business: a segment pushed twice, a pack that
// another backup wrote. The body must not be sent again and again for it.
func TestTakenKeyIsCheap(t *testing.T) {
	ctx := context.Background()
	server := s3test.Start(t, s3test.Options{TLS: true})
	store, proxy := viaProxy(t, server, s3test.ProxyOptions{})
	for _, size := range []int{100, 5 * mib, 16 * mib} {
		body := randomBytes(size)
		key := "taken/" + string(rune('a'+size%26))
		if err := store.Create(ctx, key, bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		const rounds = 5
		first, _ := proxy.Bytes()
		for range rounds {
			begin := time.Now()
			err := store.Create(ctx, key, bytes.NewReader(body))
			took := time.Since(begin)
			if !errors.Is(err, fs.ErrExist) {
				t.Fatalf("Create of a taken key: %v", err)
			}
			t.Logf("%8d bytes: refused after %v", size, took)
			if took > 600*time.Millisecond {
				t.Errorf("it took %v to learn that the key of a body of %d bytes is taken", took, size)
			}
		}
		// Over all rounds: what one sent can still be on its way when it ends.
		last, _ := proxy.Bytes()
		if sent := (last - first) / rounds; sent > int64(size)+int64(size)/10+20*kib {
			t.Errorf("%d bytes were sent to learn that the key of a body of %d is taken", sent, size)
		}
	}
}

func TestLostAnswer(t *testing.T) {
	ctx := context.Background()
	server := s3test.Start(t, s3test.Options{TLS: true})
	store, proxy := viaProxy(t, server, s3test.ProxyOptions{})
	direct := open(t, options(server))
	for name, size := range map[string]int{"small": 10 * kib, "large": 5 * mib} {
		body := randomBytes(size)

		// The object is made and nobody says so.
		proxy.SetRule(s3test.Rule{AfterUp: int64(size)})
		if err := store.Create(ctx, "lost/"+name, bytes.NewReader(body)); err != nil {
			t.Errorf("%s: our own object was not recognized: %v", name, err)
		}
		if !proxy.Fired() {
			t.Fatal("the connection was never cut")
		}
		if got, err := read(ctx, direct, "lost/"+name, 0, -1); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes came back of %d: %v", name, len(got), size, err)
		}

		// The object is somebody else's, even with the same bytes. The server
		// may say so before the cut, having read no more than the header: then
		// nothing is shown, and it is tried again.
		cut := false
		for try := 0; try < 50 && !cut; try++ {
			proxy.SetRule(s3test.Rule{AfterUp: 4 * kib})
			if err := store.Create(ctx, "lost/"+name, bytes.NewReader(body)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: a lost answer about another's object: %v", name, err)
			}
			cut = proxy.Fired()
		}
		if !cut {
			t.Fatal("the connection was never cut")
		}
	}
}

func TestBrokenTransferIsResumed(t *testing.T) {
	ctx := context.Background()
	server := s3test.Start(t, s3test.Options{TLS: true})
	store, proxy := viaProxy(t, server, s3test.ProxyOptions{})
	body := randomBytes(8 * mib)
	if err := store.Create(ctx, "a", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{0, -1}, {mib + 1, -1}, {2*mib - 1, 5 * mib}} {
		want := body[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		proxy.SetRule(s3test.Rule{AfterDown: 3 * mib})
		got, err := read(ctx, store, "a", r[0], r[1])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Open(%d, %d) over a breaking connection: %d bytes, want %d: %v", r[0], r[1], len(got), len(want), err)
		}
		if !proxy.Fired() {
			t.Fatal("the connection was never cut")
		}
	}

	// An object that changes meanwhile must not be patched together.
	reader, err := store.Open(ctx, "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := io.ReadFull(reader, make([]byte, mib)); err != nil {
		t.Fatal(err)
	}
	direct := open(t, options(server))
	if err := direct.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := direct.Create(ctx, "a", bytes.NewReader(make([]byte, 8*mib))); err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	rest, err := io.ReadAll(reader)
	if err == nil {
		t.Errorf("%d bytes were read of an object that was replaced midway", len(rest))
	} else if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		t.Errorf("a replaced object is reported as %v", err)
	}
}

// A connection that always breaks must end the read, and not with io.EOF.
func TestTransferThatKeepsBreaking(t *testing.T) {
	ctx := context.Background()
	server := s3test.Start(t, s3test.Options{TLS: true})
	store, proxy := viaProxy(t, server, s3test.ProxyOptions{})
	if err := store.Create(ctx, "a", bytes.NewReader(randomBytes(8*mib))); err != nil {
		t.Fatal(err)
	}
	reader, err := store.Open(ctx, "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := io.ReadFull(reader, make([]byte, 64*kib)); err != nil {
		t.Fatal(err)
	}
	if err := proxy.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err = io.ReadAll(reader); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("reading on from a server that is gone: %v", err)
	}
}

func TestDeadEndpoint(t *testing.T) {
	server := s3test.Start(t, s3test.Options{TLS: true})
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, endpoint := range map[string]string{
		"refused": server.Endpoint,
		"silent":  "https://" + silent.Addr().String(),
		"no name": "https://no-such-host.invalid",
	} {
		t.Run(name, func(t *testing.T) {
			o := options(server)
			o.Endpoint, o.Attempts = endpoint, 2
			o.DialTimeout, o.StallTimeout = 300*time.Millisecond, 300*time.Millisecond
			begin := time.Now()
			for op, err := range everyOperation(open(t, o)) {
				if !errors.Is(err, storage.ErrUnavailable) {
					t.Errorf("%s: %v, want %q", op, err, storage.ErrUnavailable)
				}
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, storage.ErrNoStore) {
					t.Errorf("%s takes a dead endpoint for an answer: %v", op, err)
				}
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("five operations took %v to fail", took)
			}
		})
	}
}

// When the time is up while it is tried again, the error still tells why: in
// the pause between two tries, and in the middle of one.
func TestEndedRetriesTellTheReason(t *testing.T) {
	server := s3test.Start(t, s3test.Options{TLS: true})
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, endpoint := range map[string]string{"refused": server.Endpoint, "silent": "https://" + silent.Addr().String()} {
		o := options(server)
		o.Endpoint, o.Attempts = endpoint, 1000
		o.DialTimeout, o.StallTimeout = 400*time.Millisecond, 400*time.Millisecond
		store := open(t, o)
		for op, run := range map[string]func(context.Context) error{
			"create": func(ctx context.Context) error { return store.Create(ctx, "k", bytes.NewReader(nil)) },
			"stat":   func(ctx context.Context) error { _, err := store.Stat(ctx, "k"); return err },
			"open":   func(ctx context.Context) error { _, err := store.Open(ctx, "k", 0, -1); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			err := run(ctx)
			cancel()
			ended, ok := errors.AsType[*storage.EndedError](err)
			if !ok || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(ended.Last, storage.ErrUnavailable) {
				t.Errorf("%s, %s: %v", name, op, err)
			}
		}
	}
}

// A server that stops reading in the middle of a body, and one that stops
// writing, must not hold us for as long as TCP would.
func TestStall(t *testing.T) {
	ctx := context.Background()
	server := s3test.Start(t, s3test.Options{TLS: true})
	body := randomBytes(16 * mib)
	if err := open(t, options(server)).Create(ctx, "a", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	slow, err := s3test.StartProxy(server.Addr, s3test.ProxyOptions{Rate: 3 * mib})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	o := options(server)
	o.Endpoint, o.Attempts, o.StallTimeout = "https://"+slow.Addr(), 1, 3*time.Second

	// Slow is not stalled: these take longer than the time allowed for a stall.
	begin := time.Now()
	got, err := read(ctx, open(t, o), "a", 0, 11*mib)
	if err != nil || !bytes.Equal(got, body[:11*mib]) {
		t.Errorf("a slow read gives %d bytes, %v", len(got), err)
	}
	if took := time.Since(begin); took < o.StallTimeout {
		t.Errorf("the slow read took only %v: it proves nothing", took)
	}
	begin = time.Now()
	if err := open(t, o).Create(ctx, "slow", bytes.NewReader(body[:11*mib])); err != nil {
		t.Errorf("a slow write: %v", err)
	}
	if took := time.Since(begin); took < o.StallTimeout {
		t.Errorf("the slow write took only %v: it proves nothing", took)
	}

	server.Pause()
	defer server.Resume()
	o = options(server)
	o.Attempts, o.StallTimeout = 1, 300*time.Millisecond
	begin = time.Now()
	if err := open(t, o).Create(ctx, "b", bytes.NewReader(body)); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Create on a server that hangs: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a hanging server held us for %v", took)
	}
}

// One connection serves one request after the other: a new one costs two more
// round trips.
func TestConnectionsAreReused(t *testing.T) {
	ctx := context.Background()
	server := s3test.Start(t, s3test.Options{TLS: true})
	store, proxy := viaProxy(t, server, s3test.ProxyOptions{})
	for i := range 20 {
		key := string(rune('a' + i))
		if err := store.Create(ctx, key, bytes.NewReader(randomBytes(100*kib))); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int64{-1, 10 * kib, 200 * kib} {
			if _, err := read(ctx, store, key, 1, n); err != nil {
				t.Fatal(err)
			}
		}
		for op, err := range everyOperation(store) {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s: %v", op, err)
			}
		}
	}
	if n := proxy.Connections(); n != 1 {
		t.Errorf("%d connections for requests one after the other", n)
	}

	// Sixteen workers keep about sixteen for their 240 requests. Go dials while
	// it waits for a free one, so there can be more.
	for range 3 {
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				for range 5 {
					if _, err := read(ctx, store, "a", 0, -1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
	}
	if n := proxy.Connections(); n > 60 {
		t.Errorf("%d connections for sixteen workers", n)
	}
}

// The start of a command must wait for nobody.
func TestNewSendsNothing(t *testing.T) {
	server := s3test.Start(t, s3test.Options{TLS: true})
	proxy, err := s3test.StartProxy(server.Addr, s3test.ProxyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+proxy.Addr())
	o := options(server)
	o.Endpoint = "https://" + proxy.Addr()
	store := open(t, o)
	if n := proxy.Connections(); n != 0 {
		t.Errorf("New made %d connections", n)
	}
	if err := store.Create(context.Background(), "a", bytes.NewReader(nil)); err != nil {
		t.Error(err)
	}
	if n := proxy.Connections(); n != 1 {
		t.Errorf("the first Create made %d connections", n)
	}
}

// everyOperation runs each operation once on a key that is not there.
func everyOperation(store storage.Store) map[string]error {
	ctx := context.Background()
	_, statErr := store.Stat(ctx, "no/such/key")
	_, openErr := read(ctx, store, "no/such/key", 0, -1)
	_, emptyErr := read(ctx, store, "no/such/key", 0, 0)
	var listErr error
	for _, err := range store.List(ctx, "no/") {
		listErr = err
	}
	return map[string]error{
		"Create":  store.Create(ctx, "no/such/key", bytes.NewReader([]byte("x"))),
		"Stat":    statErr,
		"Open":    openErr,
		"Open(0)": emptyErr,
		"List":    listErr,
		"Delete":  store.Delete(ctx, "no/such/key"),
	}
}

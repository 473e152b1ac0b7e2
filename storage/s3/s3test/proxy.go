package s3test

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy forwards TCP connections from a port of 127.0.0.1 to a server. It can
// delay every byte, as a long way does, limit the rate, and cut connections at
// chosen places. What is inside, TLS included, passes untouched.
type Proxy struct {
	addr    string
	target  string
	options ProxyOptions
	done    sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
	refusing bool
	fault    *Fault
	links    map[*link]struct{}
	closed   bool
	rule     *Rule
	dropped  bool // the rule has cut
	up       int64
	down     int64
	opened   int
}

// ProxyOptions say how long and how wide the way is.
type ProxyOptions struct {
	// Delay is added in each direction, so that a round trip takes twice as
	// long; a new connection costs one round trip more, as the TCP handshake
	// does. It does not limit the rate.
	Delay time.Duration
	// Rate limits each direction of each connection, in bytes a second; 0 is
	// no limit. The sender then feels it: little is kept on the way.
	Rate int64
}

// Rule cuts one connection, the first that fulfils it, with a reset. Later
// connections pass, until another rule is set.
type Rule struct {
	// AfterUp cuts when this many bytes went to the server and the server
	// answers: the request arrived in full and its answer is lost. 0: not.
	AfterUp int64
	// AfterDown cuts when this many bytes came from the server. 0: not.
	AfterDown int64
}

// StartProxy starts a proxy to target (host:port). Close ends it.
func StartProxy(target string, o ProxyOptions) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, addr: listener.Addr().String(), target: target, options: o, links: make(map[*link]struct{})}
	p.done.Go(func() { p.accept(listener) })
	return p, nil
}

// Addr is the host:port to connect to.
func (p *Proxy) Addr() string { return p.addr }

// SetRule arms a rule; connections that are open count as well, from the
// bytes that pass from now on.
func (p *Proxy) SetRule(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule, p.dropped = &r, false
	for l := range p.links {
		l.up, l.down = 0, 0
	}
}

// Fired says whether the rule that was set last has cut a connection.
func (p *Proxy) Fired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// Bytes says how much went to the server and came from it so far.
func (p *Proxy) Bytes() (up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.down
}

// Connections says how many connections were made so far.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// Cut resets all connections that are open.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Close cuts all connections and stops listening. A second call does nothing.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.Refuse()
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	begin := time.Now()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		(&link{client: client}).reset()
		return
	}
	l := &link{client: client, server: server}
	p.mu.Lock()
	closed := p.closed || p.refusing
	p.links[l] = struct{}{}
	p.opened++
	p.mu.Unlock()
	if closed {
		l.reset()
	}

	var both sync.WaitGroup
	both.Go(func() { p.forward(l, client, server, true, begin.Add(2*p.options.Delay)) })
	both.Go(func() { p.forward(l, server, client, false, begin) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	_ = client.Close()
	_ = server.Close()
}

// forward passes bytes on, each chunk once its delay is over. Nothing leaves
// before notBefore plus one delay.
func (p *Proxy) forward(l *link, from, to net.Conn, up bool, notBefore time.Time) {
	type chunk struct {
		due  time.Time
		data []byte
	}
	// As many chunks as may be on their way: enough for any rate that a test
	// reaches, and never a limit on how far the sender is ahead.
	way := make(chan chunk, 1<<14)
	var sender sync.WaitGroup
	sender.Go(func() {
		for c := range way {
			time.Sleep(time.Until(c.due))
			if !p.count(l, int64(len(c.data)), up) {
				l.reset()
				continue
			}
			if err := p.pass(l, to, c.data, up); err != nil {
				l.reset()
			}
		}
		closeWrite(to)
	})
	free := notBefore // when the line is free for the next chunk
	if tcp, ok := from.(*net.TCPConn); ok && p.options.Rate > 0 {
		_ = tcp.SetReadBuffer(64 << 10)
	}
	for {
		if p.options.Rate > 0 {
			time.Sleep(time.Until(free))
		}
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			if now := time.Now(); free.Before(now) {
				free = now
			}
			if p.options.Rate > 0 {
				free = free.Add(time.Duration(n) * time.Second / time.Duration(p.options.Rate))
			}
			way <- chunk{due: free.Add(p.options.Delay), data: buf[:n]}
		}
		if err != nil {
			close(way)
			sender.Wait()
			if !errors.Is(err, io.EOF) {
				l.reset()
			}
			return
		}
	}
}

// count takes note of bytes about to pass and says whether they may.
func (p *Proxy) count(l *link, n int64, up bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rule
	armed := r != nil && !p.dropped
	if up {
		p.up += n
		l.up += n
		return true
	}
	cut := armed && (r.AfterUp > 0 && l.up >= r.AfterUp || r.AfterDown > 0 && l.down+n > r.AfterDown)
	if cut {
		p.dropped = true
		return false
	}
	p.down += n
	l.down += n
	return true
}

// link is one connection of a client and the one to the server behind it.
type link struct {
	client, server net.Conn
	up, down       int64 // bytes since the rule was set
	faulty         int64 // bytes that a fault has let pass
}

// reset ends both, without a farewell.
func (l *link) reset() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		if c != nil {
			_ = c.Close()
		}
	}
}

// end closes both in good order.
func (l *link) end() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

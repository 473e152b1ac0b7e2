package s3test

import (
	"fmt"
	"io"
	"net"
	"time"
)

// Fault is what a bad network does to all connections of a Proxy, in one direction.
type Fault struct {
	Kind FaultKind
	Up   bool  // to the server, else from it
	N    int64 // how much, in the unit of the kind
}

// FaultKind says what a Fault does.
type FaultKind int

// The kinds. The way back to health is SetFault(nil); what ends connections ends
// those alone through which bytes want to pass.
const (
	Delays    FaultKind = iota // every chunk, N milliseconds
	Throttles                  // to N bytes a second
	Truncates                  // lets N bytes of a connection pass, then closes it
	Resets                     // connections, N milliseconds after a byte
	Swallows                   // all bytes, and closes the connection after N milliseconds
	Dribbles                   // pieces of N bytes, 50 µs apart
)

func (k FaultKind) String() string {
	names := []string{"delays", "throttles", "truncates", "resets", "swallows", "dribbles"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("fault %d", int(k))
	}
	return names[k]
}

// SetFault begins a fault in the place of the one before; nil ends it.
func (p *Proxy) SetFault(f *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	for l := range p.links {
		l.faulty = 0
	}
}

// faultOf is the fault of a direction, nil for none.
func (p *Proxy) faultOf(up bool) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil || p.fault.Up != up {
		return nil
	}
	return p.fault
}

// pass writes bytes of a connection, as far as the fault of the moment lets it.
// An error is the end of the connection.
func (p *Proxy) pass(l *link, to net.Conn, data []byte, up bool) error {
	f := p.faultOf(up)
	if f == nil {
		_, err := to.Write(data)
		return err
	}
	wait := time.Duration(f.N) * time.Millisecond
	switch f.Kind {
	case Delays:
		time.Sleep(wait)
	case Throttles:
		piece := max(1, f.N/20) // so that the end of the fault is soon noticed
		return p.pieces(l, to, data, f, piece, time.Duration(piece)*time.Second/time.Duration(f.N))
	case Truncates:
		p.mu.Lock()
		data = data[:min(int64(len(data)), max(0, f.N-l.faulty))]
		l.faulty += int64(len(data))
		end := l.faulty >= f.N
		p.mu.Unlock()
		if _, err := to.Write(data); err != nil || !end {
			return err
		}
		l.end()
		return io.ErrUnexpectedEOF
	case Resets:
		time.Sleep(wait)
		return io.ErrUnexpectedEOF
	case Swallows:
		time.Sleep(wait)
		l.end()
		return io.ErrUnexpectedEOF
	case Dribbles:
		return p.pieces(l, to, data, f, f.N, 50*time.Microsecond)
	}
	_, err := to.Write(data)
	return err
}

// pieces writes data piece by piece while the fault lasts, and then the rest.
func (p *Proxy) pieces(l *link, to net.Conn, data []byte, f *Fault, size int64, pause time.Duration) error {
	for int64(len(data)) > size && p.faultOf(f.Up) == f {
		if _, err := to.Write(data[:size]); err != nil {
			return err
		}
		data = data[size:]
		time.Sleep(pause)
	}
	_, err := to.Write(data)
	return err
}

// Refuse cuts all connections and refuses new ones, until Accept. A second call
// does nothing.
func (p *Proxy) Refuse() error {
	p.mu.Lock()
	refusing := p.refusing
	p.refusing = true
	p.mu.Unlock()
	if refusing {
		return nil
	}
	err := p.listener.Close()
	p.Cut()
	p.done.Wait()
	return err
}

// Accept takes connections again, at the same address. Without a Refuse before it
// does nothing.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.refusing || p.closed {
		return nil
	}
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener, p.refusing = listener, false
	p.done.Go(func() { p.accept(listener) })
	return nil
}

package rdstest

import (
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
)

// nameServer answers with the one address that a name leads to now, and a time to
// live of five seconds, as Amazon's does.
type nameServer struct {
	addr string
	conn net.PacketConn

	mu    sync.Mutex
	hosts map[string]net.IP
}

func startDNS(t testing.TB) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{addr: conn.LocalAddr().String(), conn: conn, hosts: map[string]net.IP{}}
	t.Cleanup(func() { conn.Close() })
	go s.serve()
	return s
}

func (s *nameServer) set(host, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if address == "" {
		delete(s.hosts, host)
		return
	}
	s.hosts[host] = net.ParseIP(address).To4()
}

func (s *nameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if out := s.reply(buf[:n]); out != nil {
			_, _ = s.conn.WriteTo(out, from)
		}
	}
}

// reply answers a query of one question (RFC 1035, section 4).
func (s *nameServer) reply(q []byte) []byte {
	if len(q) < 17 || binary.BigEndian.Uint16(q[4:]) != 1 {
		return nil
	}
	var labels []string
	at := 12
	for at < len(q) && q[at] != 0 {
		n := int(q[at])
		if at+1+n >= len(q) {
			return nil
		}
		labels = append(labels, string(q[at+1:at+1+n]))
		at += 1 + n
	}
	end := at + 5 // the zero label, type, class
	if end > len(q) {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[at+1:])
	s.mu.Lock()
	ip, known := s.hosts[strings.ToLower(strings.Join(labels, "."))]
	s.mu.Unlock()
	out := append([]byte{q[0], q[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
	switch {
	case !known:
		out[3] |= 3 // NXDOMAIN
	case kind == 1: // A
		out[7] = 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4)
		out = append(out, ip...)
	}
	return out
}

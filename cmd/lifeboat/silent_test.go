package main

import (
	"io"
	"net"
	"testing"
)

// silent is the address of a server that accepts connections and says nothing.
// The channel gets one value for each.
func silent(t *testing.T) (addr string, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			came <- struct{}{}
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String(), came
}

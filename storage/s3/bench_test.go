package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// BenchmarkCreate stores objects of the size of a compressed WAL segment over
// TLS, on the loopback and over a way with 20 ms of round trip.
func BenchmarkCreate(b *testing.B) {
	for _, way := range []time.Duration{0, 10 * time.Millisecond} {
		b.Run(fmt.Sprintf("round_trip=%v", 2*way), func(b *testing.B) {
			ctx := context.Background()
			server := s3test.Start(b, s3test.Options{TLS: true})
			o := options(server)
			if way > 0 {
				proxy, err := s3test.StartProxy(server.Addr, s3test.ProxyOptions{Delay: way})
				if err != nil {
					b.Fatal(err)
				}
				defer proxy.Close()
				o.Endpoint = "https://" + proxy.Addr()
			}
			body := randomBytes(5 * mib)
			b.Run("warm", func(b *testing.B) {
				store, err := s3.New(ctx, o)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(body)))
				for i := range b.N {
					if err := store.Create(ctx, fmt.Sprintf("warm/%d-%d", b.N, i), bytes.NewReader(body)); err != nil {
						b.Fatal(err)
					}
				}
			})
			// As a process of its own does it: with a new connection.
			b.Run("cold", func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				for i := range b.N {
					store, err := s3.New(ctx, o)
					if err != nil {
						b.Fatal(err)
					}
					if err := store.Create(ctx, fmt.Sprintf("cold/%d-%d", b.N, i), bytes.NewReader(body)); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkNew is part of the start of every command.
func BenchmarkNew(b *testing.B) {
	o := options(s3test.Start(b, s3test.Options{TLS: true}))
	for range b.N {
		if _, err := s3.New(context.Background(), o); err != nil {
			b.Fatal(err)
		}
	}
}

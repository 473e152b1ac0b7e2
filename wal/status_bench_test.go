package wal

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// BenchmarkStatusOf10000 is what "wal status" does with an archive of 10,000 segments
// of 1 MiB (sealed 10 KiB): listed only, all headers read, and none, since all are
// remembered. In a directory, and on an S3 server on loopback (versitygw).
//
//	go test ./wal -run '^$' -bench StatusOf10000 -benchtime 3x
func BenchmarkStatusOf10000(b *testing.B) {
	const segments = 10000
	root := b.TempDir()
	dir := fileStoreAt(b, filepath.Join(root, "bucket", "main"))
	a := newArchive(b, dir)
	fillFrom(b, a, segments)
	stores := map[string]func(b *testing.B) storage.Store{
		"directory": func(*testing.B) storage.Store { return dir },
		"s3": func(b *testing.B) storage.Store {
			server := s3test.Start(b, s3test.Options{})
			store, err := s3.New(context.Background(), s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint, PathStyle: true, Prefix: "main"})
			if err != nil {
				b.Fatal(err)
			}
			copyObjects(b, store, dir)
			return store
		},
	}
	for _, name := range []string{"directory", "s3"} {
		b.Run(name, func(b *testing.B) {
			r := a.open(b, stores[name](b), "db1")
			look := func(b *testing.B, load func() (*Index, error)) *Index {
				ix, err := load()
				if err != nil {
					b.Fatal(err)
				}
				return ix
			}
			b.Run("listed", func(b *testing.B) {
				for b.Loop() {
					look(b, func() (*Index, error) { return LoadIndex(b.Context(), r, testSystem) })
				}
			})
			known := NewHeaders(r.TrustID())
			checked := func(known *Headers) func() (*Index, error) {
				return func() (*Index, error) {
					return LoadChecked(b.Context(), r, testSystem, func(storage.Info) {}, HeaderCheck{Known: known})
				}
			}
			b.Run("first", func(b *testing.B) {
				for b.Loop() {
					known = NewHeaders(r.TrustID())
					if n := look(b, checked(known)).Headers(); n.Read != segments {
						b.Fatalf("%+v", n)
					}
				}
			})
			raw := known.Encode(nil)
			b.Run("again", func(b *testing.B) {
				for b.Loop() {
					known, err := ParseHeaders(raw, r.TrustID())
					if err != nil {
						b.Fatal(err)
					}
					if n := look(b, checked(known)).Headers(); n.Read != 0 || n.Checked != segments {
						b.Fatalf("%+v", n)
					}
				}
			})
		})
	}
}

// fillFrom archives segments one after the other.
func fillFrom(b *testing.B, a *archive, segments int) {
	body := strings.NewReader(strings.Repeat("\x00", 1<<20))
	for no := 1; no <= segments; no++ {
		seg := postgres.Segment{Timeline: 1, No: uint64(no), Size: 1 << 20}
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		key := repo.WALKey(testSystem, postgres.WALName{Kind: postgres.WALSegment, Timeline: 1, Segment: seg.Name()})
		if _, err := a.CreateEnvelope(b.Context(), key, repo.KindWAL, body, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

func copyObjects(b *testing.B, to, from storage.Store) {
	for o, err := range from.List(b.Context(), "") {
		if err != nil {
			b.Fatal(err)
		}
		rc, err := from.Open(b.Context(), o.Key, 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		raw, err := io.ReadAll(rc)
		_ = rc.Close()
		if err == nil {
			err = to.Create(b.Context(), o.Key, strings.NewReader(string(raw)))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

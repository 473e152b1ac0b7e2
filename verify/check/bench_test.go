package check_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// packs stores n packs of 15 MiB that do not compress, in a backup, and the WAL
// of its start.
func packs(b *testing.B, store storage.Store, n int) (opens, hashes *repo.Repo) {
	b.Helper()
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	cluster, err := repo.NewClusterKey("shop", repo.NewID())
	must(err)
	recovery, err := repo.NewRecoveryKey(cluster)
	must(err)
	keys := repo.Keys{Cluster: cluster, Identities: recovery.Identities, Trusted: recovery.Signers}
	for _, s := range recovery.Recipients() {
		r, err := repo.ParseRecipient(s)
		must(err)
		keys.Recipients = append(keys.Recipients, r)
	}
	r, err := repo.Create(ctx, store, keys, "db1", time.Now())
	must(err)
	m, w := r.NewManifestWriter(), (*repo.PackWriter)(nil)
	w, err = r.NewPackWriter(repo.NewPackBuffers(1), repo.Fastest)
	must(err)
	raw := make([]byte, repo.FrameSize)
	rnd := rand.NewChaCha8([32]byte{})
	var files []repo.FileEntry
	for i := range n {
		var e repo.PackEntry
		for j := range 15 {
			_, _ = rnd.Read(raw)
			ref, err := w.Add(ctx, raw)
			must(err)
			e.Frames = append(e.Frames, repo.FrameEntry{FrameRef: ref, To: []repo.Span{{File: i, Off: int64(j) * repo.FrameSize, Len: repo.FrameSize}}})
		}
		p, err := w.Finish()
		must(err)
		must(r.StorePack(ctx, p))
		e.PackRef = p.PackRef
		p.Release()
		must(m.Add(e))
		files = append(files, repo.FileEntry{Type: repo.Regular, Path: fmt.Sprint(i), Mode: 0o600, Size: 15 * repo.FrameSize})
	}
	const seg = 16 << 20
	info := repo.Info{Label: "20260131T020000Z-1a2b3c", System: 1, Timeline: 1, StartLSN: seg + 40, StopLSN: seg + 400, StopTime: time.Now(), SegSize: seg, BlockSize: 8192}
	must(m.Commit(ctx, &info, files))
	name, err := postgres.ParseWALName(postgres.SegmentAt(1, seg, seg).Name())
	must(err)
	_, err = r.CreateEnvelope(ctx, repo.WALKey(1, name), repo.KindWAL, bytes.NewReader(make([]byte, seg)), seg)
	must(err)
	hashes, err = repo.Open(ctx, store, repo.Keys{Cluster: cluster}, "db1")
	must(err)
	return r, hashes
}

// BenchmarkRead reads every byte of a repository: what a check takes beside the
// store, and with a real server of S3.
func BenchmarkRead(b *testing.B) {
	const n = 24
	stores := map[string]func(b *testing.B) storage.Store{
		"memory": func(*testing.B) storage.Store { return mem.New() },
		"s3": func(b *testing.B) storage.Store {
			server, err := s3test.StartServer(b.TempDir(), s3test.Options{TLS: true})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { server.Stop() })
			for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": server.AccessKey, "AWS_SECRET_ACCESS_KEY": server.SecretKey} {
				b.Setenv(name, value)
			}
			s, err := s3.New(context.Background(), s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint, CAFile: server.CAFile, PathStyle: true})
			if err != nil {
				b.Fatal(err)
			}
			return s
		},
	}
	for name, open := range stores {
		b.Run(name, func(b *testing.B) {
			opens, hashes := packs(b, open(b), n)
			for how, r := range map[string]*repo.Repo{"frames": opens, "hashes": hashes} {
				b.Run(how, func(b *testing.B) {
					b.SetBytes(n * 15 * repo.FrameSize)
					for b.Loop() {
						res, err := check.Run(context.Background(), r, check.Options{Read: true, Jobs: 2, Now: time.Now})
						if err != nil || len(res.Findings) > 1 || res.Read.Objects < n {
							b.Fatal(err, res)
						}
					}
					b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "objects/s")
				})
			}
		})
	}
}

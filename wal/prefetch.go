package wal

import (
	"context"
	"io"
	"os"

	"golang.org/x/sync/semaphore"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// PrefetchSource returns the source from which a queue is filled: the archive of a
// system. A segment is written once its signature and the hash of its sealed
// bytes are verified, and the rest as Fetch does it; at most decoders are
// decrypted and decompressed at once. Only whole segments are brought, none
// that is there in slices.
func PrefetchSource(r *repo.Repo, system postgres.SystemID, decoders int) queue.Source {
	decode := semaphore.NewWeighted(int64(max(decoders, 1)))
	return func(ctx context.Context, name postgres.WALName, to *os.File) error {
		h, body, err := r.OpenEnvelope(ctx, repo.WALKey(system, name), repo.KindWAL)
		if err != nil {
			return err
		}
		defer body.Close()
		if err := decode.Acquire(ctx, 1); err != nil {
			return err
		}
		defer decode.Release(1)
		checked, err := checkFetched(system, name, h.Size, body)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{to}, checked, make([]byte, 256<<10))
		}
		return notTheEnd(err)
	}
}

// ClearFetched removes what was fetched ahead for a data directory, if there is
// anything. After a promotion none of it is wanted any more.
func ClearFetched(dataDir string) error { return queue.Clear(dataDir) }

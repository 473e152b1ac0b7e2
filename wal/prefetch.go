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

// PrefetchSource is the source from which a queue is filled: the archive of a
// system. A segment is verified as Fetch does it, but for its header, which the
// queue looks at. At most decoders are decrypted and decompressed at once. Only
// whole segments are brought, none that is there in slices.
func PrefetchSource(r *repo.Repo, system postgres.SystemID, decoders int) queue.Source {
	decode := semaphore.NewWeighted(int64(max(decoders, 1)))
	return func(ctx context.Context, name postgres.WALName, to *os.File) error {
		_, body, err := r.OpenEnvelope(ctx, repo.WALKey(system, name), repo.KindWAL)
		if err != nil {
			return err
		}
		defer body.Close()
		if err := decode.Acquire(ctx, 1); err != nil {
			return err
		}
		defer decode.Release(1)
		_, err = io.CopyBuffer(struct{ io.Writer }{to}, body, make([]byte, 256<<10))
		return notTheEnd(err)
	}
}

// ClearFetched removes what was fetched ahead for a data directory, if there is
// anything. After a promotion none of it is wanted any more.
func ClearFetched(dataDir string) error { return queue.Clear(dataDir) }

package drill

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

// What a restored server may take of the host. A healthy one never comes near it: what
// would go on for ever meets an end while the host still works.
const (
	leastLeft     = 512 << 20 // bytes of memory that stay with the host, or an eighth of it
	moreProcesses = 4096      // than the host has
	largestFile   = 64 << 30  // bytes; PostgreSQL's are segments of 1 GiB, unless it was built otherwise
	leastFree     = 64 << 20  // bytes that stay free where the drill has its staging directory, besides Options.Reserve
	diskEvery     = 500 * time.Millisecond
)

// limits are what the fence bounds, as far as the host lets it.
func limits() fence.Limits {
	l := fence.Limits{Processes: moreProcesses + processes(), FileSize: largestFile}
	if total := totalMemory(); total > 2*leastLeft {
		l.Memory = total - max(total/8, leastLeft)
	}
	return l
}

// processes counts those of the host: where the bound is one of the account, others of
// it count too (RLIMIT_NPROC, getrlimit(2)).
func processes() (n int64) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			n++
		}
	}
	return n
}

// FullError says that the restored server has filled the disk of the staging directory,
// and was ended before others who write there were stopped.
type FullError struct {
	Path       string
	Free, Keep int64 // bytes
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the restored server has filled the disk of %s: %d MiB are free, and %d MiB are to stay so", e.Path, e.Free>>20, e.Keep>>20)
}

// watchDisk ends the context when the disk of the staging directory gets full. The
// caller ends the watch.
func (r *run) watchDisk(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	keep := r.o.Reserve + leastFree
	go func() {
		tick := time.NewTicker(diskEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var fs unix.Statfs_t
			if err := unix.Statfs(r.stage.dir, &fs); err != nil {
				continue // what is wrong with it shows elsewhere
			}
			if free := int64(fs.Bavail) * int64(fs.Bsize); free < keep {
				cancel(&FullError{r.stage.dir, free, keep})
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

package drill

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/restore"
)

// needMemory is what a server with the settings of a drill takes, in bytes:
// shared buffers, and as much again for locks, backends and recovery.
const needMemory = 256 << 20

// preflight looks for what would make the drill fail late. Nothing has been
// fetched yet but manifests and WAL.
func (r *run) preflight(ctx context.Context) error {
	var err error
	major := postgres.ServerVersion(r.plan.Backup.PGVersion).Major()
	if r.install, err = r.o.Find(major); err != nil {
		return err
	}
	r.doc.Host.PostgreSQL = r.install.Version
	if err := r.checkDisk(); err != nil {
		return err
	}
	if free := availableMemory(); free > 0 && free < needMemory {
		return &MemoryError{needMemory, free}
	}
	if err := r.prepare(); err != nil {
		return err
	}
	return r.raiseFence(ctx)
}

// checkDisk sees to what must stay free; the plan has made sure of the files and
// of all their WAL.
func (r *run) checkDisk() error {
	for _, d := range r.plan.Disks {
		if need := d.Need + r.o.Reserve; need > d.Free {
			return &restore.SpaceError{Paths: d.Paths, Need: need, Free: d.Free}
		}
	}
	return nil
}

// availableMemory and totalMemory are in bytes, 0 where the system does not
// say (proc_meminfo(5)).
func availableMemory() int64 { return memory("MemAvailable:") }
func totalMemory() int64     { return memory("MemTotal:") }

func memory(name string) int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

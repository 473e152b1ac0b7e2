package wal

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// readySuffix is put behind the name of a file that PostgreSQL wants archived
// (XLogArchiveNotify in xlogarchive.c).
const readySuffix = ".ready"

// readyFiles are the files that PostgreSQL wants archived, in the order in
// which it asks for them: timeline history files first, because a standby needs
// them most, then by name, which is by age (ready_file_comparator in pgarch.c).
func readyFiles(dataDir string) ([]postgres.WALName, error) {
	entries, err := os.ReadDir(filepath.Join(dataDir, "pg_wal", "archive_status"))
	if err != nil {
		return nil, err
	}
	var names []postgres.WALName
	for _, e := range entries {
		file, ready := strings.CutSuffix(e.Name(), readySuffix)
		if !ready {
			continue
		}
		if name, err := postgres.ParseWALName(file); err == nil {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b postgres.WALName) int {
		if first := (a.Kind == postgres.WALHistory); first != (b.Kind == postgres.WALHistory) {
			if first {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.String(), b.String())
	})
	return names, nil
}

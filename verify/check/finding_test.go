package check

import (
	"fmt"
	"testing"
)

// Each file counts once, also past those that are named.
func TestFindingCountsFilesOnce(t *testing.T) {
	t.Parallel()
	f := &Finding{}
	for range 3 { // three backups have them
		for i := range MaxFiles + 5 {
			f.file(fmt.Sprintf("base/5/%d", i))
		}
	}
	if f.FileCount != MaxFiles+5 || len(f.Files) != MaxFiles {
		t.Errorf("%d files, %d named", f.FileCount, len(f.Files))
	}
}

package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// The server's segments 3 to 7, held against an archive with those of another
// branch under some of the names.
func TestCompareArchived(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		other, ready uint64       // the segment that the other branch has; the one that waits
		gone         bool         // from pg_wal
		complete     postgres.LSN // on the server's disk, in MiB
		refused      bool
	}{
		"its own":                            {complete: 8},
		"the first":                          {other: 3, complete: 8, refused: true},
		"the last":                           {other: 7, complete: 8, refused: true},
		"one that waits":                     {other: 5, ready: 5, complete: 8, refused: true},
		"one that was used again":            {other: 7, gone: true, complete: 8},
		"one that is written to at this end": {other: 7, complete: 7},
	} {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			dir := t.TempDir()
			check(t, os.Mkdir(filepath.Join(dir, "archive_status"), 0o700))
			for no := uint64(3); no <= 7; no++ {
				seg := postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}
				b := segmentBytes(seg, testSystem, 1)
				if !c.gone || no != c.other {
					check(t, os.WriteFile(filepath.Join(dir, seg.Name()), b, 0o600))
				}
				if no == c.other {
					b = segmentBytes(seg, testSystem, 2)
				}
				a.push(t, seg.Name(), b)
				if no == c.ready {
					check(t, os.WriteFile(filepath.Join(dir, "archive_status", seg.Name()+".ready"), nil, 0o600))
				}
			}
			err := CompareArchived(t.Context(), a.open(t, a.store, "db2"), Stretch{testSystem, 1, 3*mib + 40, 8 * mib, 1 << 20}, c.complete*mib, dir)
			two, ok := errors.AsType[*TwoPrimariesError](err)
			if ok != c.refused || !ok && err != nil {
				t.Fatalf("got %v", err)
			}
			if ok && (two.HaveHost != "db1" || two.Host != "db2") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A file that is gone, or no whole segment, is not judged.
func TestHashOwnOfNoSegment(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "000000010000000000000003", bytes.Repeat([]byte{1}, 1<<20))
	if sum, err := hashOwn(path, 1<<20); sum == "" || err != nil {
		t.Errorf("%q, %v", sum, err)
	}
	if sum, err := hashOwn(path, 2<<20); sum != "" || err != nil {
		t.Errorf("of another size: %q, %v", sum, err)
	}
	if sum, err := hashOwn(path+"x", 1<<20); sum != "" || err != nil {
		t.Errorf("of a file that is gone: %q, %v", sum, err)
	}
}

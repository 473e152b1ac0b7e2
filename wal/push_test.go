package wal

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func TestPushFetch(t *testing.T) {
	ctx := context.Background()
	a := newArchive(t, mem.New())
	files := map[string][]byte{
		"000000010000000000000001":                 segmentBytes(postgres.Segment{Timeline: 1, No: 1, Size: 1 << 20}, testSystem, 1),
		"000000020000000000000002":                 segmentBytes(postgres.Segment{Timeline: 2, No: 2, Size: 1 << 20}, testSystem, 1),
		"000000010000000000000002.partial":         segmentBytes(postgres.Segment{Timeline: 1, No: 2, Size: 1 << 20}, testSystem, 2),
		"00000002.history":                         []byte("1\t0/200100\tno recovery target specified\n"),
		"000000010000000000000001.00000028.backup": []byte("START WAL LOCATION: 0/100028\n"),
	}
	for name, content := range files {
		path := writeFile(t, name, content)
		for again := range 2 {
			s, err := Push(ctx, a.Repo, path, PushOptions{System: testSystem})
			if err != nil || s.Existed != (again == 1) {
				t.Fatalf("push %s, time %d: existed %t, %v", name, again, s.Existed, err)
			}
		}
		dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		if err := Fetch(ctx, a.Repo, testSystem, walName(t, name), dest); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dest)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%s came back as %d other bytes: %v", name, len(got), err)
		}
	}
}

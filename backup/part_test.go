package backup

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// The newest backup is that with the highest label, also among those of one second.
func TestLabelsSortByTime(t *testing.T) {
	at, before := time.Unix(1800000000, 0), ""
	for n := range 512 {
		label := newLabel(at.Add(time.Duration(n) * time.Second / 256))
		if err := repo.CheckLabel(label); err != nil || label <= before {
			t.Fatalf("%s comes after %s: %v", label, before, err)
		}
		before = label
	}
}

// Packs of pages from all over the files fill a part long before their bytes do.
// One that grew too large could not be read again.
func TestScatteredPagesAreNotedSooner(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := repo.NewClusterKey("test", repo.NewID())
	check(err)
	to, err := repo.ParseRecipient(key.Recipients()[0])
	check(err)
	r, err := repo.Create(ctx, mem.New(), repo.Keys{Cluster: key, Identities: key.Identities, Recipients: []age.Recipient{to}}, "testhost", time.Unix(1800000000, 0))
	check(err)
	m := r.NewManifestWriter()
	defer m.Close()
	c := &copier{repo: r, manifest: m, label: newLabel(time.Unix(1800000000, 0))}
	c.files.add(repo.FileEntry{Type: repo.Regular, Path: "base/5/16384", Size: 1 << 30})
	const pages = 128 // of a frame
	for pack := range partSpans / pages / 64 {
		e := repo.PackEntry{PackRef: repo.PackRef{ID: fmt.Sprintf("%064x", pack+1), Size: 1000, Head: 100}}
		for frame := range 64 {
			f := repo.FrameEntry{FrameRef: repo.FrameRef{At: int64(frame * 10), Len: 10, Raw: repo.FrameSize, Sum: strings.Repeat("0", 32)}}
			for page := range pages {
				f.To = append(f.To, repo.Span{File: 0, Off: int64(2*page) << 13, At: page << 13, Len: 1 << 13})
			}
			e.Frames = append(e.Frames, f)
		}
		if c.parts != 0 {
			t.Fatalf("%d packs are noted already", pack)
		}
		check(c.note(ctx, e))
	}
	if c.parts != 1 || len(c.stored) != 0 || c.unspans != 0 {
		t.Fatalf("%d parts are noted, %d packs are not", c.parts, len(c.stored))
	}
	p, err := r.Part(ctx, c.label, 1)
	check(err)
	if len(p.Packs) != partSpans/pages/64 {
		t.Errorf("%d packs are in the part", len(p.Packs))
	}
}

package backup

import (
	"bytes"
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
	t.Parallel()
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
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	ctx := t.Context()
	r := newPartRepo(t)
	c := newPartCopier(t, r, time.Unix(1800000000, 0))
	const pages = 128 // of a frame
	for pack := range partSpans / pages / 64 {
		e := packOf(pack)
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
		if err := c.note(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	if c.parts != 1 || len(c.stored) != 0 || c.unspans != 0 {
		t.Fatalf("%d parts are noted, %d packs are not", c.parts, len(c.stored))
	}
	p, err := r.Part(ctx, c.label, 1)
	if err != nil || len(p.Packs) != partSpans/pages/64 {
		t.Errorf("%d packs are in the part, %v", len(p.Packs), err)
	}
}

// An interrupted backup found more bad pages than it could name. What it has stored
// since then is not taken up, or these would pass for good; what it noted before is,
// and the pages that it named are read again.
func TestMoreBadPagesThanAreNamed(t *testing.T) {
	t.Parallel()
	at := time.Unix(1800000000, 0)
	r := newPartRepo(t)
	c := newPartCopier(t, r, at)
	pack := 0
	stored := func(bad int) {
		t.Helper()
		for range bad {
			c.noteBad(badPage{repo.BadPage{Path: "base/5/16384", Block: uint32(c.badCount)}, c.start.LSN - 1})
		}
		e := packOf(pack)
		e.Frames = []repo.FrameEntry{{FrameRef: repo.FrameRef{Len: 10, Raw: 8192, Sum: strings.Repeat("0", 32)}, To: []repo.Span{{Off: int64(pack) << 13, Len: 8192}}}}
		pack++
		err := c.note(t.Context(), e)
		c.noteRest(t.Context()) // as where it is interrupted now
		if err != nil || len(c.stored) != 0 {
			t.Fatalf("%d packs are not noted, %v", len(c.stored), err)
		}
	}
	stored(repo.MaxBadPages)
	stored(1)
	stored(0)

	next := newPartCopier(t, r, at.Add(time.Hour))
	found, err := next.interrupted(t.Context(), nil)
	if err != nil || len(found) != 1 || len(found[0].Packs) != 1 || found[0].Packs[0].ID != packOf(0).ID {
		t.Fatalf("of %d backups the first packs are not taken up, or more than these: %v", len(found), err)
	}
	if n := partLayer(found[0], changes{}).bad.Pages(); n != repo.MaxBadPages {
		t.Errorf("%d pages are read again", n)
	}
}

// A backup that a later version has made is no base, and keeps nobody from backing up.
func TestLaterFormatIsNoBase(t *testing.T) {
	t.Parallel()
	r := newPartRepo(t)
	label := newLabel(time.Unix(1800000000, 0))
	text := fmt.Appendf(nil, `{"format":2,"label":%q}`+"\n", label)
	if _, err := r.CreateEnvelope(t.Context(), repo.ManifestKey(label), repo.KindManifest, bytes.NewReader(text), int64(len(text))); err != nil {
		t.Fatal(err)
	}
	if _, why, err := readBase(t.Context(), r, label); err != nil || !strings.Contains(why, "format 2") {
		t.Errorf("%q, %v", why, err)
	}
}

// What nobody can need of a part is not kept: of files that are not there, and of others
// more than there is.
func TestPartsAreNotKeptWhole(t *testing.T) {
	t.Parallel()
	r := newPartRepo(t)
	c := newPartCopier(t, r, time.Unix(1800000000, 0))
	c.plan[0].size = 4 * 8192
	for n := range 5 {
		p := c.makePart(nil, []repo.BadPage{{Path: "base/5/16384"}, {Path: "base/5/9"}})
		p.Files = []repo.FileEntry{{Type: repo.Regular, Path: "base/5/9", Size: 1 << 30}, {Type: repo.Regular, Path: "base/5/16384", Size: 1 << 30}}
		for file := range 2 {
			e := packOf(2*n + file)
			e.Frames = []repo.FrameEntry{{FrameRef: repo.FrameRef{Len: 10, Raw: 8192, Sum: strings.Repeat("0", 32)}}}
			for i := range 1000 {
				e.Frames[0].To = append(e.Frames[0].To, repo.Span{File: file, Off: int64(i), Len: 1})
			}
			p.Packs = append(p.Packs, e)
		}
		if err := r.CreatePart(t.Context(), n+1, p); err != nil {
			t.Fatal(err)
		}
	}
	next := newPartCopier(t, r, time.Unix(1800000060, 0))
	next.plan[0].size = 4 * 8192
	found, err := next.interrupted(t.Context(), nil)
	if err != nil || len(found) != 1 || len(found[0].Files) != 1 || len(found[0].Packs) != 1 || len(found[0].BadPages) != 1 {
		t.Fatalf("%d, %v", len(found), err)
	}
	if n := spansOf(found[0].Packs[0]); n != 6 || found[0].Packs[0].ID != packOf(1).ID {
		t.Errorf("%d spans of a file of 4 pages", n)
	}
}

func newPartRepo(t *testing.T) *repo.Repo {
	t.Helper()
	key, err := repo.NewClusterKey("test", repo.NewID())
	if err != nil {
		t.Fatal(err)
	}
	to, err := repo.ParseRecipient(key.Recipients()[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Create(t.Context(), mem.New(), repo.Keys{Cluster: key, Identities: key.Identities, Recipients: []age.Recipient{to}}, "testhost", time.Unix(1800000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newPartCopier is a backup of one large file, as far as notes of what it stores go.
func newPartCopier(t *testing.T, r *repo.Repo, at time.Time) *copier {
	t.Helper()
	m := r.NewManifestWriter()
	t.Cleanup(m.Close)
	c := &copier{repo: r, manifest: m, label: newLabel(at), source: "these files", start: position{LSN: 0x2000028, Time: at}}
	c.o.Now = func() time.Time { return at }
	c.facts.control.BlockSize = 8192
	c.plan = []*copyFile{{source: source{path: "base/5/16384", size: 1 << 30}}}
	c.files.add(repo.FileEntry{Type: repo.Regular, Path: "base/5/16384", Size: 1 << 30})
	return c
}

func packOf(n int) repo.PackEntry {
	return repo.PackEntry{PackRef: repo.PackRef{ID: fmt.Sprintf("%064x", n+1), Size: 1000, Head: 100}}
}

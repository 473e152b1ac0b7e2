package repo

import (
	"strings"
	"testing"
)

// A backup whose manifest is just being sealed again, or where that was broken
// off, has only the new one beside the old one's place. It is a backup all the
// same: who takes it for a crashed attempt removes its packs.
func TestManifestBesideItsPlace(t *testing.T) {
	r := newWorld(t).writer
	ctx := t.Context()
	label := "20260131T020000Z-1a2b3c"
	for _, key := range []string{AdoptionKey(label), InfoKey(label)} {
		check(t, r.Store().Create(ctx, key, strings.NewReader("x")))
	}
	committed := func() [4]bool {
		directories, _, err := r.Directories(ctx)
		check(t, err)
		open, err := r.Unfinished(ctx)
		check(t, err)
		labels, err := r.Backups(ctx)
		check(t, err)
		there, err := r.Exists(ctx, label)
		check(t, err)
		return [4]bool{len(directories) == 1 && directories[0].Committed, len(open) == 0, len(labels) == 1, there}
	}
	if got := committed(); got != [4]bool{} {
		t.Errorf("without a manifest it is a backup: %v", got)
	}
	check(t, r.Store().Create(ctx, ManifestKey(label)+besideSuffix, strings.NewReader("x")))
	if got := committed(); got != [4]bool{true, true, true, true} {
		t.Errorf("with a manifest beside its place it is none: %v", got)
	}
	check(t, r.Store().Create(ctx, ManifestKey(label), strings.NewReader("x")))
	if got := committed(); got != [4]bool{true, true, true, true} {
		t.Errorf("with both it is none, or two: %v", got)
	}
}

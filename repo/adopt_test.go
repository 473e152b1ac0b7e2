package repo

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a running backup says is read back, and its directory is no backup.
func TestAdoption(t *testing.T) {
	r := newWorld(t).writer
	ctx := context.Background()
	base, label := "20260131T020000Z-1a2b3c", "20260201T020000Z-4d5e6f"
	if _, err := r.Adoption(ctx, label); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an adoption that nobody made: %v", err)
	}
	want := Adoption{Bases: []string{base}, Made: time.Date(2026, 2, 1, 2, 0, 0, 0, time.UTC)}
	check(t, r.Adopt(ctx, label, want))
	got, err := r.Adoption(ctx, label)
	check(t, err)
	if !slices.Equal(got.Bases, want.Bases) || !got.Made.Equal(want.Made) {
		t.Errorf("read %+v", got)
	}
	there, err := r.Exists(ctx, label)
	if err != nil || there {
		t.Errorf("a backup that only adopts exists: %t, %v", there, err)
	}
	open, err := r.Unfinished(ctx)
	check(t, err)
	if len(open) != 1 || open[0].Label != label || !open[0].Adopts || len(open[0].Objects) != 1 || !open[0].Has(AdoptionKey(label)) || open[0].Newest.IsZero() {
		t.Errorf("unfinished: %+v", open)
	}
	check(t, r.Store().Create(ctx, ManifestKey(label), strings.NewReader("x")))
	if open, err = r.Unfinished(ctx); err != nil || len(open) != 0 {
		t.Errorf("unfinished with a manifest: %+v, %v", open, err)
	}
	if there, err = r.Exists(ctx, label); err != nil || !there {
		t.Errorf("with a manifest it exists: %t, %v", there, err)
	}
}

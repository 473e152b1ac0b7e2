package selftest

import (
	"context"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// Damage is the scratch repository with one breakage in it.
type Damage struct {
	Name  string
	Store storage.Store
	Keys  repo.Keys
}

// Damages are those breakages that lie in the repository itself, so that who
// checks a repository without a drill can be held to them too. The scratch
// repository is as it was.
func Damages(ctx context.Context, s Scratch) ([]Damage, error) {
	var out []Damage
	for _, b := range []breakage{
		{name: "nothing"},
		{name: "a pack is missing", apply: onPack((*overlay).removed)},
		{name: "a bit of a pack is flipped", apply: onPack(flipBit)},
		{name: "a pack is truncated", apply: onPack(truncate)},
		{name: "the manifest is forged", apply: forgeManifest},
		{name: "WAL is missing before the consistent point", apply: removeWAL(func(i repo.Info) postgres.LSN { return i.StartLSN })},
		{name: "WAL is missing after the consistent point", apply: removeWAL(func(i repo.Info) postgres.LSN { return i.StopLSN + postgres.LSN(i.SegSize) })},
		{name: "WAL of a wrong timeline", apply: wrongTimeline},
		{name: "an identity that does not fit", apply: otherIdentity},
	} {
		w := &bench{scratch: s, store: newOverlay(s.Store), keys: s.Keys}
		var err error
		if w.info, err = w.backup(ctx); err != nil {
			return nil, err
		}
		if b.apply != nil {
			if err := b.apply(ctx, w); err != nil {
				return nil, fmt.Errorf("%s: %w", b.name, err)
			}
		}
		out = append(out, Damage{b.name, w.store, w.keys})
	}
	return out, nil
}

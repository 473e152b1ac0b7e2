package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// unproven notes what could not be checked. It concerns no backup; else it is
// unprovenOf.
func (w *work) unproven(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.result.Unproven, text) {
		w.result.Unproven = append(w.result.Unproven, text)
	}
}

// unprovenOf notes what could not be checked of a backup, which is not called ok
// then.
func (w *work) unprovenOf(label, format string, args ...any) {
	w.unproven(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubted[label] = true
}

// notOpened notes an object whose bytes are the signed ones, and which this identity
// does not open.
func (w *work) notOpened(key string) {
	const text = "%s was not sealed to this identity, so only its hash could be compared"
	w.unproven(text, key)
	for _, b := range w.backups {
		if w.needs(b, key) {
			w.unprovenOf(b.Label, text, key)
		}
	}
}

// needs says whether a restore from the backup may read the pack or WAL.
func (w *work) needs(b *backup, key string) bool {
	if id, ok := strings.CutPrefix(key, repo.PacksPrefix); ok {
		i, ok := w.list.packs.Find(id)
		return ok && b.packs.Has(i)
	}
	name, ok := repo.ParseWALKey(b.System, key)
	if !ok || name.Kind != postgres.WALSegment {
		return false
	}
	seg, err := postgres.ParseSegment(name.Segment, b.SegSize)
	return err == nil && b.StartLSN < seg.End()
}

package wal

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// PushHistory archives the history file of the timeline of a file in pg_wal, if it
// lies there too and is not remembered as archived. It is for before each push.
//
// PostgreSQL hands a history file over when a server is promoted with archiving on,
// and never again: not when archiving is switched on later, as after a restore that
// left it off, and not when archive_command begins to name another repository. WAL
// of a timeline without its history can be restored by nobody (writeTimeLineHistory in
// access/transam/timeline.c notifies the archiver, and only while archiving is on).
func PushHistory(ctx context.Context, r *repo.Repo, path string, o PushOptions, m PushMemory) error {
	own, err := postgres.ParseWALName(filepath.Base(path))
	if err != nil || own.Timeline <= 1 || own.Kind == postgres.WALHistory {
		return nil
	}
	history := filepath.Join(filepath.Dir(path), own.Timeline.HistoryName())
	if _, known := m.Recall(history); known {
		return nil
	}
	opened := m.Now()
	src, err := openSource(history)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nobody has it but the archive, if it does
	}
	if err != nil {
		return storeError("push", filepath.Base(history), err)
	}
	f, err := src.seal(ctx, r, o, repo.SealOptions{})
	if err != nil {
		return err
	}
	defer f.Close()
	stored, err := f.store(ctx, r)
	if err != nil {
		return err
	}
	if m.covers(path) {
		_ = m.remember(f.name, f.facts, opened, stored.Header.SHA256) // else it is pushed again
	}
	return nil
}

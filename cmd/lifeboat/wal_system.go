package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// systemHint is for who has to say whose WAL is wanted.
const systemHint = "add --system ID, the system identifier that pg_controldata prints"

// parseSystem reads --system.
func parseSystem(text string) (postgres.SystemID, error) {
	id, err := postgres.ParseSystemID(text)
	if err != nil {
		return 0, usage("--system: %v", err)
	}
	return id, nil
}

// knownSystems are those that the repository knows, at least one.
func knownSystems(ctx context.Context, r *repo.Repo) ([]postgres.SystemID, error) {
	systems, err := r.Systems(ctx)
	if err == nil && len(systems) == 0 {
		err = usage("no backup was taken yet, so the repository does not tell whose WAL is wanted").hinted("%s", systemHint)
	}
	return systems, err
}

// onlySystem is the one that the repository knows.
func onlySystem(ctx context.Context, r *repo.Repo) (postgres.SystemID, error) {
	systems, err := knownSystems(ctx, r)
	if err != nil {
		return 0, err
	}
	if len(systems) == 1 {
		return systems[0], nil
	}
	names := make([]string, len(systems))
	for i, s := range systems {
		names[i] = s.String()
	}
	return 0, usage("the repository holds WAL of %d systems (%s), and which one is wanted is not said", len(systems), strings.Join(names, ", ")).
		hinted("%s", systemHint)
}

// expectedSystem is the system of the data directory, if it is on this host; 0
// when the server may be any.
func expectedSystem(ctx context.Context, cfg *Config) (postgres.SystemID, error) {
	if cfg.PGData == "" {
		return 0, nil
	}
	control, err := wal.ReadControl(ctx, cfg.PGData)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return 0, nil
	}
	return control.SystemID, err
}

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/fingerprint"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

const (
	tablesCheck     = "tables as at the backup"
	maxFingerprints = 64 << 20
	mostNamed       = 5 // tables that differ, in a report
)

// compareTables holds the restored tables to what the backup noted of them. That
// was at one position of the WAL, so recovery is stopped there once and goes on
// afterwards. A backup without fingerprints is told and is no reason to fail.
func (r *run) compareTables(ctx context.Context) error {
	want, why, err := r.fingerprints(ctx)
	if err != nil {
		return err
	}
	if want == nil {
		r.doc.Checks = append(r.doc.Checks, evidence.Check{Name: tablesCheck, Kind: "built-in", Verdict: evidence.Unknown, Detail: why})
		return nil
	}
	return r.phase(evidence.PhaseTables, func(*evidence.Phase) error {
		if err := r.autoConf(pausedAt(r.plan.Settings, want.LSN)); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		if err := r.start(ctx); err != nil {
			return err
		}
		if err := r.waitPaused(ctx); err != nil {
			return err
		}
		r.builtIn(ctx, tablesCheck, true, deepLimit, func(ctx context.Context) (evidence.Verdict, string) { return r.compare(ctx, want) })
		sctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		if err := r.server.Stop(sctx, server.Fast); err != nil {
			return err
		}
		r.paused = want.LSN
		return r.autoConf(r.plan.Settings)
	})
}

// fingerprints reads what the backup noted, and says why when there is nothing
// to compare with.
func (r *run) fingerprints(ctx context.Context) (*fingerprint.Set, string, error) {
	raw, _, err := r.repo.ReadEnvelope(ctx, repo.FingerprintsKey(r.plan.Label), repo.KindFingerprints, maxFingerprints)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "the backup noted nothing of its tables (fingerprints: true has it do so)", nil
	}
	if err != nil {
		return nil, "", err
	}
	var set fingerprint.Set
	if err := json.Unmarshal(raw, &set); err != nil || set.Format != 1 {
		return nil, "what the backup noted of its tables is of a form that this version does not know", nil
	}
	if set.LSN < r.plan.ConsistentLSN || set.LSN >= r.plan.StopLSN {
		return nil, fmt.Sprintf("the tables were noted at %s, and recovery goes from %s to %s", set.LSN, r.plan.ConsistentLSN, r.plan.StopLSN), nil
	}
	return &set, "", nil
}

// pausedAt has recovery pause just before the first record at or after a
// position. All other targets are left out: to PostgreSQL, an empty one takes
// back the one that was set.
func pausedAt(settings []restore.Setting, at postgres.LSN) []restore.Setting {
	var out []restore.Setting
	for _, s := range settings {
		if !strings.HasPrefix(s.Name, "recovery_target") || s.Name == "recovery_target_timeline" {
			out = append(out, s)
		}
	}
	return append(out,
		restore.Setting{Name: "recovery_target_action", Value: "pause"},
		restore.Setting{Name: "recovery_target_inclusive", Value: "off"},
		restore.Setting{Name: "recovery_target_lsn", Value: at.String()})
}

// waitPaused waits until recovery has paused.
func (r *run) waitPaused(ctx context.Context) error {
	query := "select pg_get_wal_replay_pause_state() = 'paused'"
	if r.install.Major < 14 {
		query = "select pg_is_wal_replay_paused()"
	}
	return r.watched(ctx, func(ctx context.Context) error {
		if err := r.server.WaitReady(ctx); err != nil {
			return err
		}
		for {
			value, err := r.conn().Value(ctx, "", query)
			switch {
			case err != nil:
				return err
			case value != nil && *value == "t":
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

func (r *run) compare(ctx context.Context, want *fingerprint.Set) (evidence.Verdict, string) {
	snapshot, err := fingerprint.Recovered(ctx, r.conn().Open)
	if err != nil {
		return evidence.Unknown, err.Error()
	}
	defer snapshot.Close()
	same, different, err := snapshot.Compare(ctx, want)
	if err != nil {
		return evidence.Unknown, err.Error()
	}
	if n := len(different); n > 0 {
		return evidence.Failed, fmt.Sprintf("%d of %d tables are not as they were at %s: %s", n, same+n, want.LSN,
			strings.Join(different[:min(n, mostNamed)], "; "))
	}
	detail := fmt.Sprintf("%d tables have the rows that the backup noted at %s", same, want.LSN)
	if want.Left > 0 {
		detail += fmt.Sprintf("; %d could not be read then", want.Left)
	}
	return evidence.Passed, detail
}

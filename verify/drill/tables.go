package drill

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

const (
	tablesCheck     = "tables as at the backup"
	maxFingerprints = 32 << 20
	mostTables      = 1 << 18 // that a backup has noted
	mostNamed       = 5       // tables that differ, in a report
	tablesFile      = "tables.json"
)

// notedTables is what the backup noted of its tables, nil when there is nothing to
// compare with. That is reported and is no reason to fail.
func (r *run) notedTables(ctx context.Context) (*tablesNoted, error) {
	var noted tablesNoted
	if err := r.restorer.call(ctx, doTables, tablesRequest{File: r.stage.path(tablesFile)}, &noted); err != nil {
		return nil, err
	}
	if noted.Why != "" {
		r.doc.Checks = append(r.doc.Checks, evidence.Check{Name: tablesCheck, Kind: "built-in", Verdict: evidence.Unknown, Detail: noted.Why})
		return nil, nil
	}
	return &noted, nil
}

// compareTables holds the restored tables to what the backup noted of them. That
// was at one position of the WAL, so recovery is stopped there once and goes on
// afterwards.
func (r *run) compareTables(ctx context.Context, at postgres.LSN) error {
	return r.record.Phase(evidence.PhaseTables, func(*evidence.Phase) error {
		if err := r.start(ctx, pausedAt(at), r.stage.path(tablesFile)); err != nil {
			return err
		}
		if err := r.helper.call(ctx, doPause, nil, nil); err != nil {
			return err
		}
		r.looked(ctx, tablesCheck, tablesCheck, true, deepLimit)
		sctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("the server does not stop"))
		defer cancel()
		if err := r.helper.call(sctx, doStop, nil, nil); err != nil {
			return err
		}
		if err := r.helper.end(5 * time.Second); err != nil {
			return err
		}
		r.removeCgroups()
		r.helper, r.paused = nil, at
		return nil
	})
}

// targets are those settings of the managed block that say how far to recover.
// They stand on the command line, since a server can have rewritten any file by
// the time that it is started again. Empty ones are left out: to PostgreSQL, one
// takes back the one that was set.
func targets(settings []restore.Setting) map[string]string {
	out := map[string]string{}
	for _, s := range settings {
		if isTarget(s.Name) && s.Value != "" {
			out[s.Name] = s.Value
		}
	}
	return out
}

func isTarget(name string) bool {
	return strings.HasPrefix(name, "recovery_target") && name != "recovery_target_timeline"
}

// pausedAt has recovery pause just before the first record at or after a
// position.
func pausedAt(at postgres.LSN) map[string]string {
	return map[string]string{"recovery_target_action": "pause", "recovery_target_inclusive": "off", "recovery_target_lsn": at.String()}
}

package main

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// A check that could not prove a backup is no check of it: neither CHECKED nor
// DAMAGED, and what an earlier one said stands.
func TestUnprovenIsNotChecked(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cluster, err := repo.NewClusterKey("shop", repo.NewID())
	must(err)
	recovery, err := repo.NewRecoveryKey(cluster)
	must(err)
	keys := repo.Keys{Cluster: cluster}
	for _, text := range recovery.Recipients() {
		to, err := repo.ParseRecipient(text)
		must(err)
		keys.Recipients = append(keys.Recipients, to)
	}
	r, err := repo.Create(t.Context(), mem.New(), keys, "db1", now)
	must(err)
	record := func(ago time.Duration, backups ...check.BackupResult) {
		t.Helper()
		must(check.Record(t.Context(), r, &check.Result{Began: now.Add(-ago), Ended: now.Add(-ago), Backups: backups}, check.Options{Read: true}))
	}
	record(3*time.Hour, check.BackupResult{Label: "good", OK: true}, check.BackupResult{Label: "bad"})
	record(2*time.Hour, check.BackupResult{Label: "good", Unproven: true}, check.BackupResult{Label: "bad", Unproven: true}, check.BackupResult{Label: "new", Unproven: true})
	at := map[string]*listedBackup{"good": {}, "bad": {}, "new": {}}
	must(addChecks(t.Context(), r, at))
	for label, want := range map[string]string{"good": "3h ago, read", "bad": "DAMAGED", "new": "-"} {
		if got := at[label].checkedText(now); got != want {
			t.Errorf("%s: %q, not %q", label, got, want)
		}
	}
}

package report_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

var began = time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// idOf is an id that is the same in every run.
func idOf(when time.Time) string {
	sum := sha256.Sum256([]byte(when.String()))
	return fmt.Sprintf("%s-%x", when.Format("20060102T150405Z"), sum[:4])
}

// passed is a drill as it should be.
func passed(when time.Time) *evidence.Drill {
	d := &evidence.Drill{
		Schema: evidence.Schema, ID: idOf(when), Repository: "5f0c9be2a4ab4d0f8e2b7a3c1d6e9f00", Cluster: "shop", Program: "lifeboat 1.2.0",
		Started: when, Ended: when.Add(4*time.Minute + 14*time.Second), Level: evidence.Standard,
		By:   evidence.Performer{User: "lifeboat", Host: "staging-1.example.net"},
		Host: evidence.Host{System: "linux/amd64", CPUs: 8, MemoryBytes: 32 << 30, StagingFree: 400 << 30, PostgreSQL: "15.6"},
		Backup: &evidence.Backup{
			Label: when.Add(-26*time.Hour).Format("20060102T150405Z") + "-77aa01", Taken: when.Add(-26 * time.Hour), System: "7301234567890123456", Host: "db-1.example.net",
			PostgreSQL: 150006, Files: 14822, Bytes: 61 << 30, Fetched: 19 << 30, Picked: "latest",
		},
		Target: evidence.Target{Kind: "end", Timeline: 3},
		WAL:    &evidence.WAL{Begin: "16/A0000028", End: "16/D374D848", Segments: 52, Bytes: 823 << 20, Stored: 240 << 20},
		RPO: evidence.RPO{
			Objective: ptr(60.0), Lower: ptr(0.0), Upper: ptr(12.4), Basis: "primary", Disaster: ptr(when.Add(time.Second)), Flushed: "16/D374E000",
			Recovered: "16/D374D848", Commit: ptr(when.Add(-11 * time.Second)), LostBytes: ptr(int64(1976)), Heartbeat: ptr(30.0), Skew: ptr(0.4),
		},
		RTO: evidence.RTO{Objective: ptr(900.0)},
		Phases: []evidence.Phase{
			{Name: evidence.PhasePlan, Start: 0, Seconds: 1.31},
			{Name: evidence.PhaseFiles, Start: 1.31, Seconds: 188.2, Bytes: 61 << 30, Fetched: 19 << 30},
			{Name: evidence.PhaseWAL, Start: 189.5, Seconds: 6.02, Bytes: 823 << 20, Fetched: 240 << 20},
			{Name: evidence.PhaseConsistent, Start: 195.5, Seconds: 8.4, Bytes: 210 << 20},
			{Name: evidence.PhaseReplay, Start: 203.9, Seconds: 29.7, Bytes: 613 << 20},
			{Name: evidence.PhaseAccepting, Start: 233.6, Seconds: 0.92},
			{Name: evidence.PhaseChecks, Start: 234.5, Seconds: 17.6},
		},
		Checks: []evidence.Check{
			{Name: "page checksums", Kind: "built-in", Required: true, Verdict: evidence.Passed, Detail: "7,995,392 pages, none damaged", Seconds: 11.2},
			{Name: "system identifier", Kind: "built-in", Required: true, Verdict: evidence.Passed, Detail: "7301234567890123456, as in the manifest", Seconds: 0.01},
			{Name: "databases", Kind: "built-in", Required: true, Verdict: evidence.Passed, Detail: "4 databases can be opened", Seconds: 0.31},
			{Name: "orders are recent", Kind: "sql", Required: true, Verdict: evidence.Passed, Detail: "newest order is 14 s older than the end of recovery", Seconds: 0.04},
			{Name: "row counts of 12 tables", Kind: "sql", Verdict: evidence.Passed, Detail: "all within 1 % of the last drill", Seconds: 6.1},
		},
		Fence: &evidence.Fence{
			Network: "isolated", Files: "isolated", User: "lifeboat-drill",
			Proven: []string{"no route out of the network namespace", "archive_mode is off", "synchronous_standby_names is empty", "cron.launch_active_jobs is off"},
			Loaded: []string{"pg_stat_statements"}, Left: []string{"pg_cron"},
			Layers: []evidence.Layer{{Name: "mounts", Held: true}, {Name: "memory", Reason: "no bound was asked for"}},
			Tried: []evidence.Attempt{
				{What: "see a process", Outcome: "blocked", Error: "no such process"},
				{What: "send UDP to the loopback", Outcome: "blocked", Error: "address family not supported by protocol"},
				{What: "change the root", Outcome: "unknown", Error: "operation not permitted", Outside: "operation not permitted"},
			},
		},
		Coverage: &evidence.Coverage{
			Backups: []evidence.Covered{
				{Label: "20260130T000000Z-77aa01", Taken: when.Add(-26 * time.Hour), Tested: when},
				{Label: "20260129T000000Z-77aa02", Taken: when.Add(-50 * time.Hour)},
				{Label: "20260128T000000Z-77aa03", Taken: when.Add(-74 * time.Hour), Tested: when.Add(-48 * time.Hour)},
			},
			From: when.Add(-30 * 24 * time.Hour), To: when.Add(-11 * time.Second),
		},
		Cleanup: evidence.Cleanup{Done: true},
	}
	d.Measure(252.1, true)
	d.Judge()
	return d
}

func failed(when time.Time) *evidence.Drill {
	d := passed(when)
	d.Checks[3].Verdict, d.Checks[3].Detail = evidence.Failed, "newest order is 9 h 12 min older than the end of recovery; at most 15 min are allowed"
	d.Checks[4].Verdict, d.Checks[4].Detail = evidence.Failed, "orders: 1,204,331 rows, 1,399,020 at the last drill"
	d.RPO.Lower, d.RPO.Upper, d.RPO.LostBytes = ptr(33000.0), ptr(33120.0), ptr(int64(9<<30))
	d.Fence.Missing = []string{"dblink is installed and the network could not be denied"}
	d.Fence.Network = "not isolated: user namespaces are not allowed here"
	d.Cleanup = evidence.Cleanup{Kept: "/var/lib/lifeboat/drill/" + d.ID, Detail: "--keep was given"}
	d.RTO.Achieved = nil
	d.Measure(0, false)
	d.Judge("WAL gap: 0000000300000016000000D4 is missing, and the archive goes on from 16/D5000000")
	return d
}

func unknown(when time.Time) *evidence.Drill {
	d := passed(when)
	d.RPO.Lower, d.RPO.Upper, d.RPO.Basis, d.RPO.Commit = nil, nil, "archive", nil
	d.RPO.Reason = "the primary does not answer, and no commit was replayed"
	d.Checks[3].Verdict, d.Checks[3].Detail = "", "the time ran out after 30 s"
	d.Cleanup = evidence.Cleanup{Detail: "unlink: device or resource busy"}
	d.RTO.Achieved = nil
	d.Measure(0, false)
	d.Judge()
	return d
}

// first is the first drill of a small cluster, with no objectives and no more
// than must be there.
func first(when time.Time) *evidence.Drill {
	d := &evidence.Drill{
		Schema: evidence.Schema, ID: idOf(when), Repository: "5f0c9be2a4ab4d0f8e2b7a3c1d6e9f00", Cluster: "shop", Program: "lifeboat 1.2.0",
		Started: when, Ended: when.Add(2 * time.Second), Level: evidence.Quick, By: evidence.Performer{User: "root", Host: "db-1"},
		Host: evidence.Host{System: "linux/arm64", CPUs: 2}, Target: evidence.Target{Kind: "end"}, RPO: evidence.RPO{Basis: "none"},
		Cleanup: evidence.Cleanup{Done: true},
	}
	d.Measure(0, false)
	d.Judge()
	return d
}

const hostile = "<script>alert(1)</script>\x1b[31m\u202e\"'&\x00 =cmd|' /C calc'!A0 </style>]]>\nsecond line `{{.}}` ${x}"

// evil is a drill whose every text is hostile.
func evil(when time.Time) *evidence.Drill {
	d := failed(when)
	d.Cluster, d.Program, d.By.User, d.By.Host = hostile, hostile, hostile, hostile
	d.Backup.Label, d.Backup.Host, d.Backup.Picked = hostile, hostile, hostile
	d.WAL.Begin, d.WAL.End, d.RPO.Reason = hostile, hostile, hostile
	d.Host.System, d.Host.PostgreSQL = hostile, hostile
	d.Level, d.Target.Kind, d.RPO.Basis, d.Verdict = hostile, hostile, hostile, hostile
	d.Phases[2].Name, d.RTO.Costliest = hostile, hostile
	for i := range d.Checks {
		d.Checks[i].Name, d.Checks[i].Detail, d.Checks[i].Verdict = hostile, hostile, hostile
	}
	for i := range d.Reasons {
		d.Reasons[i] = "=" + hostile
	}
	d.Fence = &evidence.Fence{Network: hostile, Files: hostile, User: hostile, Proven: []string{hostile}, Missing: []string{hostile}, Loaded: []string{hostile}, Left: []string{hostile},
		Layers: []evidence.Layer{{Name: hostile, Reason: hostile}}, Tried: []evidence.Attempt{{What: hostile, Outcome: hostile, Error: hostile, Outside: hostile}, {What: hostile, Outcome: "reached"}}}
	d.Coverage.Backups[1].Label = hostile
	d.Cleanup = evidence.Cleanup{Kept: hostile, Detail: hostile, Older: []string{hostile}}
	d.Notes = []string{hostile}
	return d
}

func newKey(t *testing.T) repo.SigningKey {
	t.Helper()
	k, err := repo.NewHostKey("shop", "5f0c9be2a4ab4d0f8e2b7a3c1d6e9f00")
	if err != nil {
		t.Fatal(err)
	}
	return *k.Signing
}

// chain signs drills, each linked to the one before it.
func chain(t *testing.T, key repo.SigningKey, drills ...*evidence.Drill) []evidence.Entry {
	t.Helper()
	var out []evidence.Entry
	for i, d := range drills {
		d.Previous = nil
		if i > 0 {
			d.Previous = &evidence.Link{ID: out[i-1].ID, SHA256: out[i-1].Doc.SHA256}
		}
		doc, err := evidence.Sign(d, key)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, evidence.Entry{ID: d.ID, Doc: doc})
	}
	return out
}

// history is made of signed drills, as of an hour after the last one.
func history(t *testing.T, drills ...*evidence.Drill) *report.History {
	t.Helper()
	key := newKey(t)
	return report.NewHistory("shop", chain(t, key, drills...), []repo.PublicKey{key.Public()}, time.Time{}, began.Add(time.Hour))
}

// season is n drills, one every other day, that end with last.
func season(n int, last func(time.Time) *evidence.Drill) []*evidence.Drill {
	var out []*evidence.Drill
	for i := range n - 1 {
		when := began.AddDate(0, 0, -2*(n-1-i))
		d := passed(when)
		*d.RPO.Upper = 14 + 9*math.Sin(float64(i)*1.7) + float64(i%5)
		total := 230 + 40*math.Sin(float64(i)/4) + float64(3*i)
		d.Measure(total, true)
		d.Judge()
		switch {
		case i%17 == 9:
			d = failed(when)
		case i%13 == 7:
			d = unknown(when)
		case i%7 == 3:
			d.RPO.Zero, d.RPO.Upper = true, ptr(0.0)
		}
		if i < n/3 {
			d.RPO.Objective = ptr(120.0)
		}
		out = append(out, d)
	}
	return append(out, last(began))
}

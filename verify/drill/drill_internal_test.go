package drill

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// The log of a recovery by PostgreSQL 15, shortened, with lines that only look
// like the ones that count.
const recoveryLog = `2026-01-31 02:00:00.100 UTC [11] LOG:  starting archive recovery
2026-01-31 02:00:00.200 UTC [11] LOG:  redo starts at 0/3000028
2026-01-31 02:00:01.250 UTC [11] LOG:  consistent recovery state reached at 0/3000100
2026-01-31 02:00:01.251 UTC [10] LOG:  database system is ready to accept read-only connections
2026-01-31 02:00:01.300 UTC [12] ERROR:  redo done at 0/9 is what a client wrote
2026-01-31 02:00:02.500 UTC [11] LOG:  redo done at 0/4000060 system usage: CPU: user: 0.00 s
2026-01-31 02:00:02.501 UTC [11] LOG:  last completed transaction was at log time 2026-01-31 01:59:58.123456+00
2026-01-31 02:00:02.600 UTC [11] LOG:  selected new timeline ID: 12
	continued: redo done at 0/7
2026-01-31 02:00:03.000 UTC [10] LOG:  database system is ready to accept connections
`

func TestServerLog(t *testing.T) {
	l := parseServerLog(recoveryLog)
	at := func(clock string) time.Time {
		v, err := time.Parse("15:04:05.999999", clock)
		if err != nil {
			t.Fatal(err)
		}
		return time.Date(2026, 1, 31, v.Hour(), v.Minute(), v.Second(), v.Nanosecond(), time.UTC)
	}
	want := serverLog{consistent: at("02:00:01.25"), replayed: at("02:00:02.5"), last: 0x4000060, ended: at("01:59:58.123456"),
		timeline: 12, lastLine: "2026-01-31 02:00:03.000 UTC [10] LOG:  database system is ready to accept connections"}
	if !l.ended.Equal(want.ended) {
		t.Errorf("the last transaction ended at %s, want %s", l.ended, want.ended)
	}
	if l.ended = want.ended; l != want {
		t.Errorf("read %+v, want %+v", l, want)
	}
	if l := parseServerLog(""); l != (serverLog{}) {
		t.Errorf("an empty log says %+v", l)
	}
}

func TestPreload(t *testing.T) {
	base := t.TempDir()
	bin, lib := filepath.Join(base, "bin"), filepath.Join(base, "lib")
	for _, dir := range []string{bin, lib} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"there.so", "also there.so"} {
		if err := os.WriteFile(filepath.Join(lib, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := server.Install{BinDir: bin}
	for _, c := range []struct {
		libraries           Libraries
		load, missing, left []string
	}{
		{Libraries{}, []string{"there", "also there"}, []string{"gone", "/no/such"}, nil},
		{Libraries{Listed: true, Names: []string{"there", "gone"}}, []string{"there"}, []string{"gone"}, []string{"also there", "/no/such"}},
	} {
		r := &run{o: Options{Libraries: c.libraries}}
		load, missing, left := r.preload(in, `there, "also there",gone , /no/such`)
		if !slices.Equal(load, c.load) || !slices.Equal(missing, c.missing) || !slices.Equal(left, c.left) {
			t.Errorf("%+v: loads %q, lacks %q, leaves %q", c.libraries, load, missing, left)
		}
	}
}

// To PostgreSQL an empty target that comes later takes back the one that was set.
func TestPausedAt(t *testing.T) {
	lines := func(set map[string]string) string {
		var out []string
		for _, name := range slices.Sorted(maps.Keys(set)) {
			out = append(out, name+"="+set[name])
		}
		return strings.Join(out, " ")
	}
	got := targets([]restore.Setting{{Name: "restore_command", Value: "x"}, {Name: "recovery_target_timeline", Value: "3"},
		{Name: "recovery_target_action", Value: "promote"}, {Name: "recovery_target_lsn", Value: ""}, {Name: "recovery_target", Value: ""},
		{Name: "recovery_target_time", Value: "then"}, {Name: "max_connections", Value: "7"}})
	if have, want := lines(got), "recovery_target_action=promote recovery_target_time=then"; have != want {
		t.Errorf("targets %s, want %s", have, want)
	}
	if have, want := lines(pausedAt(postgres.LSN(0x16_0000_0028))), "recovery_target_action=pause recovery_target_inclusive=off recovery_target_lsn=16/28"; have != want {
		t.Errorf("settings %s, want %s", have, want)
	}
}

// What shows that a restore would have failed, and what only keeps this host
// from telling.
func TestProvesFailure(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{restore.ErrNoBackup, true},
		{&restore.GapError{}, true},
		{fmt.Errorf("look at it: %w", &repo.CorruptError{}), true},
		{&restore.BackupError{Err: &repo.UntrustedError{}}, true},
		{repo.ErrWrongIdentity, true},
		{&server.ExitError{}, true},
		{&HangError{}, true},
		{&MissingBackupError{Label: "x"}, true},
		{fs.ErrNotExist, false},
		{storage.ErrUnavailable, false},
		{storage.ErrDenied, false},
		{&restore.SpaceError{}, false},
		{&server.FindError{}, false},
		{&UnfencedError{}, false},
		{&MemoryError{}, false},
		{&StagingError{}, false},
		{errors.New("anything else"), false},
	} {
		if got := provesFailure(c.err); got != c.want {
			t.Errorf("%T %v: %t, want %t", c.err, c.err, got, c.want)
		}
	}
}

// What a hostile server writes into its log takes neither long nor much, and leads to
// nothing but a wrong position, which is held against the archive's: lines without an end,
// lines that begin like ones of ours, terminal codes, numbers that are too large.
func TestServerLogHostile(t *testing.T) {
	const begin = "2026-01-31 02:00:02.500 UTC [11] LOG:  "
	huge := begin + "redo done at " + strings.Repeat("F", 48<<20)
	began := time.Now()
	l := parseServerLog(recoveryLog + huge + "\n" + strings.Repeat(begin+"x\n", 200000) +
		begin + "selected new timeline ID: 4294967296\n" + begin + "last completed transaction was at log time never\n" + huge)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if l.last != 0 || l.timeline != 0xffffffff && l.timeline != 0 || !l.ended.IsZero() || len(l.lastLine) > longestLine {
		t.Errorf("it says %+v", l)
	}
	r := recovery{Why: "\x1b[2J" + strings.Repeat("y", 1<<20), Failed: &Failure{Text: strings.Repeat("z\n", 1<<20)}}
	r.clean()
	if len(r.Why) > 1000 || strings.ContainsRune(r.Why, 0x1b) || len(r.Failed.Text) > 1000 || strings.ContainsRune(r.Failed.Text, '\n') {
		t.Errorf("it is not clean: %.80q of %d, %.80q of %d", r.Why, len(r.Why), r.Failed.Text, len(r.Failed.Text))
	}
}

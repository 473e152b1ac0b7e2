package postgres_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

const labelText = `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000060
BACKUP METHOD: streamed
BACKUP FROM: standby
START TIME: 2026-11-23 06:06:41 UTC
LABEL: nightly: second try
START TIMELINE: 1
`

func TestParseBackupLabel(t *testing.T) {
	l, err := postgres.ParseBackupLabel([]byte(labelText))
	if err != nil {
		t.Fatal(err)
	}
	want := postgres.BackupLabel{
		Start: 0x2000028, StartSegment: "000000010000000000000002", StartTimeline: 1, Checkpoint: 0x2000060,
		Method: "streamed", From: "standby", StartTime: "2026-11-23 06:06:41 UTC", Label: "nightly: second try",
	}
	if l != want || !l.FromStandby() {
		t.Errorf("%+v, want %+v", l, want)
	}
	l, err = postgres.ParseBackupLabel([]byte(labelText + "INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\nSOMETHING NEW: 5\n"))
	if err != nil || l.IncrementalFrom != 0x1000028 || l.IncrementalFromTimeline != 1 {
		t.Errorf("of an incremental backup: %+v, %v", l, err)
	}
}

func TestParseBackupLabelRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":              "",
		"no checkpoint":      strings.Replace(labelText, "CHECKPOINT", "X", 1),
		"no segment":         strings.Replace(labelText, " (file 000000010000000000000002)", "", 1),
		"open bracket":       strings.Replace(labelText, "2)", "2", 1),
		"bad start":          strings.Replace(labelText, "0/2000028", "2000028", 1),
		"bad checkpoint":     strings.Replace(labelText, "0/2000060", "x", 1),
		"bad timeline":       strings.Replace(labelText, "TIMELINE: 1", "TIMELINE: one", 1),
		"twice":              labelText + "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n",
		"timelines disagree": strings.Replace(labelText, "TIMELINE: 1", "TIMELINE: 2", 1),
	} {
		if l, err := postgres.ParseBackupLabel([]byte(text)); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

func TestTablespaceMap(t *testing.T) {
	links := []postgres.TablespaceLink{
		{OID: 16400, Path: "/srv/fast disk"},
		{OID: 16401, Path: "/srv/new\nline\\and\rmore"},
		{OID: 16402, Path: "pg_tblspc/16402"},
	}
	text := postgres.MarshalTablespaceMap(links)
	if want := "16400 /srv/fast disk\n16401 /srv/new\\\nline\\\\and\\\rmore\n16402 pg_tblspc/16402\n"; string(text) != want {
		t.Errorf("marshalled %q", text)
	}
	if got, err := postgres.ParseTablespaceMap(text); err != nil || !slices.Equal(got, links) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	if got, err := postgres.ParseTablespaceMap([]byte("16400 /a\r\n16401 /b\r\n")); err != nil || len(got) != 2 || got[0].Path != "/a" {
		t.Errorf("lines with carriage returns: %+v, %v", got, err)
	}
	if got, err := postgres.ParseTablespaceMap(nil); err != nil || got != nil {
		t.Errorf("no tablespaces: %+v, %v", got, err)
	}
	for _, bad := range []string{"16400 /a", "16400\n", "16400 \n", "x /a\n", "0 /a\n", " /a\n", "16400 /a\\", "99999999999 /a\n", "1 /a\x00\n"} {
		if got, err := postgres.ParseTablespaceMap([]byte(bad)); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

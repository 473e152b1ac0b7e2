package postgres_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func TestParseLSN(t *testing.T) {
	good := map[string]postgres.LSN{
		"0/0":               0,
		"0/1000028":         0x1000028,
		"16/B374D848":       0x16B374D848,
		"16/b374d848":       0x16B374D848,
		"00000016/0000000F": 0x160000000F,
		"FFFFFFFF/FFFFFFFF": 1<<64 - 1,
	}
	for s, want := range good {
		got, err := postgres.ParseLSN(s)
		if err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "/", "0", "0/", "/0", "0/0/0", "0x1/0", "+1/0", "1/-1", " 0/0", "0/0\n",
		"000000001/0", "0/123456789", "g/0", "0_1/0"} {
		if got, err := postgres.ParseLSN(s); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("ParseLSN(%q) = %v, %v; want an error", s, got, err)
		}
	}
	if got := postgres.LSN(0x160000000F).String(); got != "16/F" {
		t.Errorf("String: %s", got)
	}
}

func TestParseTimeline(t *testing.T) {
	good := map[string]postgres.Timeline{"1": 1, "17": 17, "0x11": 17, "0XfF": 255, "4294967295": 1<<32 - 1}
	for s, want := range good {
		if got, err := postgres.ParseTimeline(s); err != nil || got != want {
			t.Errorf("ParseTimeline(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "0x", "0x0", "010", "-1", "+1", "1 ", "latest", "4294967296", "0x100000000", "1_0"} {
		if got, err := postgres.ParseTimeline(s); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("ParseTimeline(%q) = %v, %v; want an error", s, got, err)
		}
	}
	if got := postgres.Timeline(0xA1).HistoryName(); got != "000000A1.history" {
		t.Errorf("HistoryName: %s", got)
	}
}

func TestJSON(t *testing.T) {
	type all struct {
		LSN    postgres.LSN
		System postgres.SystemID
	}
	want := all{LSN: 0x16B374D848, System: 18446744073709551615}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != `{"LSN":"16/B374D848","System":"18446744073709551615"}` {
		t.Errorf("marshalled: %s", b)
	}
	var got all
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("unmarshalled %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{`{"LSN":"0"}`, `{"LSN":1}`, `{"System":"-1"}`, `{"System":"01"}`, `{"System":""}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestVersions(t *testing.T) {
	if got, err := postgres.ParseVersionFile([]byte("15\n")); got != 15 || err != nil {
		t.Errorf("PG_VERSION 15: %d, %v", got, err)
	}
	for _, s := range []string{"", "12\n", "9.6\n", "19\n", "x", "-15"} {
		if got, err := postgres.ParseVersionFile([]byte(s)); err == nil {
			t.Errorf("PG_VERSION %q: %d", s, got)
		}
	}
	v := postgres.ServerVersion(150014)
	if v.Major() != 15 || v.Minor() != 14 || v.String() != "15.14" || !v.Supported() {
		t.Errorf("150014: %s", v)
	}
	if postgres.ServerVersion(120010).Supported() || postgres.ServerVersion(190000).Supported() {
		t.Error("12 or 19 counts as supported")
	}
	if got := postgres.TablespaceDir(15, 202209061); got != "PG_15_202209061" {
		t.Errorf("TablespaceDir: %s", got)
	}
}

package repo

import (
	"encoding/json"
	"reflect"
	"testing"
)

// Whatever comes, it is read as encoding/json reads it, or refused as there.
func FuzzParseFile(f *testing.F) {
	for _, e := range []FileEntry{
		{Type: Regular, Path: "base/5/16384_fsm", Mode: 0o600, Size: 24576, ModTime: testTime, ID: "1a2b.3c", Sum: "00ff"},
		{Type: Dir, Path: "base", Mode: 0o700},
		{Type: Regular, Path: "a\"\\\n\x7f\xff", Mode: 0o600},
		{Type: Regular, Path: "<&>\u2028\u00e9", Mode: 0o600, ID: "x"},
	} {
		line, err := recordLine(e)
		check(f, err)
		f.Add(line)
	}
	for _, line := range []string{
		`{"type":"link","path":"a","mode":384}`, `{"type":"file","path":"a","mode":01}`, `{"type":"file","path":"a","mode":4294967296}`,
		`{"type":"file","path":"a","mode":384,"mtime":"2026-01-31T02:00:04+00:00"}`, `{"type":"file","path":"a","mode":384,"mtime":"2026-01-31T02:00:04+01:00"}`,
		`{"type":"file","path":"a","mode":384,"mtime":"2026-01-31T24:00:00Z"}`, `{"type":"file","path":"a","mode":384,"mtime":""}`,
		`{"type":"file","path":"a","mode":384,"mtime":"2026-01-31T2:00:04.5Z"}`, `{"type":"file","path":"a","mode":384}x`, `{"type":"dir","path":"\u0061","mode":0}`,
		`{"type":"file","path":"a","path":"b","mode":384}`, `{"type":"file","path":"a","mode":384,"sum":"XYZ"}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast, slow FileEntry
		errFast, errSlow := parseFile(line, &fast), json.Unmarshal(line, &slow)
		if (errFast == nil) != (errSlow == nil) {
			t.Fatalf("%v, and of encoding/json %v", errFast, errSlow)
		}
		if errFast == nil && !reflect.DeepEqual(fast, slow) {
			t.Fatalf("%+v\nand of encoding/json\n%+v", fast, slow)
		}
	})
}

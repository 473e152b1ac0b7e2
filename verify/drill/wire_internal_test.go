package drill

import (
	"bufio"
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// What a process that has to do with a hostile server says is taken only in its
// form, bounded and cleaned.
func TestHostileAnswers(t *testing.T) {
	for _, line := range []string{
		``, `null`, `{}`, `[]`, `{"answer":{}} {"answer":{}}`, `{"answer":{},"failure":{"text":"x"}}`, `{"more":1,"answer":{}}`,
		`{"progress":{"Phase":"no such phase","Done":1,"Total":2}}`, `{"progress":{"Phase":"replay","Done":-1,"Total":2}}`,
		`{"failure":{"text":"x","code":-1}}`, `{"failure":{"text":"x","code":256}}`,
	} {
		if _, err := decodeReply([]byte(line)); err == nil {
			t.Errorf("%s was accepted", line)
		}
	}
	r, err := decodeReply([]byte(`{"failure":{"text":"a\u0007\nlifeboat: forged AGE-SECRET-KEY-1ABC","hint":"` + strings.Repeat("x", 9000) + `"}}`))
	if err != nil || strings.ContainsAny(r.Failure.Text, "\a\n") || strings.Contains(r.Failure.Text, "1ABC") || len(r.Failure.Hint) > 600 {
		t.Errorf("%+v, %v", r.Failure, err)
	}
	if _, err := readLine(bufio.NewReader(strings.NewReader(strings.Repeat("x", mostSeen+1)+"\n")), mostSeen); err == nil {
		t.Error("a line longer than the bound was read")
	}
	for _, s := range []seen{{}, {Verdict: "sure"}, {Verdict: evidence.Passed, Proven: make([]string, mostLines+1)}} {
		if s.clean() == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
	odd := recovery{Replayed: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), Failed: &Failure{Text: "a\nb", Code: 9999}}
	if odd.clean(); !odd.Replayed.IsZero() || odd.Failed.Code != 0 || odd.Failed.Text != "a b" {
		t.Errorf("%+v, %+v", odd, odd.Failed)
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"answer":{"verdict":"passed"}}`))
	f.Add([]byte(`{"progress":{"Phase":"replay","Done":1,"Total":2}}`))
	f.Add([]byte(`{"failure":{"text":"x","code":3,"proves":true}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeReply(line)
		if err != nil || r.Answer == nil {
			return
		}
		var s seen
		if strictly(r.Answer, &s) == nil && s.clean() == nil && len(s.Detail) > 600 {
			t.Errorf("a detail of %d bytes", len(s.Detail))
		}
	})
}

func FuzzServerLog(f *testing.F) {
	f.Add(recoveryLog)
	f.Add("2026-01-31 02:00:02.500 UTC [11] LOG:  redo done at \n")
	f.Add(strings.Repeat("x", 100000))
	f.Fuzz(func(t *testing.T, text string) {
		if l := parseServerLog(text); l.lastLine != "" && !strings.Contains(text, l.lastLine) {
			t.Errorf("a last line %q that is not there", l.lastLine)
		}
	})
}

// Who works tells of every step; what goes through the pipe is bounded, and the end is
// told.
func TestProgressIsBounded(t *testing.T) {
	var out bytes.Buffer
	w := &replies{out: &out}
	const total = 100_000
	for _, phase := range []string{evidence.PhasePlan, evidence.PhaseFiles} {
		for done := int64(0); done <= total; done++ {
			w.progress(Progress{phase, done, total})
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if n := len(lines); n < 100 || n > 2*(progressSteps+10) {
		t.Errorf("%d lines for two phases of %d steps", n, total)
	}
	for _, want := range []Progress{{evidence.PhasePlan, 0, total}, {evidence.PhasePlan, total, total}, {evidence.PhaseFiles, total, total}} {
		text, err := json.Marshal(reply{Progress: &want})
		if err != nil || !slices.Contains(lines, string(text)) {
			t.Errorf("%s is not told", text)
		}
	}
}

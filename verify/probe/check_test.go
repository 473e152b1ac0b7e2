package probe

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

func TestCompare(t *testing.T) {
	disaster := time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)
	text, one, ten := "x", 1.0, 10.0
	for _, c := range []struct {
		check Check
		value string
		want  evidence.Verdict
	}{
		{Check{}, "t", evidence.Passed},
		{Check{}, "f", evidence.Failed},
		{Check{}, "1", evidence.Failed},
		{Check{Expect: &text}, "x", evidence.Passed},
		{Check{Expect: &text}, "x ", evidence.Failed},
		{Check{Min: &one}, "1", evidence.Passed},
		{Check{Min: &one}, "0.99", evidence.Failed},
		{Check{Min: &one, Max: &ten}, "10", evidence.Passed},
		{Check{Min: &one, Max: &ten}, "10.01", evidence.Failed},
		{Check{Max: &ten}, "-5", evidence.Passed},
		{Check{Min: &one}, "many", evidence.Failed},
		{Check{Min: &one}, "NaN", evidence.Failed},
		{Check{NewerThan: time.Hour}, "2026-01-31 01:00:00+00", evidence.Passed},
		{Check{NewerThan: time.Hour}, "2026-01-31 00:59:59.999999+00", evidence.Failed},
		{Check{NewerThan: time.Hour}, "2026-01-31 02:30:00+01", evidence.Passed},
		{Check{NewerThan: time.Hour}, "2026-01-31", evidence.Failed},
		{Check{NewerThan: time.Hour}, fmt.Sprint(disaster.Unix() - 60), evidence.Passed},
		{Check{NewerThan: time.Hour}, "yesterday", evidence.Failed},
	} {
		if got, detail := c.check.compare(c.value, disaster); got != c.want || detail == "" {
			t.Errorf("%+v of %q: %s (%s), want %s", c.check, c.value, got, detail, c.want)
		}
	}
}

func TestPlainEnv(t *testing.T) {
	got := PlainEnv([]string{"PATH=/bin", "AWS_SECRET_ACCESS_KEY=x", "LC_ALL=C", "PGPASSWORD=x", "LIFEBOAT_IDENTITY=x", "CREDENTIALS_DIRECTORY=x",
		"PATHOLOGICAL=x", "GITHUB_TOKEN=x", "HOME=/h", "NOTHING"})
	if want := []string{"PATH=/bin", "LC_ALL=C", "HOME=/h"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

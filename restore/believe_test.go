package restore

import (
	"errors"
	"testing"
	"time"
)

// A newer backup that is not believed ends the restore, unless the operator named one or
// wants a time before it.
func TestCheckBelieved(t *testing.T) {
	t.Parallel()
	const older, taken, newer, newest = "20260101T000000Z-000001", "20260102T000000Z-000001", "20260103T000000Z-000001", "20260104T000000Z-000001"
	forged := errors.New("forged")
	at := func(day int) Target {
		return Target{Point: Point{Kind: AtTime, Time: time.Date(2026, 1, day, 12, 0, 0, 0, time.UTC)}}
	}
	for name, c := range map[string]struct {
		target     Target
		unbelieved []string
		want       string
	}{
		"all are believed":           {Target{}, nil, ""},
		"an older one is not":        {Target{}, []string{older}, ""},
		"a newer one is not":         {Target{}, []string{older, newer}, newer},
		"the newest of them":         {Target{}, []string{newest, newer}, newest},
		"no label":                   {Target{}, []string{"zzz"}, ""},
		"it is named":                {Target{Backup: taken}, []string{newer}, ""},
		"a time before it":           {at(2), []string{newer}, ""},
		"a time after it":            {at(3), []string{newer}, newer},
		"a time between two of them": {at(3), []string{newer, newest}, newer},
	} {
		unbelieved := map[string]error{}
		for _, label := range c.unbelieved {
			unbelieved[label] = forged
		}
		err := (&Plan{Label: taken}).checkBelieved(c.target, unbelieved)
		e, refused := errors.AsType[*UnbelievedError](err)
		if refused != (c.want != "") || refused && (e.Label != c.want || e.Older != taken || !errors.Is(err, forged)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

package restore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// UnbelievedError says that a backup newer than the one that could be restored is not
// believed. Taking the older one is a decision: who wrote the newer manifest, and
// whether the cluster wrote it, is not known here.
type UnbelievedError struct {
	Label string // the newest that is not believed
	Err   error  // why: it names the object

	Older     string    // the backup that would serve, and is believed
	OlderTime time.Time // when it was consistent
}

func (e *UnbelievedError) Error() string {
	return fmt.Sprintf("backup %s is newer than any that is believed, and is not believed itself: %v; before it there is backup %s, consistent at %s UTC",
		e.Label, e.Err, e.Older, e.OlderTime.UTC().Format(timeForm))
}

func (e *UnbelievedError) Unwrap() error { return e.Err }

// checkBelieved refuses a plan that takes an older backup because a newer one is not
// believed, unless the operator named the backup. A backup that began after the time
// that is wanted decides nothing.
func (p *Plan) checkBelieved(t Target, unbelieved map[string]error) error {
	newest := ""
	for label := range unbelieved {
		began, err := repo.LabelTime(label)
		late := err != nil || t.Point.Kind == AtTime && began.After(t.Point.Time)
		if !late && label > p.Label && label > newest {
			newest = label
		}
	}
	if newest == "" || t.Backup != "" {
		return nil
	}
	return &UnbelievedError{Label: newest, Err: unbelieved[newest], Older: p.Label, OlderTime: p.ConsistentTime}
}

// unbelievable says whether the error is about a manifest itself, which is damaged or
// was not signed by the cluster, and so about what the backup is at all.
func unbelievable(label string, err error) bool {
	places := repo.ManifestPlaces(label)
	if e, ok := errors.AsType[*repo.CorruptError](err); ok {
		return slices.Contains(places, e.Object)
	}
	if e, ok := errors.AsType[*repo.UntrustedError](err); ok {
		return slices.Contains(places, e.Object)
	}
	return errors.Is(err, ErrUnsafeManifest)
}

package rds

import (
	"regexp"
	"strings"
	"sync"
	"time"
)

// Prefix begins the name of all that Lifeboat makes on RDS.
const Prefix = "lifeboat-"

// DrillPrefix begins the name of what a drill restores.
const DrillPrefix = Prefix + "drill-"

// The tags. RDS allows letters, digits, spaces and _.:/=+-@ in them.
const (
	TagKind    = "lifeboat"         // what it is: snapshot or drill
	TagSource  = "lifeboat:source"  // name of the source
	TagAttempt = "lifeboat:attempt" // id of the run that made it
	TagUntil   = "lifeboat:until"   // of a drill: when a reaper may remove it
	TagDone    = "lifeboat:done"    // of a snapshot: when it, and its copies, were verified; of a copy: when that was
	TagWait    = "lifeboat:wait"    // the run that made it waited for it, to verify it
)

// Values of TagKind.
const (
	tagSnapshot = "snapshot"
	tagDrill    = "drill"
)

// Attempt is the id of a run in the letters that RDS allows in names: an
// evidence id in lower case.
func Attempt(id string) string { return strings.ToLower(id) }

var attemptPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}$`)
})

func isAttempt(s string) bool { return attemptPattern().MatchString(s) }

func snapshotName(source, attempt string) string {
	return Prefix + strings.ToLower(source) + "-" + attempt
}

func stagingName(attempt string) string { return DrillPrefix + attempt }

// memberName is the instance of a restored Aurora cluster.
func memberName(attempt string) string { return DrillPrefix + attempt + memberSuffix }

// memberSuffix ends no attempt: those end with eight digits.
const memberSuffix = "-1"

func (t Tags) time(name string) time.Time {
	at, _ := time.Parse(time.RFC3339, t[name])
	return at
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

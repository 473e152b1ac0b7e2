package repo

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

const checksPrefix = "checks/"

// ChecksPrefix is where the records of checks lie, with its slash.
const ChecksPrefix = checksPrefix

// CheckID names the record of a check that begins now: ids sort by time.
func CheckID(now time.Time) string {
	return now.UTC().Format("20060102T150405Z") + "-" + NewID()[:8]
}

// CheckSummaryKey is where what a check found is said in short.
func CheckSummaryKey(id string) string { return checksPrefix + id + "/summary" }

// CheckPartKey is where, for the n-th time from 1 on, is said what was read.
func CheckPartKey(id string, n int) string { return fmt.Sprintf("%s%s/part-%06d", checksPrefix, id, n) }

var checkPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}/(summary|part-[0-9]{6})$`)
})

// ParseCheck reads what CheckSummaryKey and CheckPartKey make: the id, when the
// check began, and whether it is a summary. False for every other key.
func ParseCheck(key string) (id string, began time.Time, summary, ok bool) {
	m := checkPattern().FindStringSubmatch(strings.TrimPrefix(key, checksPrefix))
	if m == nil || !strings.HasPrefix(key, checksPrefix) {
		return "", began, false, false
	}
	began, err := time.Parse("20060102T150405Z", m[1])
	id, _, _ = strings.Cut(strings.TrimPrefix(key, checksPrefix), "/")
	return id, began, m[2] == "summary", err == nil
}

package repo

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kindsIn are the keys of objects that the first column of a page's tables names.
func kindsIn(t *testing.T, page, after, before string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	check(t, err)
	_, rest, ok := strings.Cut(string(text), after)
	part, _, ok2 := strings.Cut(rest, before)
	if !ok || !ok2 {
		t.Fatalf("%s has no part between %q and %q", page, after, before)
	}
	var out []string
	for line := range strings.SplitSeq(part, "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`([a-z]+[./][^`]*)`").FindAllStringSubmatch(cells[1], -1) {
				out = append(out, m[1])
			}
		}
	}
	slices.Sort(out)
	return out
}

// Every kind of object has a row in docs/threats.md: those of FORMAT.md, which another
// test holds to the code.
func TestThreatsPage(t *testing.T) {
	format := kindsIn(t, "FORMAT.md", "## Keys of objects", "## Key files")
	threats := kindsIn(t, filepath.Join("..", "docs", "threats.md"), "# Threats", "## What each attacker")
	if len(format) < 15 || !slices.Equal(format, threats) {
		t.Errorf("FORMAT.md has\n%q, docs/threats.md\n%q", format, threats)
	}
}

package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest  = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	failureRow = regexp.MustCompile(`^\| (\d+) \|`)
)

// failureKinds are what a row can say, and whether it must name a test.
var failureKinds = map[string]bool{"tested": true, "cannot happen": false, "does not apply": false, "not there yet": false}

// TestFailureModes holds docs/failure-modes.md to the tree: each test that it
// names is there, each row says what it is, and the sum is right.
func TestFailureModes(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "docs", "failure-modes.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	for _, m := range namedTest.FindAllStringSubmatch(page, -1) {
		if !hasTest(t, m[1], m[2]) {
			t.Errorf("docs/failure-modes.md names %s.%s, which is not there", m[1], m[2])
		}
	}
	kinds, rows, next := map[string]int{}, 0, 0
	for line := range strings.Lines(page) {
		m := failureRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if next++; m[1] == "1" {
			next = 1 // the next table
		}
		cells := strings.Split(line, "|")
		if m[1] != fmt.Sprint(next) || len(cells) != 7 {
			t.Errorf("not row %d of five columns: %s", next, line)
			continue
		}
		kind := strings.TrimSpace(cells[3])
		needsTest, known := failureKinds[kind]
		if !known || needsTest && !namedTest.MatchString(cells[5]) || len(cells[4]) < 10 {
			t.Errorf("it does not say how it is, or why, or names no test: %s", line)
		}
		kinds[kind]++
		rows++
	}
	sum := fmt.Sprintf("Of %d failures %d are tested, %d cannot happen, %d do not apply and %d are about what is not there yet.",
		rows, kinds["tested"], kinds["cannot happen"], kinds["does not apply"], kinds["not there yet"])
	if !strings.Contains(page, sum) {
		t.Errorf("the page does not say: %s", sum)
	}
}

// hasTest says whether a test function stands in a directory.
func hasTest(t *testing.T, directory, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(directory), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains("\n"+string(raw), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var decides = regexp.MustCompile("`(\\w+)`(?: and `(\\w+)`)? in `([a-z0-9/]+\\.go)`")

// TestWhereItIsDecided holds the list in docs/architecture.md to the tree.
func TestWhereItIsDecided(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := decides.FindAllStringSubmatch(string(raw), -1)
	if len(found) < 10 {
		t.Fatalf("only %d functions are named", len(found))
	}
	for _, m := range found {
		source, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(m[3])))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range m[1:3] {
			if name != "" && !regexp.MustCompile(`(?m)^func (\([^)]*\) )?`+name+`\(`).Match(source) {
				t.Errorf("docs/architecture.md: %s is not in %s", name, m[3])
			}
		}
	}
}

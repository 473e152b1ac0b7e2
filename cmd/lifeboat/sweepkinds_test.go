package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// sweptKind is a kind of object and how it is attacked.
type sweptKind struct {
	name string // as in FORMAT.md

	// free makes names that are free in the repository: -1 is one that sorts first, 0 one
	// that sorts behind the genuine ones or comes next, and so on. %s is the system. Nil
	// where there is one name only.
	free func(n int) string

	// genuine finds the genuine ones.
	genuine *regexp.Regexp

	// unseen says why a command does not tell that a genuine one is gone or an older one is
	// there; "" where it has to tell or to do the same as with it.
	unseen string

	// silent says that one that is not genuine is passed over like one that is not there.
	silent bool
}

// numbered makes names behind all genuine ones.
func numbered(form string, from int) func(int) string {
	return func(n int) string { return fmt.Sprintf(form, from+n) }
}

// labels makes names of backups, of the year 2001 and of 2099.
func labels(form string) func(int) string {
	return func(n int) string {
		if n < 0 {
			return fmt.Sprintf(form, "20010131T020000Z-1a2b3c")
		}
		return fmt.Sprintf(form, fmt.Sprintf("20990131T020000Z-%06x", n))
	}
}

const (
	noTrace   = "what is gone cannot be told from what never was: the host's memory tells, TestRepositoryGoneBack of cmd/lifeboat and verify/seen"
	noWay     = "what can be restored on that timeline is unknown then; wal status names the file, and a restore refuses"
	noPromise = "nobody is promised that it is there: it makes work shorter, or is a note for people"
)

// sweptKinds is the table of kinds.
func sweptKinds() []sweptKind {
	kind := func(name string, free func(int) string, genuine, unseen string) sweptKind {
		return sweptKind{name, free, regexp.MustCompile("^" + genuine + "$"), unseen, unseen == noPromise || strings.HasPrefix(name, "keys/")}
	}
	const label = `[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}`
	const name = "wal/<system>/<timeline>/<name>"
	return []sweptKind{
		kind(repo.MarkerKey, nil, `lifeboat\.json`, ""),
		kind("systems/<system>", numbered("systems/%d", 7999999999999990000), `systems/[0-9]+`, noTrace),
		kind("backups/<label>/manifest", labels("backups/%s/manifest"), `backups/`+label+`/manifest`, noTrace),
		kind("backups/<label>/info", labels("backups/%s/info"), `backups/`+label+`/info`, "the manifest says the same"),
		kind("backups/<label>/fingerprints", labels("backups/%s/fingerprints"), `backups/`+label+`/fingerprints`, noPromise),
		kind("backups/<label>/adoption", labels("backups/%s/adoption"), `backups/`+label+`/adoption`, noPromise),
		kind("backups/<label>/part-<number>", labels("backups/%s/part-000001"), `backups/`+label+`/part-[0-9]+`, noPromise),
		kind("packs/<id>", func(n int) string {
			if n < 0 {
				return "packs/" + strings.Repeat("0", 64)
			}
			return fmt.Sprintf("packs/%056xffffffff", n)
		}, `packs/[0-9a-f]{64}`, ""),
		kind(name, numbered("wal/%%s/00000002/0000000200000000%08X", 0xF0), `wal/[0-9]+/[0-9A-F]{8}/[0-9A-F]{24}`, noTrace),
		kind(name+", of a timeline history", func(n int) string {
			return fmt.Sprintf("wal/%%s/%08X/%08X.history", 4+2*n, 4+2*n)
		}, `wal/[0-9]+/[0-9A-F]{8}/[0-9A-F]{8}\.history`, noWay),
		kind(name+", of a partial segment", numbered("wal/%%s/00000002/0000000200000000%08X.partial", 0xF0), `wal/[0-9]+/[0-9A-F]{8}/[0-9A-F]{24}\.partial`, noPromise),
		kind(name+", of a backup history", numbered("wal/%%s/00000002/0000000200000000%08X.00000028.backup", 0xF0), `wal/.*\.backup`, noPromise),
		kind("wal/<system>/<timeline>/<segment>.d/<from>-<to>", numbered("wal/%%s/00000002/0000000200000001%08X.d/00000000-00001000", 0xF0), `wal/.*\.d/.*`, noTrace),
		kind("blocks/<system>/<timeline>/<from>-<to>", func(n int) string {
			return fmt.Sprintf("blocks/%%s/00000002/%016X-%016X", 0xF0000000+n, 0xF1000000+n)
		}, `blocks/.*`, noPromise),
		kind("pins/<label>/<generation>", labels("pins/%s/000001"), `pins/.*`, noTrace),
		kind("checks/<id>/summary", labels("checks/%s4d/summary"), `checks/.*/summary`, noPromise),
		kind("checks/<id>/part-<n>", labels("checks/%s4d/part-000001"), `checks/.*/part-[0-9]+`, noPromise),
		kind("keys/<serial>", func(n int) string {
			if n < 0 {
				return "keys/00000000"
			}
			return fmt.Sprintf("keys/%08d", 2+n)
		}, `keys/[0-9]{8}`, noTrace),
		kind("drills/<id>", labels("drills/%s4d"), `drills/.*`, noTrace),
		kind("leases/<name>/<generation>", func(n int) string {
			if n < 0 {
				return "leases/backup/00000000000000000000"
			}
			return fmt.Sprintf("leases/backup/%020d", uint64(1<<63)+uint64(n))
		}, `leases/.*`, noPromise),
	}
}

// nextNames are the names under which the commands of the sweep store something themselves.
func (w *swept) nextNames(k sweptKind) map[string][]byte {
	junk := []byte("junk\n")
	switch k.name {
	case "wal/<system>/<timeline>/<name>":
		return map[string][]byte{"wal/" + w.system + "/00000002/" + filepath.Base(w.next): junk, "wal/" + w.system + "/00000003/00000003.history": junk}
	case "keys/<serial>":
		return map[string][]byte{"keys/00000002": junk, "keys/99999999": junk}
	case "blocks/<system>/<timeline>/<from>-<to>":
		return w.nextBlocks()
	case "pins/<label>/<generation>":
		return map[string][]byte{"pins/" + w.label + "/000002": junk}
	}
	return nil
}

// nextBlocks are the names of the changed blocks of the segments that come next.
func (w *swept) nextBlocks() map[string][]byte {
	const size = 1 << 20
	next, err := postgres.ParseSegment(filepath.Base(w.next), size)
	if err != nil {
		panic(err)
	}
	all := map[string][]byte{}
	for range 16 {
		all[fmt.Sprintf("blocks/%s/00000002/%016X-%016X", w.system, uint64(next.Start()), uint64(next.End()))] = []byte("junk\n")
		next = next.Next()
	}
	return all
}

// The sweep has every kind of object that FORMAT.md names and every prefix of the program.
func TestSweepUnsignedIsWhole(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "repo", "FORMAT.md"))
	must(t, err)
	have, tops := map[string]bool{}, map[string]bool{}
	for _, k := range sweptKinds() {
		row, _, _ := strings.Cut(k.name, ", ")
		have[row] = true
		if top, _, deep := strings.Cut(k.name, "/"); deep {
			tops[top+"/"] = true
		}
	}
	_, rest, _ := strings.Cut(string(text), "## Keys of objects")
	table, _, _ := strings.Cut(rest, "Behind the key")
	found := 0
	for _, m := range regexp.MustCompile("`(lifeboat.json|[a-z]+/<[^`]*)`").FindAllStringSubmatch(table, -1) {
		found++
		if !have[m[1]] {
			t.Errorf("the sweep does not attack %s of FORMAT.md", m[1])
		}
	}
	if found != len(have) {
		t.Errorf("%d kinds in FORMAT.md, %d in the sweep", found, len(have))
	}
	prefixes := 0
	for _, dir := range []string{"repo", "verify/evidence", "verify/check", "wal"} {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		must(t, err)
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			must(t, err)
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok {
					return true
				}
				for i, name := range spec.Names {
					if !strings.HasSuffix(strings.ToLower(name.Name), "prefix") || i >= len(spec.Values) {
						continue
					}
					lit, ok := spec.Values[i].(*ast.BasicLit)
					if !ok || lit.Kind != token.STRING {
						continue
					}
					value, _ := strconv.Unquote(lit.Value)
					if !strings.HasSuffix(value, "/") {
						continue
					}
					if prefixes++; !tops[value] {
						t.Errorf("%s: the sweep does not attack what lies under %s", path, value)
					}
				}
				return true
			})
		}
	}
	if prefixes < len(tops) {
		t.Errorf("%d prefixes in the program, %d in the sweep", prefixes, len(tops))
	}
}

// Package scripts holds the programs that the Makefile calls, and this test of
// rules that no compiler checks. .golangci.yml states the first of them again
// for editors.
package scripts

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lifeboat-dr/lifeboat/"

// mayImport is the direction between the packages (docs/architecture.md):
// cmd → verify → restore → wal → repo → {storage, postgres}; cmd → backup → wal;
// cmd → copier → wal; cmd → rds → verify, and of verify what looks at servers and
// keeps evidence.
// An entry covers the packages below it, "storage" alone is the interface only:
// which store there is, is for cmd to say.
var mayImport = map[string][]string{
	"cmd":      {"cmd/lifeboat/early", "hoststate", "wal/queue", "rds", "rds/...", "verify", "verify/...", "restore", "backup", "copier", "wal", "repo", "storage", "storage/...", "postgres", "postgres/..."},
	"rds":      {"rds", "rds/...", "verify/probe", "verify/evidence", "repo", "storage/direct"},
	"verify":   {"verify/...", "hoststate", "restore", "wal", "repo", "storage", "postgres", "postgres/server", "postgres/fingerprint"},
	"restore":  {"restore/...", "wal", "repo", "storage", "postgres", "postgres/server"},
	"backup":   {"backup/...", "wal", "wal/blocks", "repo", "storage", "postgres", "postgres/fingerprint"},
	"copier":   {"wal", "repo", "storage", "postgres"},
	"wal":      {"wal/...", "repo", "storage", "postgres"},
	"repo":     {"repo/...", "storage", "postgres"},
	"storage":  {"storage", "storage/..."},
	"postgres": {"postgres", "postgres/..."},

	"hoststate": {},
	"scripts":   {},
}

// keptIn lists the homes of foreign packages, so that replacing one touches one
// top. Errors are returned, so "log" has none.
var keptIn = map[string][]string{
	"github.com/aws/":               {"storage/s3", "rds/aws", "cmd"},
	"github.com/urfave/cli/":        {"cmd"},
	"go.yaml.in/yaml/":              {"cmd"},
	"filippo.io/age":                {"repo", "cmd"},
	"github.com/klauspost/compress": {"repo"},
	"golang.org/x/term":             {"cmd"},
	"log":                           {},
}

// beforeMain is the one package that runs before main: docs/adr/005.
const beforeMain = "cmd/lifeboat/early"

// onlyCmd are the calls that a domain package leaves to cmd: it takes plain
// values and returns errors. The homes named may do it as well.
var onlyCmd = map[string][]string{
	"os.Exit":      {"verify/fence"},    // its init, and who stands outside for a program inside, are processes of their own
	"os.Getenv":    {"postgres/server"}, // PATH, to find programs
	"os.LookupEnv": {},
	"os.Environ":   {"postgres/server"},           // handed on to programs it starts
	"os.Setenv":    {"storage/s3/s3test"},         // of tests alone
	"time.Now":     {"storage/mem", "storage/s3"}, // a store has a clock, a connection deadlines

	// Requests with credentials follow no redirect.
	"http.ProxyFromEnvironment": {"storage/direct"},
	"http.DefaultClient":        {},
	"http.Get":                  {},
	"http.Post":                 {},
}

// forTests says whether a directory holds helpers for tests, such as servertest:
// they may do what tests may, and no program that users get is built with them.
// A selftest is none of them: users run it.
func forTests(directory string) bool {
	return strings.HasPrefix(directory, "testdata") || slices.ContainsFunc(strings.Split(directory, "/"), func(name string) bool { return strings.HasSuffix(name, "test") && name != "selftest" })
}

// inProgram are the helpers that a program needs after all: lifeboat
// check-repository holds a user's bucket to the contract of a store.
var inProgram = map[string][]string{"storage/storetest": {"cmd"}}

// notInProgram are modules that only tests, benchmarks and man pages need.
var notInProgram = []string{"github.com/rogpeppe/", "github.com/cpuguy83/go-md2man", "github.com/russross/blackfriday", "golang.org/x/tools", "testing"}

// TestProgramDependencies goes over what lifeboat is built from: nothing that
// is for tests is in it.
func TestProgramDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "urfave_cli_no_docs", "../cmd/lifeboat").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, "github.com/urfave/cli/v2") {
		t.Fatalf("%d packages, and the library of the command line is none of them", len(packages))
	}
	for _, p := range packages {
		if unwanted(p) {
			t.Errorf("the program is built with %s, which is for tests", p)
		}
	}
	for _, p := range []string{"github.com/rogpeppe/go-internal/testscript", "testing", module + "storage/s3/s3test"} {
		if !unwanted(p) {
			t.Errorf("%s is not recognised", p)
		}
	}
}

func unwanted(path string) bool {
	if own, ok := strings.CutPrefix(path, module); ok {
		return forTests(own) && inProgram[own] == nil
	}
	return slices.ContainsFunc(notInProgram, func(m string) bool { return path == m || strings.HasPrefix(path, strings.TrimSuffix(m, "/")+"/") })
}

// source is one file that is no test: tests may do what they need.
type source struct {
	top, directory string // "storage", "storage/s3"
	path           string
	file           *ast.File
}

func sources(t *testing.T, set *token.FileSet) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() && path != ".." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		directory := filepath.ToSlash(filepath.Dir(rel))
		top, _, _ := strings.Cut(directory, "/")
		all = append(all, source{top, directory, rel, file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRules(t *testing.T) {
	set := token.NewFileSet()
	files := sources(t, set)
	if len(files) < 10 {
		t.Fatalf("only %d files found: the test looks in the wrong place", len(files))
	}
	for _, src := range files {
		for _, problem := range problems(src) {
			t.Errorf("%s: %s", src.path, problem)
		}
	}
}

func problems(src source) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	if forTests(src.directory) {
		return nil
	}
	allowed, known := mayImport[src.top]
	if !known {
		report("%s is no package the rules know", src.top)
	}
	for _, imp := range src.file.Imports {
		path, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			report("import %s: %v", imp.Path.Value, err)
			continue
		}
		if own, ok := strings.CutPrefix(path, module); ok {
			switch {
			case !covers(allowed, own):
				report("%s must not import %s", src.top, own)
			case forTests(own) && !at(inProgram[own], src.directory):
				report("%s is for tests", own)
			}
		}
		for prefix, homes := range keptIn {
			matches := path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
			if matches && !at(homes, src.directory) {
				report("%s is kept in %q", path, homes)
			}
		}
	}
	ast.Inspect(src.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok {
				name := pkg.Name + "." + n.Sel.Name
				if homes, ok := onlyCmd[name]; ok && src.top != "cmd" && !at(homes, src.directory) {
					report("only cmd calls %s", name)
				}
			}
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" && src.directory != beforeMain {
				report("func init: what runs must be called by name")
			}
		}
		return true
	})
	return found
}

// covers says whether a package of ours is in a list of mayImport.
func covers(allowed []string, own string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		prefix, below := strings.CutSuffix(a, "/...")
		return own == a || below && strings.HasPrefix(own, prefix+"/")
	})
}

// at says whether a directory is one of homes or below one.
func at(homes []string, directory string) bool {
	return slices.ContainsFunc(homes, func(h string) bool {
		return directory == h || strings.HasPrefix(directory, h+"/")
	})
}

// TestRulesCanFail holds the rules to programs that break them.
func TestRulesCanFail(t *testing.T) {
	for code, directory := range map[string]string{
		`import _ "` + module + `restore"`:           "backup",
		`import _ "` + module + `backup"`:            "restore",
		`import _ "` + module + `storage/s3"`:        "wal",
		`import _ "` + module + `repo"`:              "postgres/server",
		`import _ "github.com/aws/smithy-go"`:        "storage/file",
		`import "os"; func f() { os.Exit(1) }`:       "repo",
		`import "time"; var t = time.Now`:            "restore",
		`func init() {}`:                             "cmd/lifeboat",
		`import _ "` + module + `storage/s3/s3test"`: "cmd/lifeboat",
		`import _ "` + module + `restore"        `:   "rds",
		`import _ "github.com/aws/smithy-go" `:       "rds",
		`import _ "log"`:                             "wal",
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+code, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		top, _, _ := strings.Cut(directory, "/")
		if got := problems(source{top, directory, "x.go", file}); len(got) != 1 {
			t.Errorf("in %s: %s: problems %q, want one", directory, code, got)
		}
	}
}

// Each fuzz target begins with seeds: without, an hour of make soak would look at
// little but what is refused at its first byte.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	targets := 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			targets++
			seeds := 0
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Add" {
					seeds++
				}
				return true
			})
			if seeds == 0 {
				t.Errorf("%s: %s has no seed", path, f.Name.Name)
			}
		}
		return nil
	})
	if err != nil || targets < 20 {
		t.Fatalf("%d fuzz targets: %v", targets, err)
	}
}

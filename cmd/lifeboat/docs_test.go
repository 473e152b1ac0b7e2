package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

var update = flag.Bool("update", false, "write the generated parts of docs/ again")

// generated replaces, or compares, the part of a page in docs/ between
// "<!-- generated: NAME -->" and "<!-- end -->".
func generated(t *testing.T, page, name, want string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", page)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- generated: "+name+" -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/%s has no part %q", page, name)
	}
	if have == want {
		return
	}
	if !*update {
		t.Errorf("docs/%s: the part %q is out of date; go test ./cmd/lifeboat -run TestDocs -update writes it again\nhave:\n%s\nwant:\n%s",
			page, name, have, want)
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func markdown(header []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	line(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}

func TestDocsExitCodes(t *testing.T) {
	for name, c := range map[string]contract{"commands": contractUser, "wal push": contractPush, "wal fetch": contractFetch} {
		var rows [][]string
		for _, d := range c.exitCodes() {
			rows = append(rows, []string{d.code, d.meaning})
		}
		generated(t, "exit-codes.md", name, markdown([]string{"Code", "Meaning"}, rows))
	}
}

func TestDocsConfiguration(t *testing.T) {
	var rows [][]string
	for _, k := range keys() {
		def := k.def
		if def == "" {
			def = k.optional
		}
		help := k.help
		if len(k.choices) > 0 {
			help += ": " + strings.Join(k.choices, ", ")
		}
		param := ""
		if k.url != "" {
			param = "`" + k.url + "`"
		}
		rows = append(rows, []string{"`" + k.name + "`", "`" + k.env() + "`", "`--" + k.flagName() + "`", param, help, def})
	}
	generated(t, "configuration.md", "keys",
		markdown([]string{"Key", "Variable", "Flag", "URL parameter", "What it is", "Default"}, rows))
	generated(t, "configuration.md", "file", "```yaml\n"+string(configText(nil))+"```\n")
}

// jsonReports are the documents that docs/json.md describes, by heading.
func jsonReports() map[string]any {
	return map[string]any{
		"An error":         errorReport{},
		"lifeboat version": versionReport{},
		"lifeboat config":  configReport{},

		"lifeboat init":         setupReport{},
		"lifeboat backup":       backupReport{},
		"lifeboat backups":      []listedBackup{},
		"lifeboat backup pin":   pinReport{},
		"lifeboat backup unpin": pinReport{},
		"lifeboat expire":       expireReport{},
		"lifeboat verify":       verifyReport{},
		"lifeboat wal push":     pushReport{},
		"lifeboat wal fetch":    fetchReport{},
		"lifeboat wal stream":   streamReport{},
		"lifeboat wal status":   walStatusReport{},
		"lifeboat heartbeat":    heartbeatReport{},
		"lifeboat restore":      restoreReport{},
		"lifeboat demo":         demoReport{},
		"lifeboat copy":         copyReport{},
		"lifeboat key status":   keyReport{},
		"lifeboat key rotate":   rotateReport{},
		"lifeboat lease status": leaseReport{},
		"lifeboat lease break":  brokenReport{},

		"lifeboat drill":           evidence.Drill{},
		"lifeboat drill selftest":  selftestReport{},
		"lifeboat report":          report.Summary{},
		"lifeboat evidence verify": verifiedReport{},
		"lifeboat evidence pack":   packReport{},

		"lifeboat rds status":    []rdsStatusReport{},
		"lifeboat rds snapshot":  rdsSnapshotReport{},
		"lifeboat rds expire":    rdsExpireReport{},
		"lifeboat rds heartbeat": rdsHeartbeatReport{},
		"lifeboat rds policy":    []rdsPolicyReport{},

		"lifeboat check-repository": checkReport{},
	}
}

// Every command must have a section in docs/json.md, and every field of its
// document must be named there.
func TestDocsJSON(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		sections[strings.Trim(title, "`")] = body
	}
	for _, name := range leaves("lifeboat", root(newApp())) {
		if _, ok := sections[name]; !ok {
			t.Errorf("docs/json.md has no section `%s`", name)
		}
	}
	for title, document := range jsonReports() {
		body, ok := sections[title]
		if !ok {
			t.Errorf("docs/json.md has no section %q", title)
			continue
		}
		for _, field := range jsonFields(reflect.TypeOf(document), map[reflect.Type]bool{}) {
			if !strings.Contains(body, "`"+field+"`") {
				t.Errorf("docs/json.md, section %q, does not describe `%s`", title, field)
			}
		}
		examples := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(body, -1)
		if len(examples) == 0 {
			t.Errorf("docs/json.md, section %q, has no example", title)
		}
		for _, e := range examples {
			dec := json.NewDecoder(strings.NewReader(e[1]))
			dec.DisallowUnknownFields()
			if err := dec.Decode(reflect.New(reflect.TypeOf(document)).Interface()); err != nil {
				t.Errorf("docs/json.md, section %q: the example is not such a document: %v", title, err)
			}
		}
	}
}

// leaves lists the full names of the commands that do something for people.
func leaves(path string, c *cli.Command) []string {
	if c.Hidden {
		return nil
	}
	if len(c.Subcommands) == 0 {
		return []string{path}
	}
	var names []string
	if c.ArgsUsage != "COMMAND" {
		names = append(names, path)
	}
	for _, sub := range c.Subcommands {
		names = append(names, leaves(path+" "+sub.Name, sub)...)
	}
	return names
}

// jsonFields lists the names of all fields of a document, the nested too.
func jsonFields(typ reflect.Type, seen map[reflect.Type]bool) []string {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || seen[typ] || reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Marshaler]()) {
		return nil
	}
	seen[typ] = true
	var names []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			if f.Anonymous {
				names = append(names, jsonFields(f.Type, seen)...)
				continue
			}
			name = f.Name
		}
		names = append(names, name)
		names = append(names, jsonFields(f.Type, seen)...)
	}
	return names
}

// root is the command above all others.
func root(a *app) *cli.Command {
	lib := a.library(io.Discard)
	return &cli.Command{Name: lib.Name, Usage: lib.Usage, ArgsUsage: "COMMAND", Subcommands: lib.Commands, Flags: lib.Flags}
}

// Every command's help has what a person needs, and is no wider than a screen.
func TestHelpOfEveryCommand(t *testing.T) {
	var check func(path string, c *cli.Command)
	check = func(path string, c *cli.Command) {
		var b strings.Builder
		a := newApp()
		a.stdout = &b
		if err := a.dispatch(t.Context(), append(strings.Fields(path)[1:], "--help")); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"USAGE:\n   " + path, "--config FILE, -c FILE", "EXIT CODES:\n   0 "} {
			if !strings.Contains(b.String(), part) {
				t.Errorf("%s --help lacks %q", path, part)
			}
		}
		for _, sub := range c.Subcommands {
			if listed := regexp.MustCompile(`(?m)^   ` + sub.Name + ` `).MatchString(b.String()); listed == sub.Hidden {
				t.Errorf("%s --help lists %s: %t", path, sub.Name, listed)
			}
		}
		if c.Usage == "" || strings.HasSuffix(c.Usage, ".") {
			t.Errorf("%s: usage %q, want a phrase without a full stop", path, c.Usage)
		}
		for line := range strings.SplitSeq(b.String(), "\n") {
			if len([]rune(line)) > columns+4 {
				t.Errorf("%s --help: %d columns: %s", path, len([]rune(line)), line)
			}
		}
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
				t.Errorf("%s: flag --%s has no help", path, f.Names()[0])
			}
		}
		for _, sub := range c.Subcommands {
			check(path+" "+sub.Name, sub)
		}
	}
	check("lifeboat", root(newApp()))
}

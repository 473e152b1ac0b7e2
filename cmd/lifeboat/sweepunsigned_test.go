package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// sweptCommands are run after each attack, in this order. Words in capitals are filled in.
func sweptCommands() [][]string {
	return [][]string{
		{"wal", "fetch", "--no-prefetch", "NAME", "OUT", "--identity", "IDENTITY"},
		{"backups"},
		{"verify", "--identity", "IDENTITY"},
		{"restore", "--dry-run", "--identity", "IDENTITY", "--to", "OUT"},
		{"key", "status"},
		{"lease", "status"},
		{"report", "--since", "1d"},
		{"expire", "--dry-run", "--keep-last", "1"},
		{"wal", "push", "SEGMENT"},
		{"wal", "status", "--identity", "IDENTITY"},
		{"verify", "--read", "--identity", "IDENTITY"},
		{"copy", "LABEL", "--to", "COPY"},
		{"backup", "pin", "LABEL", "--reason", "again"},
		{"key", "rotate", "--reseal"},
		{"expire", "--keep-last", "1"},
	}
}

// putAttack is what somebody does who can only create objects: objects by their keys.
type putAttack func(w *swept, k sweptKind) map[string][]byte

func putAttacks() map[string]putAttack {
	at := func(content func(w *swept, k sweptKind, key string) []byte, numbers ...int) putAttack {
		return func(w *swept, k sweptKind) map[string][]byte {
			all := map[string][]byte{}
			if k.free == nil {
				return nil
			}
			for _, n := range numbers {
				key := strings.ReplaceAll(k.free(n), "%s", w.system)
				all[key] = content(w, k, key)
			}
			return all
		}
	}
	fixed := func(text string) func(*swept, sweptKind, string) []byte {
		return func(*swept, sweptKind, string) []byte { return []byte(text) }
	}
	return map[string]putAttack{
		"junk that sorts first": at(fixed("junk\n"), -1),
		"junk behind":           at(fixed("junk\n"), 0),
		"nothing in it":         at(fixed(""), -1, 0),
		"of a later format":     at(fixed(`{"statement":{"format":2},"signature":"AA"}`+"\n"), 0),
		"a genuine one, moved":  at(func(w *swept, k sweptKind, _ string) []byte { return w.read(w.newest(k)) }, -1, 0),
		"of another repository": at(func(w *swept, k sweptKind, key string) []byte { return w.foreignObject(k, key) }, 0),
		"a GiB of zeros":        at(func(*swept, sweptKind, string) []byte { return nil }, 0), // made longer in apply
		"many copies":           at(fixed("junk\n"), upTo(copies())...),
		"beside a genuine one": func(w *swept, k sweptKind) map[string][]byte {
			if top, _, _ := strings.Cut(k.name, "/"); !slices.Contains([]string{"systems", "backups", "blocks"}, top) {
				return nil // nobody reads it there
			}
			return map[string][]byte{w.newest(k) + ".next": []byte("junk\n")}
		},
		"in the next one's place": func(w *swept, k sweptKind) map[string][]byte { return w.nextNames(k) },
	}
}

// deleteAttacks is what somebody does who can also delete, to one genuine object: false
// when that is no attack here.
func deleteAttacks() map[string]func(c *sweptCase, k sweptKind, key string) (bool, error) {
	type attack = func(c *sweptCase, k sweptKind, key string) (bool, error)
	other := func(w *swept, k sweptKind, key string) string {
		all := w.genuine(k)
		return all[(slices.Index(all, key)+1)%len(all)]
	}
	return map[string]attack{
		"gone":              func(c *sweptCase, _ sweptKind, key string) (bool, error) { return true, os.Remove(c.path(key)) },
		"junk in its place": func(c *sweptCase, _ sweptKind, key string) (bool, error) { return true, c.put(key, []byte("junk\n")) },
		"cut short": func(c *sweptCase, _ sweptKind, key string) (bool, error) {
			raw := c.read(key)
			return len(raw) > 0, c.put(key, raw[:len(raw)/2])
		},
		"another genuine one in its place": func(c *sweptCase, k sweptKind, key string) (bool, error) {
			from := other(c.swept, k, key)
			return from != key, c.put(key, c.read(from))
		},
		"one of another repository in its place": func(c *sweptCase, k sweptKind, key string) (bool, error) {
			return true, c.put(key, c.foreignObject(k, key))
		},
	}
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

var sweepAll = flag.Bool("sweep-all", false, "attack each kind of object alone and in every way in TestSweepUnsigned")

// copies is how many objects of one kind are put beside the genuine ones.
func copies() int {
	if *sweepAll {
		return 2000
	}
	return 150
}

func (w *swept) read(key string) []byte {
	raw, err := os.ReadFile(filepath.Join(w.base, filepath.FromSlash(key)))
	if err != nil {
		panic(err)
	}
	return raw
}

func (w *swept) genuine(k sweptKind) (all []string) {
	for _, key := range w.keys {
		if k.genuine.MatchString(key) {
			all = append(all, key)
		}
	}
	return all
}

func (w *swept) newest(k sweptKind) string {
	all := w.genuine(k)
	if len(all) == 0 {
		return repo.MarkerKey
	}
	return all[len(all)-1]
}

// foreignObject is an envelope of another repository for the same key, or its marker.
func (w *swept) foreignObject(k sweptKind, key string) []byte {
	kinds := map[string]repo.Kind{"systems": repo.KindSystem, "manifest": repo.KindManifest, "info": repo.KindInfo, "fingerprints": repo.KindFingerprints,
		"adoption": repo.KindAdoption, "part-<number>": repo.KindPart, "wal": repo.KindWAL, "blocks": repo.KindBlocks, "pins": repo.KindPin, "checks": repo.KindCheck}
	top, _, _ := strings.Cut(k.name, "/")
	kind, ok := kinds[top]
	if top == "backups" {
		kind, ok = kinds[k.name[strings.LastIndex(k.name, "/")+1:]]
	}
	if !ok {
		key = repo.MarkerKey
	} else if _, err := w.foreign.CreateEnvelope(context.Background(), key, kind, strings.NewReader("{}"), 2); err != nil && !errors.Is(err, fs.ErrExist) {
		panic(err)
	}
	rc, err := w.foreign.Store().Open(context.Background(), key, 0, math.MaxInt32)
	if err != nil {
		panic(err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(rc)
	if err != nil {
		panic(err)
	}
	return raw
}

// Whatever somebody without a key stores, removes and replaces, every command ends as it
// does without that and says the same, or it names the object; and archiving goes on.
func TestSweepUnsigned(t *testing.T) {
	t.Parallel()
	w := newSwept(t)
	for _, k := range sweptKinds() {
		if len(w.genuine(k)) == 0 && k.name != "backups/<label>/fingerprints" {
			t.Errorf("there is no genuine %s", k.name)
		}
	}
	clean := w.outcomesOf(t, "clean", nil)
	for i, o := range clean {
		if o.code != 0 && !slices.Equal(sweptCommands()[i][:2], []string{"wal", "status"}) { // which asks the server too

			t.Errorf("%q without an attack: exit code %d\n%s", sweptCommands()[i], o.code, o.text())
		}
	}
	for i, o := range w.outcomesOf(t, "again", nil) {
		if o.code != clean[i].code || o.facts != clean[i].facts {
			t.Errorf("%q without an attack says another thing each time:\n%s\n%s", sweptCommands()[i], clean[i].text(), o.text())
		}
	}
	g := new(errgroup.Group)
	g.SetLimit(runtime.GOMAXPROCS(0))
	began, n := time.Now(), 0
	for _, one := range w.cases() {
		n++
		name := fmt.Sprintf("case-%d", n)
		g.Go(func() error {
			for i, o := range w.outcomesOf(t, name, one.attack) {
				if why := one.judge(sweptCommands()[i], clean[i], o); why != "" {
					t.Errorf("%s (%s ...): %q %s\n%s", one.what, one.attacked[0], strings.Join(sweptCommands()[i], " "), why, o.text())
				}
			}
			return nil
		})
	}
	_ = g.Wait()
	t.Logf("%d cases with %d commands each in %v", n, len(sweptCommands()), time.Since(began).Round(time.Second))
	t.Run("live", w.runLive)
}

// sweptAttack is a case: what is done to a copy of the repository.
type sweptAttack struct {
	what     string
	attacked []string // keys
	unseen   bool     // what is done need not be told, as long as the command ends the same
	stops    bool     // archiving and backups may stop, by an error about the object
	attack   func(*sweptCase) error
}

// cases are all of them with -sweep-all. Without, who can only put attacks many kinds at
// once, and each kind gets every other attack of who can delete.
func (w *swept) cases() (all []sweptAttack) {
	kinds := sweptKinds()
	groups := slices.Collect(slices.Chunk(kinds, 1))
	if !*sweepAll {
		isWAL := func(k sweptKind) bool { return strings.HasPrefix(k.name, "wal/") }
		var archive, others []sweptKind
		for _, k := range kinds {
			if isWAL(k) {
				archive = append(archive, k)
			} else {
				others = append(others, k)
			}
		}
		groups = [][]sweptKind{archive, others}
	}
	for _, what := range slices.Sorted(maps.Keys(putAttacks())) {
		for _, group := range groups {
			if one := w.putCase(what, group); len(one.attacked) > 0 {
				all = append(all, one)
			}
		}
	}
	for i, k := range kinds {
		for j, what := range slices.Sorted(maps.Keys(deleteAttacks())) {
			if len(w.genuine(k)) == 0 || (i+j)%2 == 1 && !*sweepAll {
				continue
			}
			key := w.newest(k)
			unseen := k.silent || k.unseen != "" && (what == "gone" || strings.Contains(what, "genuine"))
			all = append(all, sweptAttack{k.name + ": " + what, []string{key}, unseen, key == repo.MarkerKey, func(c *sweptCase) error {
				_, err := deleteAttacks()[what](c, k, key)
				return err
			}})
		}
	}
	return all
}

func (w *swept) putCase(what string, group []sweptKind) sweptAttack {
	objects, names := map[string][]byte{}, []string{}
	for _, k := range group {
		names = append(names, k.name)
		maps.Copy(objects, putAttacks()[what](w, k))
	}
	return sweptAttack{strings.Join(names, ", ") + ": " + what, slices.Sorted(maps.Keys(objects)), false, false, func(c *sweptCase) error {
		for key, content := range objects {
			if err := c.put(key, content); err != nil {
				return err
			}
			if what == "a GiB of zeros" {
				if err := os.Truncate(c.path(key), 1<<30); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

// judge says what is wrong with an outcome, "" for nothing.
func (s sweptAttack) judge(command []string, want, got outcome) string {
	line := strings.Join(command, " ")
	works := strings.HasPrefix(line, "wal push ") || line == "backup of the server"
	switch {
	case works && got.code != 0 && !s.stops:
		return fmt.Sprintf("exits with %d: archiving has stopped, or backups", got.code)
	case got.code == want.code && (got.facts == want.facts || s.unseen):
		return ""
	case slices.ContainsFunc(s.attacked, func(key string) bool { return strings.Contains(got.text(), nameIn(key)) }):
		return ""
	case got.code != want.code:
		return fmt.Sprintf("exits with %d, not %d, and names none of the objects", got.code, want.code)
	}
	return "says another thing and names none of the objects; without the attack:\n" + want.facts + "\nwith it:\n" + got.facts
}

// nameIn is the part of a key by which people know the object.
func nameIn(key string) string {
	parts := strings.Split(key, "/")
	switch parts[0] {
	case "backups", "pins", "checks", "leases":
		return parts[1]
	}
	last := parts[len(parts)-1]
	if segment, slice := strings.CutSuffix(parts[max(len(parts)-2, 0)], ".d"); slice {
		return segment
	}
	return last
}

// outcomesOf attacks a copy of the repository and runs all commands on it.
func (w *swept) outcomesOf(t *testing.T, name string, attack func(*sweptCase) error) []outcome {
	c, err := w.newCase(name)
	if err == nil && attack != nil {
		err = attack(c)
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return nil
	}
	defer c.remove()
	out := filepath.Join(filepath.Dir(c.repository), "out", "x")
	_ = os.MkdirAll(filepath.Dir(out), 0o700)
	fill := map[string]string{"SEGMENT": filepath.Join(c.pgdata, "pg_wal", filepath.Base(w.next)), "NAME": w.name, "OUT": out, "IDENTITY": w.identity,
		"LABEL": w.label, "COPY": "file://" + filepath.Join(filepath.Dir(c.repository), "copy")}
	var all []outcome
	for _, command := range sweptCommands() {
		args := slices.Clone(command)
		for i, a := range args {
			if f, ok := fill[a]; ok {
				args[i] = f
			}
		}
		all = append(all, c.inProcess(args...))
		_ = os.Remove(out)
	}
	return all
}

var varies = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC)?`), "TIME"},
	{regexp.MustCompile(`[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}`), "CHECK"},
	{regexp.MustCompile(`"(seed|seconds|objects|read_now|unread|bytes_per_second|[a-z_]*_seconds|age|stored_bytes|[a-z_]*bytes)": ?("[^"]*"|-?[0-9.]+)`), `"$1": N`},
	{regexp.MustCompile(`\b[0-9.]+(ms|s|m|h)\b`), "DURATION"},
}

// normal takes out what is another in each run.
func (c *sweptCase) normal(text string) string {
	text = strings.ReplaceAll(text, filepath.Dir(c.repository), "CASE")
	text = strings.ReplaceAll(text, c.config, "CONFIG")
	for _, v := range varies {
		text = v.form.ReplaceAllString(text, v.with)
	}
	return string(bytes.TrimSpace([]byte(text)))
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// changeRecipients adds a recipient to the configuration file or takes one out.
func (r *rotation) changeRecipients() error {
	o := r.cfg.origins["recipients"]
	if o.kind != originFile {
		return usage("recipients come from %s and not from a configuration file", o).
			hinted("change them there, and run \"lifeboat key rotate --reseal\"")
	}
	have := slices.Clone(r.cfg.Recipients)
	want := have
	switch {
	case r.add != "" && slices.Contains(have, r.add):
		r.report.Done = "It is a recipient already; nothing was changed"
		return nil
	case r.add != "":
		want = append(slices.Clone(have), r.add)
	case !slices.Contains(have, r.retire):
		return usage("--retire-recipient: it is none of the %d recipients in %s", len(have), o.file).
			hinted("\"lifeboat key status\" lists them")
	case len(have) == 1:
		return usage("--retire-recipient: it is the only recipient").hinted("add another one first: what is sealed to nobody is lost")
	default:
		want = slices.DeleteFunc(slices.Clone(have), func(s string) bool { return s == r.retire })
		r.report.Retired = []string{r.retire}
	}
	if err := checkTogether(want); err != nil {
		return err
	}
	if err := editList(o.file, "recipients", have, want); err != nil {
		return err
	}
	r.cfg.Recipients, r.report.Config = want, o.file
	if r.add != "" {
		r.report.Done = "What is stored from now on is sealed to the new recipient as well"
		r.report.Next = []string{"add it on the cluster's other hosts too, and restart \"lifeboat wal stream\"",
			"take a backup: it is a full one, because the new recipient does not open packs from before", "backups and WAL from before open with the older recipients' identities alone: keep those until the last of that has expired"}
	} else {
		r.report.Done = "What is stored from now on is not sealed to this recipient"
		r.report.Next = []string{"take it out on the cluster's other hosts too, and restart \"lifeboat wal stream\"",
			"its identity still opens every backup and all WAL from before: keep it until they have expired, and if it has leaked, see docs/keys.md"}
	}
	if !r.reseal {
		r.report.Next = append(r.report.Next, "lifeboat key rotate --reseal changes to whom the metadata of older backups is sealed")
	}
	return nil
}

// checkTogether refuses recipients that cannot be sealed to together.
func checkTogether(recipients []string) error {
	hybrid := 0
	for _, s := range recipients {
		if strings.HasPrefix(s, "age1pq1") {
			hybrid++
		}
	}
	if hybrid != 0 && hybrid != len(recipients) {
		return usage("post-quantum (age1pq1…) and classic (age1…) recipients cannot be mixed: the weaker would decide").
			hinted("to go from one kind to the other, replace all of them in the configuration at once")
	}
	return nil
}

// editList changes a list of the configuration file, a line for each element, and
// leaves every other line as it is. What came of it is read and compared before it
// takes the file's place.
func editList(file, key string, have, want []string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	byHand := func(why string) error {
		return failed(exitFailed, "%s: %s cannot be changed here: %s", file, key, why).
			hinted("change the list by hand; \"lifeboat key rotate --reseal\" does the rest")
	}
	lines, err := listLines(text, key)
	if err != nil || len(lines) != len(have) {
		return byHand("it is not written as one \"- element\" a line")
	}
	out := strings.SplitAfter(string(text), "\n")
	for i := len(have) - 1; i >= 0; i-- {
		if !slices.Contains(want, have[i]) {
			out = slices.Delete(out, lines[i]-1, lines[i])
		}
	}
	last := lines[len(lines)-1] - 1
	like := strings.SplitAfter(string(text), "\n")[last]
	for _, w := range want {
		if !slices.Contains(have, w) {
			indent, _, _ := strings.Cut(like, "-")
			if !strings.HasSuffix(out[last], "\n") {
				out[last] += "\n"
			}
			out = slices.Insert(out, last+1, indent+"- "+w+"\n")
			last++
		}
	}
	return replaceConfig(file, key, text, []byte(strings.Join(out, "")), want, byHand)
}

// listLines are the lines on which the elements of a list stand.
func listLines(text []byte, key string) ([]int, error) {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc); err != nil {
		return nil, err
	}
	var lines []int
	top := doc.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		if top[i].Value != key || top[i+1].Kind != yaml.SequenceNode || top[i+1].Style&yaml.FlowStyle != 0 {
			continue
		}
		for _, e := range top[i+1].Content {
			lines = append(lines, e.Line)
		}
	}
	return slices.Compact(lines), nil
}

// replaceConfig writes the file, if it says what is wanted and all else as before.
func replaceConfig(file, key string, old, text []byte, want []string, byHand func(string) error) error {
	before, err := parseConfig(file, old)
	if err != nil {
		return err
	}
	after, err := parseConfig(file, text)
	if err != nil {
		return byHand("what would come of it cannot be read")
	}
	plain := func(f fileConfig) map[string][]string {
		out := map[string][]string{}
		for _, s := range f.settings {
			out[s.key.name] = s.values
		}
		return out
	}
	a, b := plain(before), plain(after)
	if a[key] = want; !reflect.DeepEqual(a, b) || len(before.places) != len(after.places) || len(before.checks) != len(after.checks) {
		return byHand("what would come of it says something else")
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	_ = os.Remove(file + nextSuffix) // of a run that ended half way
	if err := writeLike(file+nextSuffix, file, text); err != nil {
		return err
	}
	if err := os.Chmod(file+nextSuffix, info.Mode().Perm()); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return takePlace(file)
}

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// given returns the values that flags or the environment set, by key: what
// "lifeboat init" has to write down.
func (c *Config) given() map[string][]string {
	out := map[string][]string{}
	for _, k := range keys() {
		if o := c.origins[k.name]; o.kind == originFlag || o.kind == originEnv {
			out[k.name] = k.texts(c)
		}
	}
	return out
}

// texts is the value of a key as the file has it.
func (k *key) texts(c *Config) []string {
	switch f := k.field(c).(type) {
	case *[]string:
		return *f
	case *string:
		return []string{*f}
	case *bool:
		return []string{strconv.FormatBool(*f)}
	case *int:
		return []string{strconv.Itoa(*f)}
	case *time.Duration:
		return []string{shortDuration(*f)}
	}
	return nil
}

// configText is a commented configuration file with every key: those in set
// with their values, the others commented out. parseConfig reads back exactly
// what set holds.
func configText(set map[string][]string) []byte {
	var b strings.Builder
	b.WriteString("# The configuration of Lifeboat. \"lifeboat config\" prints what counts, and where\n" +
		"# each value comes from. Flags and LIFEBOAT_ variables beat this file. Relative\n" +
		"# paths are relative to this file. A key after \"#\" is not set.\n")
	begun := ""
	for _, k := range keys() {
		group, name := sectionOf(k.name)
		indent := ""
		if group != "" {
			indent = "  "
		}
		if group != begun && group != "" {
			i := slices.IndexFunc(sections(), func(s section) bool { return s.name == group })
			b.WriteString("\n# " + sections()[i].comment + "\n" + group + ":\n")
		}
		begun = group
		b.WriteString("\n" + comment(k, indent))
		b.WriteString(entry(k, name, indent, set[k.name]))
		if k.name == "repository" {
			b.WriteString(placesComment)
		}
	}
	return []byte(b.String())
}

// placesComment shows how several repositories are listed instead of one.
const placesComment = `
# Several at once, instead of repository and s3: WAL and backups go to each, a
# restore takes the nearest that has all it needs. The nearest comes first;
# "lifeboat init" makes those that are not there yet.
#repositories:
#  - name: near
#    url: file:///srv/backup/orders
#  - name: far
#    url: s3://my-bucket/orders
#    s3:
#      region: eu-central-1
`

func comment(k *key, indent string) string {
	text := strings.ToUpper(k.help[:1]) + k.help[1:] + "."
	if len(k.choices) > 0 {
		text += " One of " + strings.Join(k.choices, ", ") + "."
	}
	switch {
	case k.def != "":
		text += " Default: " + k.def + "."
	case k.optional != "":
		text += " Default: " + k.optional + "."
	}
	var b strings.Builder
	for _, line := range fold(text, 78) {
		b.WriteString(indent + "# " + line + "\n")
	}
	return b.String()
}

// entry is the line of one key, or lines for a list.
func entry(k *key, name, indent string, values []string) string {
	_, list := k.field(new(Config)).(*[]string)
	switch {
	case len(values) == 0:
		example := k.def
		if example == "" {
			example = k.value
		}
		return fmt.Sprintf("%s#%s: %s\n", indent, name, example)
	case list:
		s := indent + name + ":\n"
		for _, v := range values {
			s += indent + "  - " + scalar(v) + "\n"
		}
		return s
	}
	return fmt.Sprintf("%s%s: %s\n", indent, name, scalar(values[0]))
}

// scalar writes a text as a YAML value, in quotes where it needs them.
func scalar(v string) string {
	if _, err := strconv.Atoi(v); err == nil || v == "true" || v == "false" {
		return v
	}
	style := yaml.Style(0)
	if strings.ContainsAny(v, "\n\r\t\x00") {
		style = yaml.DoubleQuotedStyle
	}
	n := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Style: style}
	out, err := yaml.Marshal(&n)
	if err != nil { // a text that is not UTF-8
		return strconv.Quote(v)
	}
	return strings.TrimSuffix(string(out), "\n")
}

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// configReport is the document of "lifeboat config --json".
type configReport struct {
	File   string        `json:"file"` // "" when none was read
	Values []configValue `json:"values"`

	Repositories []configPlace `json:"repositories,omitempty"` // where there are several, the nearest first
}

// configPlace is one of several repositories.
type configPlace struct {
	Name   string        `json:"name"`
	Values []configValue `json:"values"` // those that it sets
}

// configValue is one key with the value that counts; secrets are masked.
type configValue struct {
	Key    string `json:"key"`
	Value  any    `json:"value"` // string, number, boolean, list of strings or null
	Origin string `json:"origin"`
	Env    string `json:"env"`
	Flag   string `json:"flag"`
}

func configCommand(a *app) *cli.Command {
	names := []string{}
	for _, k := range keys() {
		names = append(names, k.name)
	}
	return &cli.Command{
		Name:  "config",
		Usage: "print the effective configuration and where each value comes from",
		Description: `
A flag beats the environment, which beats the file, which beats the default.
The file is --config FILE, else LIFEBOAT_CONFIG, ./lifeboat.yaml, or
/etc/lifeboat/lifeboat.yaml. The variable of a key is its name in capitals
after LIFEBOAT_, with "_" for ".": LIFEBOAT_S3_REGION. A list in a variable is
separated by commas. Relative paths in the file are relative to the file.
What starts with "s3." can also be a parameter of the repository URL, without
the "s3.": s3://bucket/prefix?region=eu-central-1&path_style=true. There it
counts like the key in the place where the URL stands, and must not differ
from the key in the same place. Passwords are not printed.`,
		Flags: configFlags(names...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c)
			if err != nil {
				return err
			}
			r := cfg.report()
			return a.result(r, func(w io.Writer) { r.write(w) })
		},
	}
}

func (c *Config) report() configReport {
	r := configReport{File: c.File}
	for _, k := range keys() {
		v := configValue{Key: k.name, Origin: "not set", Env: k.env(), Flag: "--" + k.flagName()}
		if o, ok := c.origins[k.name]; ok {
			v.Origin = o.String()
			v.Value = k.printable(c)
		}
		r.Values = append(r.Values, v)
	}
	if len(c.places) > 0 {
		r.Repositories = c.placeReports()
	}
	return r
}

// placeReports is what each of several repositories sets.
func (c *Config) placeReports() []configPlace {
	var out []configPlace
	for _, one := range c.places {
		p := configPlace{Name: one.Name}
		for _, k := range keys() {
			if o, ok := one.origins[k.name]; ok && placed(k) && o.kind == originFile {
				p.Values = append(p.Values, configValue{Key: k.name, Value: k.printable(one), Origin: o.String(), Env: k.env(), Flag: "--" + k.flagName()})
			}
		}
		out = append(out, p)
	}
	return out
}

// printable is the value of a key as it may be printed.
func (k *key) printable(c *Config) any {
	switch f := k.field(c).(type) {
	case *string:
		return k.show(*f)
	case *[]string:
		return *f
	case *bool:
		return *f
	case *int:
		return *f
	case *time.Duration:
		return shortDuration(*f)
	}
	return nil
}

func (r configReport) write(w io.Writer) {
	file := r.File
	if file == "" {
		file = "none found"
	}
	_, _ = fmt.Fprintf(w, "# file: %s\n", file)
	left, middle := 0, 0
	for _, v := range r.Values {
		left = max(left, len(v.Key))
		if n := len(textOf(v.Value)); n <= 48 { // a longer one pushes its own origin away
			middle = max(middle, n)
		}
	}
	write := func(values []configValue) {
		for _, v := range values {
			_, _ = fmt.Fprintf(w, "%-*s  %-*s  # %s\n", left, v.Key, middle, textOf(v.Value), v.Origin)
		}
	}
	write(r.Values)
	for i, p := range r.Repositories {
		if i == 0 {
			_, _ = fmt.Fprintf(w, "\n# repositories, the nearest first; above, repository and s3 are those of %s\n", p.Name)
		}
		_, _ = fmt.Fprintf(w, "# %s\n", p.Name)
		write(p.Values)
	}
}

func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case []string:
		texts := make([]string, len(v))
		for i, t := range v {
			texts[i] = shorten(t)
		}
		return strings.Join(texts, " ")
	case string:
		if v == "" || strings.ContainsAny(v, "\n\t\r#") {
			return strconv.Quote(v)
		}
		return v
	}
	return fmt.Sprint(v)
}

// shorten leaves the ends of a text that nobody reads in full: a post-quantum
// recipient has two thousand characters. The JSON document has them all.
func shorten(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:20] + "..." + s[len(s)-12:]
}

// shortDuration is 5m and not 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

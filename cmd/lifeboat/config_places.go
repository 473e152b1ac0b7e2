package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// placesKey is the key of the file that lists several repositories, the nearest
// first. It stands instead of repository: and of s3:.
const placesKey = "repositories"

// place is an entry of repositories: its name, and what it sets.
type place struct {
	name     string
	settings []setting
}

const maxPlaceName = 32

// checkPlaceName says whether a repository of several can be called so. Names
// stand in messages, in flags and, with "_" for "-", in names of replication slots.
func checkPlaceName(name string) error {
	letters := "abcdefghijklmnopqrstuvwxyz"
	if name == "" || len(name) > maxPlaceName || !strings.Contains(letters, name[:1]) || strings.Trim(name, letters+"0123456789-_") != "" {
		return fmt.Errorf("%q cannot name a repository: 1 to %d of a-z, 0-9, - and _, beginning with a letter", name, maxPlaceName)
	}
	return nil
}

// readPlaces reads the list.
func (r *fileReader) readPlaces(n *yaml.Node) ([]place, error) {
	if isNull(n) {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return nil, r.wrong(n, "%s must be a list of repositories, each with name and url", placesKey).hinted("docs/repositories.md shows one")
	}
	var out []place
	taken := map[string]string{}
	for _, e := range n.Content {
		p, err := r.readPlace(e)
		if err != nil {
			return nil, err
		}
		if other, ok := taken[p.slotPart()]; ok {
			return nil, r.wrong(e, "two repositories are called %q and %q", other, p.name).hinted("give each a name of its own; - and _ count as the same")
		}
		taken[p.slotPart()] = p.name
		out = append(out, p)
	}
	return out, nil
}

// slotPart is the name as it can stand in the name of a replication slot.
func (p place) slotPart() string { return strings.ReplaceAll(p.name, "-", "_") }

func (r *fileReader) readPlace(n *yaml.Node) (place, error) {
	var p place
	if n.Kind != yaml.MappingNode {
		return p, r.wrong(n, "a repository must be a list of \"key: value\" lines").hinted("name: …, url: …, and s3: for what is under s3: elsewhere")
	}
	own := &fileReader{path: r.path, byName: r.byName, seen: map[string]int{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if first, ok := own.seen[name.Value]; ok {
			return p, r.wrong(name, "a repository has %s twice, first in line %d", name.Value, first).hinted("leave one of the two")
		}
		own.seen[name.Value] = name.Line
		var err error
		switch name.Value {
		case "name":
			if err = checkPlaceName(value.Value); err != nil {
				return p, r.wrong(value, "%v", err)
			}
			p.name = value.Value
		case "url":
			err = own.takeURL(value)
		case "s3":
			err = own.mapping(value, "s3.")
		default:
			wrong := r.wrong(name, "unknown key %q of a repository", name.Value)
			if near := nearest(name.Value, []string{"name", "url", "s3"}); near != "" {
				return p, wrong.hinted("did you mean %q?", near)
			}
			return p, wrong.hinted("there are name, url and s3")
		}
		if err != nil {
			return p, err
		}
	}
	p.settings = own.settings
	switch {
	case p.name == "":
		return p, r.wrong(n, "a repository has no name").hinted("name: a word for messages and for --repository")
	case !slices.ContainsFunc(p.settings, func(s setting) bool { return s.key.name == "repository" }):
		return p, r.wrong(n, "repository %s has no url", p.name).hinted("url: file:///path or s3://bucket/prefix")
	}
	return p, nil
}

// takeURL takes the url of an entry for what repository is elsewhere.
func (r *fileReader) takeURL(n *yaml.Node) error {
	k := r.byName["repository"]
	values, err := r.values(k, n)
	if err != nil || values == nil {
		return err
	}
	r.settings = append(r.settings, setting{k, values, origin{kind: originFile, file: r.path, line: n.Line}, filepath.Dir(r.path)})
	return nil
}

// placed are the keys that an entry of the list sets, and nothing else does.
func placed(k *key) bool { return k.name == "repository" || strings.HasPrefix(k.name, "s3.") }

// assemblePlaces makes the Config where the file lists repositories: of the one
// that a flag or the environment names, or of the nearest, which knows the others.
// A URL that is given counts alone, with the s3 keys outside of the list.
func assemblePlaces(file string, all []setting, places []place) (*Config, error) {
	asked := ""
	for _, s := range all {
		if s.key.name == "repository" { // flags come last
			asked = s.values[0]
		}
	}
	var names []string
	for _, p := range places {
		names = append(names, p.name)
	}
	chosen := slices.Index(names, asked)
	if asked != "" && chosen < 0 {
		if checkPlaceName(asked) == nil {
			err := usage("there is no repository %q in %s", asked, file)
			return nil, err.hinted("there are %s; or give a URL", strings.Join(names, ", "))
		}
		return assemble(file, all)
	}
	var configs []*Config
	for _, p := range places {
		cfg, err := assemblePlace(file, all, p)
		if err != nil {
			return nil, err
		}
		configs = append(configs, cfg)
	}
	if err := checkPlaces(configs); err != nil {
		return nil, err
	}
	for _, c := range configs {
		c.listed = configs
	}
	if chosen >= 0 {
		configs[chosen].Chosen = true
		return configs[chosen], nil
	}
	configs[0].places = configs
	return configs[0], nil
}

func assemblePlace(file string, all []setting, p place) (*Config, error) {
	var own []setting
	for _, s := range all {
		switch {
		case !placed(s.key), s.origin.kind == originDefault:
			own = append(own, s)
		case s.key.name != "repository":
			return nil, usage("%s: %s does not count for a list of repositories", s.origin, s.key.name).
				hinted("put it under s3: of the entry that it is for")
		}
	}
	cfg, err := assemble(file, append(own, p.settings...))
	if err != nil {
		return nil, err
	}
	cfg.Name, cfg.slotPart = p.name, p.slotPart()
	return cfg, nil
}

// checkPlaces refuses a place that is there twice: what is in both would be in
// one only.
func checkPlaces(configs []*Config) error {
	for i, c := range configs {
		for _, other := range configs[:i] {
			if c.samePlace(other) {
				return usage("%s: the repositories %s and %s are the same place", c.origins["repository"], other.Name, c.Name).
					hinted("a second copy in the same place protects from nothing")
			}
		}
	}
	return nil
}

// address is where objects go: all that decides it.
func (c *Config) address() string {
	return fmt.Sprintf("%q %q %q", c.Repository, c.S3.Endpoint, c.S3.Region)
}

// samePlace says whether both are one directory or one prefix of one bucket. A bucket
// is in one region only.
func (c *Config) samePlace(o *Config) bool {
	return c.Repository == o.Repository && (c.S3.Endpoint == o.S3.Endpoint || strings.HasPrefix(c.Repository, "file:"))
}

// each are the configurations of all repositories that count, the nearest first;
// mostly one.
func (c *Config) each() []*Config {
	if len(c.places) > 0 {
		return c.places
	}
	return []*Config{c}
}

// several says whether more than one repository counts.
func (c *Config) several() bool { return len(c.places) > 1 }

// where names the repository in messages.
func (c *Config) where() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Repository
}

// placeFailure is what went wrong with one of several repositories.
type placeFailure struct {
	name string
	err  error
}

// failedPlaces is the error of work on several repositories that failed on some
// of them, nil when it did on none. It names each, and has the hint and, if all
// have the same, the exit code of the first.
func failedPlaces(doing string, of int, failures []placeFailure) error {
	if len(failures) == 0 {
		return nil
	}
	if len(failures) == of && !slices.ContainsFunc(failures, func(f placeFailure) bool { return f.err.Error() != failures[0].err.Error() }) {
		return failures[0].err // the same everywhere: it is about no repository
	}
	code, hint := classify(failures[0].err)
	var texts []string
	var all []error
	for _, f := range failures {
		texts = append(texts, f.name+": "+oneLine(f.err.Error()))
		all = append(all, f.err)
		if c, _ := classify(f.err); c != code {
			code = exitFailed
		}
	}
	err := failed(code, "%s %d of %d repositories failed: %w", doing, len(failures), of, &textError{strings.Join(texts, "; "), errors.Join(all...)})
	if hint != "" {
		err = err.hinted("%s: %s", failures[0].name, hint)
	}
	return err
}

// textError has a text of its own for other errors.
type textError struct {
	text string
	err  error
}

func (e *textError) Error() string { return e.text }
func (e *textError) Unwrap() error { return e.err }

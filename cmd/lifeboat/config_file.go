package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// fileConfig is what a configuration file says.
type fileConfig struct {
	settings []setting
	checks   []probe.Check
	sources  []rds.Source
	places   []place // of repositories:
}

// readConfig reads a configuration file. What is wrong in it is a usage error
// that names file and line; fs.ErrNotExist when there is no such file.
func readConfig(path string) (fileConfig, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileConfig{}, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if errors.Is(err, syscall.EISDIR) {
		return fileConfig{}, usage("%s is a directory, not a configuration file", path).hinted("name the file in it, or move the directory away if none was meant")
	}
	if err != nil {
		return fileConfig{}, fmt.Errorf("read the configuration: %w", err)
	}
	if len(data) > maxConfig {
		return fileConfig{}, usage("%s: larger than %d bytes, no configuration file", path, maxConfig)
	}
	return parseConfig(path, data)
}

// parseConfig parses the text of a configuration file; path is for messages
// and for relative paths.
func parseConfig(path string, data []byte) (fileConfig, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return fileConfig{}, nil // empty, or comments only
	} else if err != nil {
		return fileConfig{}, yamlError(path, err)
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return fileConfig{}, usage("%s: more than one YAML document", path)
	} else if !errors.Is(err, io.EOF) {
		return fileConfig{}, yamlError(path, err)
	}
	r := &fileReader{path: path, seen: map[string]int{}, byName: map[string]*key{}}
	for _, k := range keys() {
		r.byName[k.name] = k
	}
	if err := r.mapping(doc.Content[0], ""); err != nil {
		return fileConfig{}, err
	}
	if line, both := r.seen["repository"]; both && len(r.places) > 0 {
		return fileConfig{}, usage("%s: repository and %s are both set", fileLine(path, line), placesKey).
			hinted("make repository the first entry of %s", placesKey)
	}
	return fileConfig{r.settings, r.checks, r.sources, r.places}, nil
}

// fileReader walks the YAML nodes, which know their lines.
type fileReader struct {
	path     string
	byName   map[string]*key
	seen     map[string]int // line by key
	settings []setting
	checks   []probe.Check
	sources  []rds.Source
	places   []place
}

// mapping reads "key: value" pairs; prefix is "" or a section's, as "s3.".
func (r *fileReader) mapping(n *yaml.Node, prefix string) error {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		what := "the configuration"
		if prefix != "" {
			what = strings.TrimSuffix(prefix, ".")
		}
		return r.wrong(n, "%s must be a list of \"key: value\" lines", what)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := r.pair(n.Content[i], n.Content[i+1], prefix); err != nil {
			return err
		}
	}
	return nil
}

func (r *fileReader) pair(name, value *yaml.Node, prefix string) error {
	full := prefix + name.Value
	if first, ok := r.seen[full]; ok {
		return r.wrong(name, "%s is set twice, first in line %d", full, first).
			hinted("leave one of the two")
	}
	r.seen[full] = name.Line
	if prefix == "" && slices.ContainsFunc(sections(), func(s section) bool { return s.name == name.Value }) {
		return r.mapping(value, name.Value+".")
	}
	if full == checksKey {
		var err error
		r.checks, err = r.readChecks(value)
		return err
	}
	if full == sourcesKey {
		var err error
		r.sources, err = r.readSources(value)
		return err
	}
	if full == placesKey {
		var err error
		r.places, err = r.readPlaces(value)
		return err
	}
	k := r.byName[full]
	if k == nil {
		return r.unknown(name, full)
	}
	values, err := r.values(k, value)
	if err != nil || values == nil {
		return err
	}
	o := origin{kind: originFile, file: r.path, line: value.Line}
	r.settings = append(r.settings, setting{k, values, o, filepath.Dir(r.path)})
	return nil
}

func (r *fileReader) unknown(name *yaml.Node, full string) error {
	err := r.wrong(name, "unknown key %q", full)
	near := nearestKey(full, func(k *key) string { return k.name })
	if near == "" {
		// region: where s3: region: is meant.
		_, last := sectionOf(full)
		near = nearestKey(last, func(k *key) string {
			_, rest := sectionOf(k.name)
			return rest
		})
		for _, k := range keys() {
			if section, rest := sectionOf(k.name); rest == near && section != "" {
				near = k.name
				break
			}
		}
	}
	if near == "" {
		return err.hinted("\"lifeboat config --help\" lists the keys")
	}
	return err.hinted("did you mean %q?", near)
}

// values reads the value of a key: nil when it is empty, which counts as not
// set, one text, or the elements of a list.
func (r *fileReader) values(k *key, n *yaml.Node) ([]string, error) {
	if isNull(n) {
		return nil, nil
	}
	_, list := k.field(new(Config)).(*[]string)
	switch {
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind == yaml.SequenceNode && list:
		values := []string{}
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode || isNull(e) {
				return nil, r.wrong(e, "%s: an element must be one line of text", k.name)
			}
			values = append(values, e.Value)
		}
		return values, nil
	case n.Kind == yaml.AliasNode:
		return nil, r.wrong(n, "%s: YAML aliases are not supported", k.name).hinted("write the value out")
	case list:
		return nil, r.wrong(n, "%s must be a list of texts", k.name).hinted("%s: %s", k.name, k.help)
	}
	return nil, r.wrong(n, "%s must be a single value", k.name).hinted("%s: %s", k.name, k.help)
}

func (r *fileReader) wrong(n *yaml.Node, format string, args ...any) *commandError {
	return usage("%s: %s", fileLine(r.path, n.Line), fmt.Sprintf(format, args...))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// yamlError turns "yaml: line 3: did not find …" into "file:3: not valid YAML".
func yamlError(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1 // the library names no line when it is the first
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
	}
	return usage("%s: not valid YAML: %s", fileLine(path, line), text).
		hinted("write \"key: value\" lines, indented by spaces, and quote values with \": \" or \" #\" in them")
}

// fileLine is "file:line", or the file alone when the line is not known.
func fileLine(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

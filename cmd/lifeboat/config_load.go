package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// setting is one value as it was written, with the place where it stands.
type setting struct {
	key    *key
	values []string // one, but for a list
	origin origin
	dir    string // relative paths are relative to it
}

// config puts flags, environment and file together: a flag beats the
// environment, which beats the file, which beats the default. The named keys
// must be set; anything wrong anywhere is a usage error.
func (a *app) config(c *cli.Context, required ...string) (*Config, error) {
	dir, err := a.getwd()
	if err != nil {
		return nil, fmt.Errorf("find the current directory: %w", err)
	}
	file, fromFile, err := a.configFile(c, dir)
	if err != nil {
		return nil, err
	}
	cfg, err := a.combine(c, dir, file, fromFile)
	if err != nil {
		return nil, err
	}
	return cfg, cfg.require(required...)
}

// combine puts what the file says together with environment and flags.
func (a *app) combine(c *cli.Context, dir, file string, fromFile fileConfig) (*Config, error) {
	fromEnv, err := envSettings(a.environ, dir)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(defaultSettings(), fromFile.settings, fromEnv, flagSettings(c, dir))
	var cfg *Config
	if len(fromFile.places) > 0 {
		cfg, err = assemblePlaces(file, all, fromFile.places)
	} else {
		cfg, err = assemble(file, all)
	}
	if err != nil {
		return nil, err
	}
	cfg.RDS.Sources = fromFile.sources
	for _, one := range cfg.each() {
		one.Drill.Checks = fromFile.checks
	}
	a.warnReadablePassword(cfg)
	return cfg, nil
}

// assemble makes a Config of settings; those of higher rank count.
func assemble(file string, all []setting) (*Config, error) {
	cfg := &Config{File: file, origins: map[string]origin{}}
	all, err := expandURLs(all)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if err := cfg.set(s); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// configFile finds and reads the configuration file. No file is no error,
// unless one was named.
func (a *app) configFile(c *cli.Context, dir string) (string, fileConfig, error) {
	named, by := c.String("config"), "--config"
	if !c.IsSet("config") {
		named, by = a.getenv("LIFEBOAT_CONFIG"), "LIFEBOAT_CONFIG"
	} else if named == "" {
		return "", fileConfig{}, usage("--config names no file")
	}
	if named != "" {
		path := inDir(dir, named)
		settings, err := readConfig(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fileConfig{}, usage("no configuration file %s (from %s)", path, by).
				hinted("\"lifeboat init --config %s …\" writes one", named)
		}
		return path, settings, err
	}
	for _, path := range defaultFiles(dir) {
		settings, err := readConfig(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return path, settings, err
		}
	}
	return "", fileConfig{}, nil
}

// defaultFiles are the files that are looked for when none is named.
func defaultFiles(dir string) []string {
	return []string{filepath.Join(dir, "lifeboat.yaml"), "/etc/lifeboat/lifeboat.yaml"}
}

func (a *app) getenv(name string) string {
	for _, entry := range a.environ {
		if n, v, _ := strings.Cut(entry, "="); n == name {
			return v
		}
	}
	return ""
}

func defaultSettings() []setting {
	var out []setting
	for _, k := range keys() {
		if k.def != "" {
			out = append(out, setting{key: k, values: []string{k.def}})
		}
	}
	return out
}

// envSettings reads the LIFEBOAT_ variables. An empty one counts as not set.
func envSettings(environ []string, dir string) ([]setting, error) {
	var out []setting
	byName := map[string]*key{}
	for _, k := range keys() {
		byName[k.env()] = k
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "LIFEBOAT_") || name == "LIFEBOAT_CONFIG" || kubernetesLink(name) {
			continue
		}
		k := byName[name]
		if k == nil {
			err := usage("unknown environment variable %s", name)
			if near := nearest(name, append(slices.Collect(maps.Keys(byName)), "LIFEBOAT_CONFIG")); near != "" {
				err = err.hinted("did you mean %s?", near)
			} else {
				err = err.hinted("unset it; \"lifeboat config --help\" lists the variables")
			}
			return nil, err
		}
		if value == "" {
			continue
		}
		values := []string{value}
		if _, list := k.field(new(Config)).(*[]string); list {
			values = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
		}
		out = append(out, setting{k, values, origin{kind: originEnv, name: name}, dir})
	}
	return out, nil
}

// kubernetesLink says whether Kubernetes makes such a variable for every pod
// beside a service that is called lifeboat.
func kubernetesLink(name string) bool {
	return name == "LIFEBOAT_PORT" || strings.HasPrefix(name, "LIFEBOAT_PORT_") ||
		strings.HasPrefix(name, "LIFEBOAT_SERVICE_")
}

func flagSettings(c *cli.Context, dir string) []setting {
	var out []setting
	for _, k := range keys() {
		name := k.flagName()
		if !c.IsSet(name) {
			continue
		}
		s := setting{key: k, origin: origin{kind: originFlag, name: name}, dir: dir}
		switch k.field(new(Config)).(type) {
		case *[]string:
			s.values = c.StringSlice(name)
		case *bool:
			s.values = []string{strconv.FormatBool(c.Bool(name))}
		default:
			s.values = []string{c.String(name)}
		}
		out = append(out, s)
	}
	return out
}

// set stores one setting, if none of higher rank is there already.
func (c *Config) set(s setting) error {
	if have, ok := c.origins[s.key.name]; ok && have.kind > s.origin.kind {
		return nil
	}
	for _, v := range s.values {
		if err := s.key.accept(v); err != nil {
			return s.wrong(err)
		}
	}
	if err := s.store(s.key.field(c)); err != nil {
		return s.wrong(err)
	}
	c.origins[s.key.name] = s.origin
	return nil
}

// accept checks what holds for every origin.
func (k *key) accept(v string) error {
	if len(k.choices) > 0 && !slices.Contains(k.choices, v) {
		return fmt.Errorf("%q is none of %s", v, strings.Join(k.choices, ", "))
	}
	if k.check != nil {
		return k.check(v)
	}
	return nil
}

// store parses the value into the field.
func (s setting) store(field any) error {
	value := strings.Join(s.values, " ")
	switch f := field.(type) {
	case *[]string:
		*f = slices.Clone(s.values)
	case *string:
		if s.key.path {
			value = inDir(s.dir, value)
		}
		*f = value
	case *bool:
		switch strings.ToLower(value) {
		case "true", "yes", "on", "1":
			*f = true
		case "false", "no", "off", "0":
			*f = false
		default:
			return fmt.Errorf("%q is neither true nor false", value)
		}
	case *int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", value)
		}
		if n < s.key.minimum || s.key.maximum > 0 && n > s.key.maximum {
			return fmt.Errorf("%d is not between %d and %d", n, s.key.minimum, s.key.maximum)
		}
		*f = n
	case *time.Duration:
		d, err := parseDuration(value)
		if err != nil {
			return err
		}
		*f = d
	default:
		return fmt.Errorf("key %s has a field of type %T", s.key.name, field)
	}
	return nil
}

// parseDuration reads a length of time, also one that begins with days: "7d",
// "1d12h".
func parseDuration(value string) (time.Duration, error) {
	rest, total := value, time.Duration(0)
	if days, after, ok := strings.Cut(value, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, notADuration(value)
		}
		rest, total = after, time.Duration(n)*24*time.Hour
	}
	if rest == "" && total > 0 {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, notADuration(value)
	}
	return total + d, nil
}

func notADuration(value string) error {
	return fmt.Errorf("%q is not a length of time such as 90s, 5m, 1h30m or 7d", value)
}

// wrong is the error of a value that is not accepted.
func (s setting) wrong(err error) error {
	u := usage("%s: %s: %w", s.origin, s.key.name, err)
	return u.hinted("%s: %s", s.key.name, s.key.help)
}

// require returns a usage error for the first of the named keys that is not set.
func (c *Config) require(names ...string) error {
	for _, k := range keys() {
		if !slices.Contains(names, k.name) {
			continue
		}
		if _, ok := c.origins[k.name]; ok {
			continue
		}
		err := usage("%s is not set", k.name)
		if c.File == "" {
			return err.hinted("no configuration file was found: name one with --config, or set --%s or %s", k.flagName(), k.env())
		}
		return err.hinted("set it in %s, or with --%s or %s", c.File, k.flagName(), k.env())
	}
	return nil
}

// inDir is path, if it is relative as seen from dir.
func inDir(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// warnReadablePassword warns of a password that others can read.
func (a *app) warnReadablePassword(c *Config) {
	// What is hidden whole leads nowhere, and whether it holds one is not known.
	if shown := maskConn(c.Conn); shown == c.Conn || shown == masked {
		return
	}
	switch o := c.origins["conn"]; o.kind {
	case originFlag:
		a.warn("the password in --conn can be read by everyone on this host (ps); keep it in ~/.pgpass")
	case originFile:
		if info, err := os.Stat(o.file); err == nil && info.Mode().Perm()&0o044 != 0 {
			a.warn("%s: conn holds a password, and others can read the file (mode %04o): chmod 600 it, or keep the password in ~/.pgpass",
				o, info.Mode().Perm())
		}
	}
}

package main

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// sourcesKey is a list in the file: the databases on RDS.
const sourcesKey = "rds.sources"

// RDSConfig is what is needed for databases on Amazon RDS.
type RDSConfig struct {
	Endpoint string
	Resolver string
	Poll     time.Duration
	Timeout  time.Duration
	Sources  []rds.Source
}

// field is one key of a mapping in the file.
type field[T any] struct {
	name string
	help string
	set  func(*fileReader, *T, *yaml.Node) error
}

func textField[T any](to func(*T) *string) func(*fileReader, *T, *yaml.Node) error {
	return func(_ *fileReader, v *T, n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return usage("it must be one text")
		}
		*to(v) = n.Value
		return nil
	}
}

// nameField is textField for what is sent to AWS as a name.
func nameField[T any](to func(*T) *string) func(*fileReader, *T, *yaml.Node) error {
	return func(r *fileReader, v *T, n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:/._-]{0,254}$`).MatchString(n.Value) {
			return usage("%q is no name that AWS would take", n.Value)
		}
		*to(v) = n.Value
		return nil
	}
}

// lowerField is nameField for names in which RDS knows no capitals: it answers with
// small letters, and what it answers is compared with what stands here.
func lowerField[T any](to func(*T) *string) func(*fileReader, *T, *yaml.Node) error {
	return func(r *fileReader, v *T, n *yaml.Node) error {
		err := nameField(to)(r, v, n)
		*to(v) = strings.ToLower(*to(v))
		return err
	}
}

// identifierField is lowerField for what a database is called; its ARN is longer.
func identifierField(r *fileReader, s *rds.Source, n *yaml.Node) error {
	if strings.Contains(n.Value, ":") {
		return usage("%q is no identifier of RDS", n.Value)
	}
	return lowerField(func(s *rds.Source) *string { return &s.ID })(r, s, n)
}

func lengthField[T any](to func(*T) *time.Duration) func(*fileReader, *T, *yaml.Node) error {
	return func(_ *fileReader, v *T, n *yaml.Node) (err error) {
		if *to(v), err = parseDuration(n.Value); err == nil && *to(v) <= 0 {
			return usage("%s is no time at all", n.Value)
		}
		return err
	}
}

// sourceFields are the keys of a source; docs/rds.md has the same.
func sourceFields() []field[rds.Source] {
	return []field[rds.Source]{
		{"name", "a name for commands, tags and reports: small letters, digits and -", setSourceName},
		{"instance", "identifier of the RDS instance; this or cluster", func(r *fileReader, s *rds.Source, n *yaml.Node) error {
			s.Kind = rds.Instance
			return identifierField(r, s, n)
		}},
		{"cluster", "identifier of the Aurora cluster; this or instance", func(r *fileReader, s *rds.Source, n *yaml.Node) error {
			s.Kind = rds.Cluster
			return identifierField(r, s, n)
		}},
		{"region", "its region", nameField(func(s *rds.Source) *string { return &s.Region })},
		{"kms_key", "ARN of the key it is encrypted with, for \"lifeboat rds policy\" alone", nameField(func(s *rds.Source) *string { return &s.KMSKey })},
		{"staging", "where a drill in that region restores to", func(r *fileReader, s *rds.Source, n *yaml.Node) error {
			return readFields(r, n, "staging", stagingFields(), &s.Staging)
		}},
		{"dr", "regions that snapshots are copied to, as a list of region, kms_key and staging", setDR},
		{"keep", "how many of the newest snapshots are kept in each region", func(_ *fileReader, s *rds.Source, n *yaml.Node) (err error) {
			if s.Keep, err = strconv.Atoi(n.Value); err != nil || s.Keep < 1 {
				return usage("%q is not a number from 1", n.Value)
			}
			return nil
		}},
		{"keep_for", "how long a snapshot is kept; the newest always is", lengthField(func(s *rds.Source) *time.Duration { return &s.KeepFor })},
		{"rpo", "the most that may be lost, as time", lengthField(func(s *rds.Source) *time.Duration { return &s.RPO })},
		{"rto", "the longest that a recovery may take", lengthField(func(s *rds.Source) *time.Duration { return &s.RTO })},
		{"heartbeat", "how often lifeboat rds heartbeat runs: the loss then has a lower bound too", lengthField(func(s *rds.Source) *time.Duration { return &s.Heartbeat })},
		{"ttl", "after how long what a crashed drill left is removed; 24h if it is left out; a drill ends when seven eighths of it are over", lengthField(func(s *rds.Source) *time.Duration { return &s.TTL })},
		{"login", "how to log in to it, and to what is restored from it", func(r *fileReader, s *rds.Source, n *yaml.Node) error {
			return readFields(r, n, "login", loginFields(), &s.Login)
		}},
		{"checks", "your own checks, as those of drill.checks", func(r *fileReader, s *rds.Source, n *yaml.Node) (err error) {
			s.Checks, err = r.readChecks(n)
			return err
		}},
	}
}

func stagingFields() []field[rds.Staging] {
	return []field[rds.Staging]{
		{"subnet_group", "DB subnet group, of private subnets", lowerField(func(s *rds.Staging) *string { return &s.SubnetGroup })},
		{"security_groups", "VPC security groups, as a list", func(_ *fileReader, s *rds.Staging, n *yaml.Node) error {
			if n.Kind != yaml.SequenceNode || n.Decode(&s.SecurityGroups) != nil {
				return usage("it must be a list of names")
			}
			return nil
		}},
		{"parameter_group", "DB parameter group of the instance", lowerField(func(s *rds.Staging) *string { return &s.ParameterGroup })},
		{"cluster_parameter_group", "DB cluster parameter group, of Aurora", lowerField(func(s *rds.Staging) *string { return &s.ClusterParameterGroup })},
		{"option_group", "option group of the instance; not of Aurora", lowerField(func(s *rds.Staging) *string { return &s.OptionGroup })},
		{"class", "instance class; the source's own if it is left out", nameField(func(s *rds.Staging) *string { return &s.Class })},
	}
}

func regionFields() []field[rds.Region] {
	return []field[rds.Region]{
		{"region", "the region", nameField(func(r *rds.Region) *string { return &r.Name })},
		{"kms_key", "ARN of a KMS key there; needed when the source is encrypted", nameField(func(r *rds.Region) *string { return &r.KMSKey })},
		{"staging", "where a drill there restores to", func(r *fileReader, to *rds.Region, n *yaml.Node) error {
			return readFields(r, n, "staging", stagingFields(), &to.Staging)
		}},
	}
}

func loginFields() []field[rds.Login] {
	return []field[rds.Login]{
		{"role", "role to log in as; postgres if it is left out", textField(func(l *rds.Login) *string { return &l.Role })},
		{"database", "database with the table of heartbeats; postgres if it is left out", textField(func(l *rds.Login) *string { return &l.Database })},
		{"password_env", "name of an environment variable that holds the password", textField(func(l *rds.Login) *string { return &l.PasswordEnv })},
		{"secret", "name or ARN of the password in Secrets Manager", textField(func(l *rds.Login) *string { return &l.Secret })},
		{"iam", "true: log in with a token of IAM database authentication", func(_ *fileReader, l *rds.Login, n *yaml.Node) error {
			if n.Decode(&l.IAM) != nil {
				return usage("it must be true or false")
			}
			return nil
		}},
		{"ca_file", "certificates of RDS (global-bundle.pem); without it connections are encrypted and the server is not verified", func(r *fileReader, l *rds.Login, n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value == "" {
				return usage("it must be the name of a file")
			}
			l.CAFile = inDir(filepath.Dir(r.path), n.Value)
			return nil
		}},
	}
}

func setSourceName(_ *fileReader, s *rds.Source, n *yaml.Node) error {
	if !regexp.MustCompile(`^[a-z]([a-z0-9]|-[a-z0-9]){0,39}$`).MatchString(n.Value) {
		return usage("%q is not small letters, digits and single dashes, from a letter on, at most 40", n.Value)
	}
	s.Name = n.Value
	return nil
}

func setDR(r *fileReader, s *rds.Source, n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return usage("it must be a list of regions")
	}
	for _, e := range n.Content {
		var to rds.Region
		if err := readFields(r, e, "dr", regionFields(), &to); err != nil {
			return err
		}
		if to.Name == "" {
			return r.wrong(e, "dr: region is missing")
		}
		s.DR = append(s.DR, to)
	}
	return nil
}

// readFields reads a mapping by its table. Errors name the line.
func readFields[T any](r *fileReader, n *yaml.Node, what string, fields []field[T], into *T) error {
	if n.Kind != yaml.MappingNode {
		return r.wrong(n, "%s must be a list of \"key: value\" lines", what).hinted("docs/rds.md shows one")
	}
	var known []string
	byName, seen := map[string]field[T]{}, map[string]bool{}
	for _, f := range fields {
		known, byName[f.name] = append(known, f.name), f
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		f, ok := byName[name.Value]
		switch {
		case !ok:
			err := r.wrong(name, "unknown key %q of %s", name.Value, what)
			if near := nearest(name.Value, known); near != "" {
				return err.hinted("did you mean %q?", near)
			}
			return err.hinted("docs/rds.md has all of them")
		case seen[f.name]:
			return r.wrong(name, "%s has %s twice", what, f.name).hinted("which one counts would be a guess")
		}
		seen[f.name] = true
		if err := f.set(r, into, value); err != nil {
			if own, ok := err.(*commandError); ok && own.hint != "" {
				return err // it names its own line
			}
			return r.wrong(value, "%s: %v", f.name, err).hinted("%s: %s", f.name, f.help)
		}
	}
	return nil
}

// readSources reads the list of sources.
func (r *fileReader) readSources(n *yaml.Node) ([]rds.Source, error) {
	if isNull(n) {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, r.wrong(n, "%s must be a list of sources", sourcesKey).hinted("docs/rds.md shows one")
	}
	var out []rds.Source
	for _, e := range n.Content {
		var s rds.Source
		s.Login.Role = "postgres"
		if err := readFields(r, e, "a source", sourceFields(), &s); err != nil {
			return nil, err
		}
		if err := r.wholeSource(e, s, out); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// wholeSource makes sure that a source is one thing, and another than those before.
func (r *fileReader) wholeSource(n *yaml.Node, s rds.Source, before []rds.Source) error {
	kinds, ways := 0, 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i].Value; k == "instance" || k == "cluster" {
			kinds++
		}
	}
	for _, set := range []bool{s.Login.PasswordEnv != "", s.Login.Secret != "", s.Login.IAM} {
		if set {
			ways++
		}
	}
	switch {
	case s.Name == "":
		return r.wrong(n, "a source has no name").hinted("name: for commands, tags and reports")
	case kinds != 1:
		return r.wrong(n, "source %s needs instance or cluster, and not both", s.Name).hinted("instance: the identifier on RDS; or cluster: that of Aurora")
	case s.Region == "":
		return r.wrong(n, "source %s has no region", s.Name).hinted("region: such as eu-central-1")
	case ways > 1:
		return r.wrong(n, "source %s has more than one of password_env, secret and iam", s.Name).hinted("which one counts would be a guess")
	}
	for _, b := range before {
		if b.Name == s.Name {
			return r.wrong(n, "a second source is called %s", s.Name).hinted("commands and reports tell sources apart by their names")
		}
	}
	seen := map[string]bool{s.Region: true}
	for _, d := range s.DR {
		if seen[d.Name] {
			return r.wrong(n, "source %s has region %s twice", s.Name, d.Name).hinted("dr: names regions other than its own, once each")
		}
		seen[d.Name] = true
	}
	return nil
}

// rdsKeys are the keys of the section that are single values.
func rdsKeys() []*key {
	return []*key{
		{name: "rds.resolver", value: "HOST:PORT", optional: "the system's",
			help:  "name server to ask for the names of databases, such as a VPC's own",
			field: func(c *Config) any { return &c.RDS.Resolver }},
		{name: "rds.endpoint", value: "URL", mask: maskURL, optional: "AWS",
			help:  "URL of an RDS that is not Amazon's, for tests",
			field: func(c *Config) any { return &c.RDS.Endpoint }},
		{name: "rds.poll", value: "TIME", def: "15s",
			help:  "how often RDS is asked how far it is",
			field: func(c *Config) any { return &c.RDS.Poll }},
		{name: "rds.timeout", value: "TIME", def: "12h",
			help:  "how long to wait for one thing on RDS: a snapshot, a copy, a restore",
			field: func(c *Config) any { return &c.RDS.Timeout }},
	}
}

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	testRecipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	testSigner    = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
)

// load runs a command line through a command that only loads its
// configuration, in the directory dir.
func load(t *testing.T, dir string, environ, args []string) (*Config, string, error) {
	t.Helper()
	var cfg *Config
	var stderr strings.Builder
	a := &app{ui: &ui{stderr: &stderr}, environ: environ, now: time.Now,
		getwd: func() (string, error) { return dir, nil }}
	a.constructors = []func(*app) *cli.Command{func(*app) *cli.Command {
		return &cli.Command{Name: "load", Flags: configFlags(), Action: func(c *cli.Context) (err error) {
			cfg, err = a.config(c)
			return err
		}}
	}}
	err := a.dispatch(t.Context(), append([]string{"load"}, args...))
	return cfg, stderr.String(), err
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// samples is a value for each key that is not its default.
var samples = map[string][]string{
	"cluster":             {"shop"},
	"pgdata":              {"/var/lib/postgresql/15/main"},
	"conn":                {"host=/run user=o'brien # no comment"},
	"repository":          {"s3://bucket/a/b"},
	"s3.endpoint":         {"https://s3.example:9000"},
	"s3.region":           {"eu-central-1"},
	"s3.path_style":       {"true"},
	"s3.ca_file":          {"/etc/ca: my.pem"},
	"s3.sse":              {"aws:kms"},
	"s3.sse_kms_key":      {"0123"},
	"s3.storage_class":    {"STANDARD_IA"},
	"s3.object_lock_mode": {"GOVERNANCE"},
	"s3.object_lock_days": {"30"},
	"cluster_key":         {"/etc/lifeboat/cluster.key"},
	"signer":              {testSigner},
	"recipients":          {testRecipient, "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"},
	"identity":            {"/mnt/usb/recovery.key"},
	"jobs":                {"3"},
	"compression":         {"better"},
	"pg_bindir":           {"/usr/lib/postgresql/15/bin"},
	"wal_timeout":         {"90s"},
	"fingerprints":        {"true"},
	"max_pack_age":        {"240h"},
	"block_summaries":     {"false"},
	"store_timeout":       {"20s"},
	"drill.staging":       {"/srv/staging"},
	"drill.level":         {"deep"},
	"drill.rpo":           {"1m"},
	"drill.rto":           {"15m"},
	"drill.key":           {"/etc/lifeboat/drill.key"},
	"drill.trust":         {testSigner},
	"drill.owner":         {"postgres:postgres"},
	"drill.role":          {"admin"},
	"drill.libraries":     {"timescaledb", "citus"},
	"drill.heartbeat":     {"30s"},
	"drill.timeout":       {"2h"},
	"drill.stall":         {"1m30s"},
	"expire.keep_last":    {"3"},
	"expire.keep_daily":   {"7"},
	"expire.keep_weekly":  {"4"},
	"expire.keep_monthly": {"12"},
	"expire.keep_yearly":  {"5"},
	"expire.pitr_window":  {"168h"},
	"state":               {"/srv/state"},
	"rds.resolver":        {"169.254.169.253:53"},
	"rds.endpoint":        {"http://127.0.0.1:4566"},
	"rds.poll":            {"20s"},
	"rds.timeout":         {"2h"},
}

// Every key must work in the file, in the environment and as a flag, and
// the file that configText writes must say the same as what it was given.
func TestKeysEverywhere(t *testing.T) {
	want := map[string][]string{}
	for _, k := range keys() {
		if samples[k.name] == nil {
			t.Fatalf("key %s has no sample", k.name)
		}
		want[k.name] = samples[k.name]
	}
	want["wal_timeout"] = []string{"1m30s"}
	var environ, args []string
	for _, k := range keys() {
		environ = append(environ, k.env()+"="+strings.Join(samples[k.name], ","))
		for _, v := range samples[k.name] {
			args = append(args, "--"+k.flagName()+"="+v)
		}
	}
	dir := t.TempDir()
	file := write(t, t.TempDir(), "written.yaml", string(configText(samples)))
	for kind, how := range map[originKind]struct{ environ, args []string }{
		originFile: {nil, []string{"-c", file}},
		originEnv:  {environ, nil},
		originFlag: {nil, args},
	} {
		cfg, _, err := load(t, dir, how.environ, how.args)
		if err != nil {
			t.Errorf("origin %d: %v", kind, err)
			continue
		}
		for _, k := range keys() {
			if got := k.texts(cfg); !reflect.DeepEqual(got, want[k.name]) {
				t.Errorf("%s: %s is %q, want %q", cfg.origins[k.name], k.name, got, want[k.name])
			}
			if got := cfg.origins[k.name].kind; got != kind {
				t.Errorf("%s: origin %d, want %d", k.name, got, kind)
			}
		}
	}
}

func TestConfigTextEmpty(t *testing.T) {
	settings, err := parseConfig("x", configText(nil))
	if err != nil || len(settings.settings) != 0 {
		t.Errorf("a file with nothing set reads as %v, %v", settings, err)
	}
	for _, k := range keys() {
		if !strings.Contains(string(configText(nil)), "#"+lastOf(k.name)+": ") {
			t.Errorf("key %s is missing", k.name)
		}
	}
}

func lastOf(name string) string {
	_, last := sectionOf(name)
	return last
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "lifeboat.yaml", "jobs: 2\ncompression: better\nwal_timeout: 1m\n")
	env := []string{"LIFEBOAT_JOBS=4", "LIFEBOAT_COMPRESSION=default", "LIFEBOAT_IDENTITY=", "LIFEBOAT_PORT=tcp://10.0.0.1:1"}
	cfg, _, err := load(t, dir, env, []string{"--jobs", "8"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"jobs":          "8 flag --jobs",
		"compression":   "default env LIFEBOAT_COMPRESSION",
		"wal_timeout":   "1m " + file + ":3",
		"s3.path_style": "false default",
		"identity":      " ",
	} {
		for _, k := range keys() {
			if k.name != name {
				continue
			}
			got := strings.Join(k.texts(cfg), " ") + " "
			if o, ok := cfg.origins[name]; ok {
				got += o.String()
			}
			if got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func TestFileLookup(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "lifeboat.yaml", "cluster: here\n")
	named := write(t, dir, "named.yaml", "cluster: named\nidentity: keys/x\n")
	byEnv := write(t, dir, "env.yaml", "cluster: env\n")
	for _, c := range []struct {
		environ, args []string
		want          string
	}{
		{nil, nil, "here"},
		{[]string{"LIFEBOAT_CONFIG=env.yaml"}, nil, "env"},
		{[]string{"LIFEBOAT_CONFIG=" + byEnv}, nil, "env"},
		{[]string{"LIFEBOAT_CONFIG=" + byEnv}, []string{"-c", named}, "named"},
		{[]string{"LIFEBOAT_CONFIG=" + byEnv}, []string{"--config=named.yaml"}, "named"},
	} {
		cfg, _, err := load(t, dir, c.environ, c.args)
		if err != nil || cfg.Cluster != c.want {
			t.Errorf("%q %q: %+v, %v; want cluster %s", c.environ, c.args, cfg, err, c.want)
		}
	}
	cfg, _, err := load(t, t.TempDir(), nil, []string{"-c", named})
	if err != nil || cfg.Identity != filepath.Join(dir, "keys/x") {
		t.Errorf("identity: %v, %v; want it beside the file", cfg, err)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		file    string
		environ string
		args    string
		want    string // with FILE for the file's path
		hint    string // a part
	}{
		{file: "cluster: a\nrepositry: file:///x\n", want: `FILE:2: unknown key "repositry"`, hint: `did you mean "repository"?`},
		{file: "s3:\n  regoin: x\n", want: `FILE:2: unknown key "s3.regoin"`, hint: `did you mean "s3.region"?`},
		{file: "region: x\n", want: `FILE:1: unknown key "region"`, hint: `did you mean "s3.region"?`},
		{file: "zzzzzzzz: x\n", want: `FILE:1: unknown key "zzzzzzzz"`, hint: "lists the keys"},
		{file: "jobs: 1\n\njobs: 2\n", want: `FILE:3: jobs is set twice, first in line 1`, hint: "one of the two"},
		{file: "s3:\n  region: a\ns3.region: b\n", want: `FILE:3: s3.region is set twice, first in line 2`, hint: "one"},
		{file: "s3:\n  region: a\ns3:\n  sse: AES256\n", want: `FILE:3: s3 is set twice, first in line 1`, hint: "one"},
		{file: "jobs: many\n", want: `FILE:1: jobs: "many" is not a whole number`, hint: "workers"},
		{file: "jobs: 17\n", want: `FILE:1: jobs: 17 is not between 0 and 16`, hint: "workers"},
		{file: "jobs: -1\n", want: `FILE:1: jobs: -1 is not between 0 and 16`, hint: "workers"},
		{file: "jobs: [1]\n", want: `FILE:1: jobs must be a single value`, hint: "workers"},
		{file: "recipients: {a: b}\n", want: `FILE:1: recipients must be a list of texts`, hint: "age recipient"},
		{file: "recipients:\n- [a]\n", want: `FILE:2: recipients: an element must be one line of text`},
		{file: "s3: 5\n", want: `FILE:1: s3 must be a list of "key: value" lines`},
		{file: "- a\n", want: `FILE:1: the configuration must be a list of "key: value" lines`},
		{file: "a: b: c\n", want: `FILE:1: not valid YAML: mapping values are not allowed in this context`, hint: "quote"},
		{file: "cluster: a\n---\njobs: 1\n", want: `FILE: more than one YAML document`},
		{file: "cluster: &x a\nidentity: *x\n", want: `FILE:2: identity: YAML aliases are not supported`},
		{file: "wal_timeout: 5\n", want: `FILE:1: wal_timeout: "5" is not a length of time such as 90s, 5m, 1h30m or 7d`},
		{file: "wal_timeout: -5s\n", want: `FILE:1: wal_timeout: "-5s" is not a length of time such as 90s, 5m, 1h30m or 7d`},
		{file: "compression: best\n", want: `FILE:1: compression: "best" is none of fastest, default, better`},
		{file: "s3:\n  path_style: maybe\n", want: `FILE:2: s3.path_style: "maybe" is neither true nor false`},
		{file: "recipients: [age1x]\n", want: `FILE:1: recipients: not an age recipient (age1… or age1pq1…)`},
		{file: "recipients: [AGE-SECRET-KEY-1QQQ]\n", want: `FILE:1: recipients: the value is a secret key, and no database host should hold one; a recipient is public and starts with age1`},
		{file: "repository: /backups\n", want: `FILE:1: repository: "/backups" is a path, not a URL; write file:///backups`},
		{file: "repository: s3://b/p?regoin=x\n", want: `FILE:1: repository: unknown parameter "regoin", did you mean "region"?`},
		{file: "repository: s3://u:secret@b/p\n", want: `FILE:1: repository: a login does not belong into the URL: credentials come from the AWS SDK's own chain (environment, ~/.aws, instance role)`},
		{environ: "LIFEBOAT_REPOSITRY=x", want: "unknown environment variable LIFEBOAT_REPOSITRY", hint: "did you mean LIFEBOAT_REPOSITORY?"},
		{environ: "LIFEBOAT_CONFG=x", want: "unknown environment variable LIFEBOAT_CONFG", hint: "did you mean LIFEBOAT_CONFIG?"},
		{environ: "LIFEBOAT_JOBS=x", want: `env LIFEBOAT_JOBS: jobs: "x" is not a whole number`},
		{environ: "LIFEBOAT_IDENTITY=AGE-SECRET-KEY-1QQQ", want: "env LIFEBOAT_IDENTITY: identity: the value is a secret key; put it into a file of mode 0600 and name the file"},
		{args: "--jobs x", want: `flag --jobs: jobs: "x" is not a whole number`},
		{args: "--signer ed25519:zz", want: `flag --signer: signer: a public signing key is "ed25519:" and 32 bytes in URL-safe base64`},
		{args: "--config missing.yaml", want: "no configuration file DIR/missing.yaml (from --config)", hint: "init"},
		{environ: "LIFEBOAT_CONFIG=missing.yaml", want: "no configuration file DIR/missing.yaml (from LIFEBOAT_CONFIG)"},
		// What is wrong is wrong even where something else beats it.
		{file: "jobs: x\n", args: "--jobs 1", want: `FILE:1: jobs: "x" is not a whole number`},
	} {
		dir := t.TempDir()
		if c.file != "" {
			write(t, dir, "lifeboat.yaml", c.file)
		}
		var environ []string
		if c.environ != "" {
			environ = []string{c.environ}
		}
		_, _, err := load(t, dir, environ, strings.Fields(c.args))
		want := strings.NewReplacer("FILE", filepath.Join(dir, "lifeboat.yaml"), "DIR", dir).Replace(c.want)
		if err == nil || err.Error() != want {
			t.Errorf("%q %q %q:\n have %v\n want %s", c.file, c.environ, c.args, err, want)
			continue
		}
		if code, hint := classify(err); code != exitUsage || !strings.Contains(hint, c.hint) {
			t.Errorf("%q %q %q: code %d, hint %q; want %d and %q", c.file, c.environ, c.args, code, hint, exitUsage, c.hint)
		}
	}
}

// What is fine must stay fine.
func TestConfigAccepts(t *testing.T) {
	for _, file := range []string{
		"", "# nothing\n", "---\n", "s3:\n", "conn:\n", "jobs: ~\n", "cluster: 123\n", "recipients: " + testRecipient + "\n",
		"\ufeffcluster: a\r\njobs: 1\r\n", "recipients: []\n", "s3.region: x\n", "s3: {region: x, path_style: yes}\n",
	} {
		dir := t.TempDir()
		write(t, dir, "lifeboat.yaml", file)
		if _, _, err := load(t, dir, nil, nil); err != nil {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestRequire(t *testing.T) {
	dir := t.TempDir()
	cfg, _, err := load(t, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = cfg.require("repository", "cluster")
	if code, hint := classify(err); code != exitUsage || err.Error() != "cluster is not set" || !strings.Contains(hint, "LIFEBOAT_CLUSTER") {
		t.Errorf("%v (%d, %s)", err, code, hint)
	}
	if err := cfg.require("jobs"); err != nil {
		t.Errorf("a default counts as set: %v", err)
	}
}

// FuzzConfig: whatever the file holds, it is read or refused with its place,
// and what configText writes of what was read reads back the same.
func FuzzConfig(f *testing.F) {
	f.Add(configText(samples))
	f.Add([]byte("s3: {region: x}\nrecipients: [" + testRecipient + "]\n"))
	f.Add([]byte("drill:\n  rpo: 7d\n  checks:\n  - {name: a, sql: select 1, min: 1, newer_than: 1h}\n  - name: b\n    command: [x, y]\n"))
	f.Add([]byte("cluster: &a b\nidentity: *a\n"))
	f.Add([]byte("? {a: b}\n: c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := parseConfig("/etc/x.yaml", data)
		if err != nil {
			if code, _ := classify(err); code != exitUsage || !strings.HasPrefix(err.Error(), "/etc/x.yaml") {
				t.Fatalf("%v: want a usage error that names the file", err)
			}
			return
		}
		set := map[string][]string{}
		for _, s := range settings.settings {
			set[s.key.name] = s.values
		}
		again, err := parseConfig("/etc/x.yaml", configText(set))
		if err != nil {
			t.Fatalf("%q: %v\n%s", set, err, configText(set))
		}
		for _, s := range again.settings {
			if !reflect.DeepEqual(s.values, set[s.key.name]) {
				t.Fatalf("%s: wrote %q, read %q", s.key.name, set[s.key.name], s.values)
			}
		}
	})
}

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

// What is mistyped, forbidden or out of place: one line, a hint, the right code,
// and nothing left on RDS.
func TestRDSBadInput(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{}, rdstest.Source{Encrypted: true, NoServer: true})
	c.must(t, "rds", "snapshot", "--wait")
	snapshot := c.SnapshotNames("eu-central-1")[0]
	engine := func(to string) func() {
		return func() {
			c.ChangeSnapshot(t, "eu-central-1", snapshot, func(_, _, _, engine *string, _ *[]types.Tag) { *engine = to })
		}
	}
	for _, x := range []struct {
		name    string
		prepare func()
		args    string
		code    int
		err     string
		hint    string
	}{
		{"unknown source", nil, "status --source bank", 2, `there is no source "bank"`, "orders"},
		{"unknown region", nil, "drill --region us-east-1", 2, "source orders has no region us-east-1", "eu-central-1, eu-west-1"},
		{"its own region", nil, "snapshot --copy-to eu-central-1", 2, "the source's own region", "name another region"},
		{"a region that is not configured", nil, "snapshot --copy-to us-east-1", 2, "no region us-east-1", "dr:"},
		{"an empty key", nil, "snapshot --copy-to us-east-1 --kms-key=", 2, "--kms-key is given and empty", "leave the flag out"},
		{"two regions and one key", nil, "snapshot --copy-to eu-west-1 --copy-to us-east-1 --kms-key k", 2, "--kms-key goes with one --copy-to", "dr:"},
		{"a level", nil, "drill --level quick", 2, "no level quick", "standard or deep"},
		{"a time to come", nil, "drill --from 2099-01-01T00:00:00Z", 2, "still to come", ""},
		{"a directory", nil, "drill --html /nowhere/x.html", 2, "there is no directory /nowhere", ""},
		{"another name", nil, "failover --confirm bank", 2, "--confirm bank is not the name of the source, orders", "nothing was done"},
		{"a role", nil, "policy --role all", 2, `"all" is none of snapshots, drills, failover`, ""},
		{"an operand", nil, "drill now", 2, `unexpected "now"`, ""},
		{"no command", nil, "", 2, "no command given", "status, snapshot, drill, expire, failover, heartbeat, policy"},
		{"no snapshot of that name", nil, "drill --from nothing", 3, "there is no snapshot nothing in eu-central-1", "rds status"},
		{"nothing in the other region", nil, "drill --region eu-west-1", 3, "has no snapshot in eu-west-1", "--copy-to"},
		{"no automated backups", nil, "drill --from latest-time", 4, "keeps no automated backups", "earlier time"},
		{"a snapshot of another engine", engine("mysql"), "drill --from " + snapshot, 3, "has engine mysql, not postgres", "only PostgreSQL"},
		{"no standby", engine("postgres"), "failover --confirm orders", 1, "has no standby", "Multi-AZ"},
		{"a state that forbids it", func() { c.SetStatus(t, "eu-central-1", "orders-prod", "modifying") }, "snapshot", 1, "is modifying; it must be available", "rds status"},
		{"a state that forbids a failover", nil, "failover --confirm orders", 1, "is modifying; it must be available", "rds status"},
		{"no rights", func() {
			c.SetStatus(t, "eu-central-1", "orders-prod", "available")
			c.Inject("CreateDBSnapshot", "AccessDenied", 1)
		}, "snapshot", 1, "rds:CreateDBSnapshot", "lack the right rds:CreateDBSnapshot"},
		{"an expired token", func() { c.Inject("", "ExpiredToken", 1) }, "status", 1, "ExpiredToken", "expired ones must be renewed"},
		{"throttled for good", func() { c.Inject("", "Throttling", 100) }, "status", 1, "Throttling", "run it again"},
		{"a quota", func() { c.Heal(); c.Quota(1) }, "snapshot", 1, "SnapshotQuotaExceeded", "rds expire"},
		{"gone", func() { c.Heal(); c.Inject("DescribeDBInstances", "DBInstanceNotFound", 1) }, "status", 1, "there is no instance orders-prod", "check identifier"},
	} {
		if x.prepare != nil {
			x.prepare()
		}
		code, stdout, stderr := c.exec(t, append([]string{"rds"}, strings.Fields(x.args)...)...)
		lines := regexp.MustCompile(`(?m)^lifeboat: error: .*$`).FindAllString(stderr, -1)
		hints := regexp.MustCompile(`(?m)^lifeboat: hint: .*$`).FindAllString(stderr, -1)
		if code != x.code || len(lines) != 1 || !strings.Contains(lines[0], x.err) || len(hints) != 1 || !strings.Contains(hints[0], x.hint) {
			t.Errorf("%s: lifeboat rds %s exits with %d, want %d %q, hint %q\n%s%s", x.name, x.args, code, x.code, x.err, x.hint, stdout, stderr)
		}
		if strings.Contains(stdout+stderr, rdstest.Password) {
			t.Errorf("%s: the password is told", x.name)
		}
	}
	c.Inject("DescribeDBInstances", "AccessDenied", 1)
	if code, stdout, stderr := c.exec(t, "rds", "status"); code != 1 || !strings.Contains(stdout, "state         unknown: ") || !strings.Contains(stdout, "by Lifeboat") || !strings.Contains(stderr, "lack the right rds:DescribeDBInstances") {
		t.Errorf("a status that is known in part exits with %d: %s%s", code, stdout, stderr)
	}
	c.env = append(c.env, "ORDERS_PASSWORD=")
	if code, _, stderr := c.exec(t, "rds", "drill"); code != 2 || !strings.Contains(stderr, "ORDERS_PASSWORD") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("without a password a drill exits with %d: %s", code, stderr)
	}
	if names := append(c.Names("eu-central-1"), c.Names("eu-west-1")...); !slices.Equal(names, []string{"orders-prod"}) {
		t.Errorf("left: %v", names)
	}
}

// What was measured is told when it cannot be stored, and that it was not.
func TestRDSEvidenceThatCannotBeStored(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	drills := filepath.Join(c.dir, "repository", "drills")
	if err := os.MkdirAll(drills, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(drills, 0o500); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := c.exec(t, "rds", "drill", "--from", "nothing")
	if code != 1 || !strings.Contains(stdout, "there is no snapshot nothing") || !strings.Contains(stdout, "could not be stored") || !strings.Contains(stderr, "store the evidence") {
		t.Errorf("code %d: %s%s", code, stdout, stderr)
	}
}

// A copy that expiry does not know of is told.
func TestRDSCopyElsewhere(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	code, _, stderr := c.exec(t, "rds", "snapshot", "--copy-to", "us-east-1", "--kms-key", "arn:aws:kms:us-east-1:123456789012:key/x")
	if code != 0 || !strings.Contains(stderr, "copies in us-east-1 are never expired") {
		t.Errorf("code %d: %s", code, stderr)
	}
}

// Stopped while it waits, a snapshot says that it goes on, and is taken up.
func TestRDSInterruptedWait(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{Snapshot: 5 * time.Second}, rdstest.Source{NoServer: true})
	code, _, stderr := c.exec(t, "rds", "snapshot", "--wait", "--rds-timeout", "100ms")
	if code != 1 || !strings.Contains(stderr, "is still creating") || !strings.Contains(stderr, "run the command again") {
		t.Errorf("code %d: %s", code, stderr)
	}
	if out := c.must(t, "rds", "snapshot", "--wait"); !strings.Contains(out, "taken up, available, and compared with the source") || len(c.SnapshotNames("eu-central-1")) != 1 {
		t.Errorf("%s; %v", out, c.SnapshotNames("eu-central-1"))
	}
}

// Sources that are no sources: file, line, and what belongs there.
func TestRDSConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "lifeboat.yaml")
	good := "name: orders\n      instance: orders-prod\n      region: eu-central-1"
	for text, want := range map[string]string{
		"name: Orders":                                 `:3: name: "Orders" is not small letters`,
		"name: orders":                                 `source orders needs instance or cluster`,
		good + "\n      cluster: x":                    `source orders needs instance or cluster, and not both`,
		"name: orders\n      instance: a":              `source orders has no region`,
		good + "\n      regin: x":                      `:6: unknown key "regin" of a source`,
		good + "\n      name: again":                   `:6: a source has name twice`,
		good + "\n    - " + good:                       `a second source is called orders`,
		good + "\n      keep: 0":                       `:6: keep: "0" is not a number from 1`,
		good + "\n      keep_for: soon":                `:6: keep_for: "soon" is not a length of time`,
		good + "\n      dr: [{kms_key: k}]":            `:6: dr: region is missing`,
		good + "\n      dr: [{region: eu-central-1}]":  `source orders has region eu-central-1 twice`,
		good + "\n      staging: {subnet: x}":          `:6: unknown key "subnet" of staging`,
		good + "\n      login: {iam: true, secret: x}": `more than one of password_env, secret and iam`,
		good + "\n      checks: [{name: a}]":           `check "a" needs sql or command`,
		"name: orders\n      instance: arn:aws:rds:eu-central-1:123456789012:db:x": `is no identifier of RDS`,
		"name: orders\n      instance: -rf":                                        `"-rf" is no name that AWS would take`,
	} {
		if err := os.WriteFile(path, []byte("rds:\n  sources:\n    - "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := runProgram(t, dir, nil, "rds", "policy", "--config", path)
		if code != 2 || !strings.Contains(stderr, want) || !strings.Contains(stderr, "hint: ") {
			t.Errorf("%s\nleaves with %d and says\n%s\nwant %s", text, code, stderr, want)
		}
	}
}

// A signal while a drill waits for RDS: what it made is deleted first, and the
// code says that it was stopped.
func TestRDSDrillIsStopped(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{Create: time.Second}, rdstest.Source{NoServer: true})
	c.must(t, "rds", "snapshot", "--wait")
	cmd := exec.Command(servertest.Command(t, "lifeboat"), "rds", "drill", "--config", c.config)
	cmd.Env, cmd.Dir = append(os.Environ(), c.env...), c.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(c.Calls("RestoreDBInstanceFromDBSnapshot")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was restored")
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 130 {
		t.Errorf("it exits with %v", err)
	}
	if names := c.Names("eu-central-1"); !slices.Equal(names, []string{"orders-prod"}) || len(c.Calls("DeleteDBInstance")) == 0 {
		t.Errorf("left: %v", names)
	}
	if text := out.String(); !strings.Contains(text, "UNKNOWN") || !strings.Contains(text, "is proven gone") {
		t.Errorf("it says\n%s", text)
	}
}

// Capitals in a name are RDS's small letters.
func TestRDSNamesInCapitals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "lifeboat.yaml")
	text := "rds:\n  sources:\n    - {name: orders, instance: Orders-PROD, region: eu-central-1, staging: {subnet_group: Private, parameter_group: Mine, option_group: Own}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runProgram(t, dir, nil, "rds", "policy", "--config", path)
	for _, name := range []string{":db:orders-prod\"", ":subgrp:private\"", ":pg:mine\"", ":og:own\""} {
		if code != 0 || !strings.Contains(stdout, name) {
			t.Errorf("the policy lacks %s: code %d\n%s%s", name, code, stdout, stderr)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// cloudSite is a source on a fake of RDS, a configuration and a repository.
type cloudSite struct {
	*rdstest.Fake
	dir, config string
	env         []string
}

const cloudSource = `
rds:
  endpoint: %s
  resolver: %s
  poll: 20ms
  timeout: 1m
  sources:
    - name: orders
      %s: orders-prod
      region: eu-central-1
      keep: 2
      rpo: 1h
      rto: 10m
      login: {role: master, password_env: ORDERS_PASSWORD, ca_file: %s}
      staging: {subnet_group: staging, security_groups: [sg-staging], parameter_group: orders-instance, cluster_parameter_group: orders, option_group: "default:postgres-15", class: db.t4g.medium}
      dr:
        - {region: eu-west-1, kms_key: "arn:aws:kms:eu-west-1:123456789012:key/copies", staging: {subnet_group: staging-dr, security_groups: [sg-dr], parameter_group: orders-instance, cluster_parameter_group: orders, option_group: "default:postgres-15", class: db.t4g.medium}}
      checks:
        - {name: orders are there, sql: select count(*) from orders, min: 100}
        - {name: a program sees them, command: [psql, -Atc, "select 1 / count(*) from orders"]}
`

func newCloudSite(t *testing.T, o rdstest.Options, s rdstest.Source) *cloudSite {
	t.Helper()
	f := rdstest.Start(t, o)
	s.ID, s.SQL = "orders-prod", "create table orders as select generate_series(1, 100) id; grant select on orders to master"
	f.Add(t, s)
	c := &cloudSite{Fake: f, dir: t.TempDir(), env: append(f.Env(), "ORDERS_PASSWORD="+rdstest.Password)}
	c.config = filepath.Join(c.dir, "lifeboat.yaml")
	c.must(t, "init", "--rds", "--cluster", "orders", "--repository", "file://"+filepath.Join(c.dir, "repository"))
	kind := "instance"
	if s.Cluster {
		kind = "cluster"
	}
	text, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf(cloudSource, f.URL, f.DNS, kind, f.CA)
	text = []byte(strings.Replace(string(text), "\nrds:\n", own, 1))
	if err := os.WriteFile(c.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cloudSite) exec(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	return runProgram(t, c.dir, c.env, append(args, "--config", c.config)...)
}

func (c *cloudSite) must(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := c.exec(t, args...)
	if code != 0 {
		t.Fatalf("lifeboat %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// typed runs the program on a terminal, where somebody types a line.
func (c *cloudSite) typed(t *testing.T, text string, args ...string) (code int, out string) {
	t.Helper()
	var words []string
	for _, a := range append([]string{servertest.Command(t, "lifeboat"), "--config", c.config}, args...) {
		words = append(words, postgres.ShellWord(a))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", strings.Join(words, " "), "/dev/null")
	cmd.Env, cmd.Dir, cmd.Stdin = append(os.Environ(), c.env...), c.dir, strings.NewReader(text+"\n")
	both, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(both)
	}
	if err != nil {
		t.Fatalf("script, of package bsdutils, gives the terminal: %v", err)
	}
	return 0, string(both)
}

// A person's day with an instance: from an empty directory to evidence in the history.
func TestRDSEndToEnd(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{}, rdstest.Source{Encrypted: true, MultiAZ: true, Protected: true, Backups: true})
	c.must(t, "rds", "heartbeat", "--create")
	if out := c.must(t, "rds", "snapshot", "--copy-to", "all"); !strings.Contains(out, "available, and compared with the source") || !strings.Contains(out, "Copy in eu-west-1") {
		t.Errorf("snapshot says\n%s", out)
	}
	// What one has proven at home, the other does not prove elsewhere: it is due.
	for _, flags := range [][]string{{"--level", "deep"}, {"--region", "eu-west-1", "--due", "1h"}} {
		page := filepath.Join(c.dir, "page.html")
		out := c.must(t, append([]string{"rds", "drill", "--html", page}, flags...)...)
		for _, want := range []string{"PASSED  ", "RPO  met", "RTO  met", "available", "what was restored on RDS is proven gone", "a program sees them", "heartbeat in the copy"} {
			if !strings.Contains(out, want) {
				t.Errorf("the report of %s lacks %q:\n%s", flags, want, out)
			}
		}
		if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "lifeboat-drill-") {
			t.Errorf("the page: %v", err)
		}
	}
	c.Advance(t, "eu-central-1", "orders-prod")
	if out := c.must(t, "rds", "drill", "--from", "latest-time", "--due", "1h"); !strings.Contains(out, "PASSED  ") {
		t.Errorf("a drill of automated backups after one of a snapshot says\n%s", out)
	}
	var status []rdsStatusReport
	if err := json.Unmarshal([]byte(c.must(t, "rds", "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if s := status[0]; !s.MultiAZ || !s.Encrypted || s.Exposure == nil || len(s.Regions) != 2 || s.Regions[1].Ours != 1 || len(s.Leftovers) != 0 {
		t.Errorf("status is %+v", s)
	}
	if out := c.must(t, "rds", "drill", "--due", "1h"); !strings.HasPrefix(out, "Not due") {
		t.Errorf("a drill that is not due says %s", out)
	}

	code, out, stderr := c.exec(t, "rds", "failover")
	if code != 2 || !strings.Contains(stderr, "interrupts") || !strings.Contains(stderr, "--confirm orders") || len(c.Calls("RebootDBInstance")) != 0 {
		t.Errorf("without a name a failover exits with %d: %s%s", code, out, stderr)
	}
	code, _, stderr = c.exec(t, "rds", "failover", "--confirm", "orders", "--repository", "file:///nowhere")
	if code == 0 || !strings.Contains(stderr, "nothing was failed over") || !strings.Contains(stderr, "aws rds reboot-db-instance --force-failover --db-instance-identifier orders-prod --region eu-central-1") || len(c.Calls("RebootDBInstance")) != 0 {
		t.Errorf("without a repository a failover exits with %d: %s", code, stderr)
	}
	if code, out := c.typed(t, "orders-prod", "rds", "failover"); code != 1 || !strings.Contains(out, "Type the name") || !strings.Contains(out, "that is not orders: nothing was done") || len(c.Calls("RebootDBInstance")) != 0 {
		t.Errorf("with another name typed it exits with %d: %s", code, out)
	}
	if code, out := c.typed(t, "orders", "rds", "failover"); code != 0 || len(c.Calls("RebootDBInstance")) != 1 {
		t.Errorf("with the name typed it exits with %d: %s", code, out)
	}
	var d evidence.Drill
	if err := json.Unmarshal([]byte(c.must(t, "rds", "failover", "--confirm", "orders", "--json")), &d); err != nil {
		t.Fatal(err)
	}
	if f := d.Failover; d.Verdict != evidence.Passed || f == nil || f.ZoneAfter != "eu-central-1a" || f.DowntimeUpper == nil || *f.DowntimeUpper < 0.2 || len(f.Events) < 2 {
		t.Errorf("the failover: %+v", d.Failover)
	}
	if out := c.must(t, "report"); strings.Count(out, "passed") < 4 {
		t.Errorf("the history:\n%s", out)
	}
	if out := c.must(t, "rds", "expire", "--dry-run"); !strings.HasPrefix(out, "Nothing") {
		t.Errorf("expire: %s", out)
	}
	if out := c.must(t, "rds", "policy", "--role", "drills"); !strings.Contains(out, "arn:aws:rds:eu-west-1:*:subgrp:staging-dr") || strings.Contains(out, "Reboot") {
		t.Errorf("policy:\n%s", out)
	}
	if names := c.Names("eu-central-1"); !slices.Equal(names, []string{"orders-prod"}) || len(c.Names("eu-west-1")) != 0 {
		t.Errorf("left on RDS: %v, %v", names, c.Names("eu-west-1"))
	}
}

// Evidence that this host has seen is gone: no drill of RDS says that it is not due, none
// begins, and nothing is restored that costs money.
func TestRDSEvidenceGoneBack(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{}, rdstest.Source{Encrypted: true, Backups: true})
	c.env = append(c.env, "STATE_DIRECTORY="+t.TempDir())
	c.must(t, "rds", "heartbeat", "--create")
	c.must(t, "rds", "snapshot", "--wait")
	c.must(t, "rds", "drill")
	documents, err := filepath.Glob(filepath.Join(c.dir, "repository", "drills", "*"))
	if err != nil || len(documents) != 1 {
		t.Fatal(documents, err)
	}
	document, restored := "drills/"+filepath.Base(documents[0]), len(c.Calls("RestoreDBInstanceFromDBSnapshot"))
	must(t, os.Rename(documents[0], filepath.Join(c.dir, "away")))
	for _, flags := range [][]string{{"--due", "7d"}, nil, {"--due", "7d", "--json"}} {
		code, stdout, stderr := c.exec(t, append([]string{"rds", "drill"}, flags...)...)
		if exitCode(code) != exitMissed || !strings.Contains(stderr, "gone back: "+document) || !strings.Contains(stderr, "hint: ") || strings.Contains(stdout, "Not due") {
			t.Errorf("%q: exit code %d\n%s%s", flags, code, stdout, stderr)
		}
	}
	if now := len(c.Calls("RestoreDBInstanceFromDBSnapshot")); restored == 0 || now != restored {
		t.Errorf("%d restores, %d before", now, restored)
	}
	must(t, os.Rename(filepath.Join(c.dir, "away"), documents[0]))
	if out := c.must(t, "rds", "drill", "--due", "7d"); !strings.HasPrefix(out, "Not due") {
		t.Errorf("the evidence is back: %s", out)
	}
}

// Package contrib_test holds what lies in contrib/ to what its README says.
package contrib_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

// programVariable names the program that the tests run, for the process that
// servertest starts under another account.
const programVariable = "CONTRIB_TEST_PROGRAM"

// TestMain builds the program while the build cache is at hand, and runs the
// tests in a process that knows where it lies.
func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		servertest.Main(m, nil)
	}
	code, err := withProgram()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withProgram() (int, error) {
	dir, err := os.MkdirTemp("", "contrib")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	program := filepath.Join(dir, "lifeboat")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../cmd/lifeboat")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the program: %w: %s", err, out)
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), programVariable+"="+program)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tool is the path of a program that not every machine has.
func tool(t *testing.T, name, from string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (%s)", name, from)
	}
	return path
}

// Every file is in the README, so nobody finds one without its "what to change".
func TestReadmeNamesEveryFile(t *testing.T) {
	readme := read(t, "README.md")
	for _, pattern := range []string{"systemd/*", "cron/*", "ci/*", "kubernetes/*", "prometheus/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			if !strings.Contains(readme, "`"+filepath.ToSlash(f)+"`") {
				t.Errorf("README.md does not name %s", f)
			}
		}
	}
}

// yamlOf reads the documents of a file. A key that comes twice is an error.
func yamlOf(t *testing.T, name string) []map[string]any {
	t.Helper()
	var docs []map[string]any
	dec := yaml.NewDecoder(strings.NewReader(read(t, name)))
	for {
		var doc map[string]any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, doc)
	}
}

// at follows a path of keys and numbers through a document.
func at(t *testing.T, doc any, path ...any) any {
	t.Helper()
	for i, step := range path {
		switch s := step.(type) {
		case string:
			m, ok := doc.(map[string]any)
			if !ok || m[s] == nil {
				t.Fatalf("there is no %v", path[:i+1])
			}
			doc = m[s]
		case int:
			l, ok := doc.([]any)
			if !ok || len(l) <= s {
				t.Fatalf("there is no %v", path[:i+1])
			}
			doc = l[s]
		}
	}
	return doc
}

func want(t *testing.T, doc any, value any, path ...any) {
	t.Helper()
	if got := at(t, doc, path...); fmt.Sprint(got) != fmt.Sprint(value) {
		t.Errorf("%v is %v, want %v", path, got, value)
	}
}

// length reads a length of time as the configuration has it.
func length(t *testing.T, v any) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(fmt.Sprint(v))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestKubernetes(t *testing.T) {
	docs := yamlOf(t, "kubernetes/drill.yaml")
	if len(docs) != 2 {
		t.Fatalf("%d documents, want a CronJob and a NetworkPolicy", len(docs))
	}
	job, policy := docs[0], docs[1]
	want(t, job, "batch/v1", "apiVersion")
	want(t, job, "CronJob", "kind")
	want(t, job, "Forbid", "spec", "concurrencyPolicy")
	at(t, job, "spec", "startingDeadlineSeconds")
	spec := at(t, job, "spec", "jobTemplate", "spec")
	want(t, spec, 0, "backoffLimit")
	pod := at(t, spec, "template", "spec")
	want(t, pod, "Never", "restartPolicy")
	want(t, pod, true, "securityContext", "runAsNonRoot")
	want(t, pod, "RuntimeDefault", "securityContext", "seccompProfile", "type")
	c := at(t, pod, "containers", 0)
	want(t, c, false, "securityContext", "allowPrivilegeEscalation")
	want(t, c, true, "securityContext", "readOnlyRootFilesystem")
	want(t, c, "[ALL]", "securityContext", "capabilities", "drop")

	env := map[string]string{}
	for i := range at(t, c, "env").([]any) {
		env[at(t, c, "env", i, "name").(string)] = at(t, c, "env", i, "value").(string)
	}
	own := length(t, env["LIFEBOAT_DRILL_TIMEOUT"])
	if limit := time.Duration(at(t, spec, "activeDeadlineSeconds").(int)) * time.Second; limit < own+30*time.Minute {
		t.Errorf("Kubernetes ends the job after %s, the drill ends by itself after %s", limit, own)
	}
	if grace := at(t, pod, "terminationGracePeriodSeconds").(int); grace < 330 {
		t.Errorf("%d s are too little to clean up in: it may take five minutes", grace)
	}
	mounts := map[string]bool{}
	for i := range at(t, c, "volumeMounts").([]any) {
		mounts[at(t, c, "volumeMounts", i, "mountPath").(string)] = true
	}
	for _, path := range []string{env["LIFEBOAT_DRILL_STAGING"], filepath.Dir(env["LIFEBOAT_DRILL_KEY"]), env["TMPDIR"]} {
		if !mounts[path] {
			t.Errorf("nothing is mounted at %s", path)
		}
	}
	command := at(t, c, "command").([]any)
	checkDrillFlags(t, fmt.Sprint(command[1:]))

	want(t, policy, "NetworkPolicy", "kind")
	want(t, policy, "[Ingress Egress]", "spec", "policyTypes")
	if a, b := at(t, policy, "spec", "podSelector", "matchLabels"), at(t, spec, "template", "metadata", "labels"); fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("the policy is for %v, the pod is %v", a, b)
	}
}

// checkDrillFlags makes sure that the program knows every flag of a command.
func checkDrillFlags(t *testing.T, command string) {
	t.Helper()
	out, err := exec.Command(os.Getenv(programVariable), "drill", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range regexp.MustCompile(`--[a-z-]+`).FindAllString(command, -1) {
		if name != "--drill-key" && !regexp.MustCompile(regexp.QuoteMeta(name)+`\b`).Match(out) {
			t.Errorf("lifeboat drill has no flag %s", name)
		}
	}
}

// Variables of the configuration are refused when they are misspelt, so those of
// the jobs are tried on the program.
func checkVariables(t *testing.T, env map[string]any) {
	t.Helper()
	cmd := exec.Command(os.Getenv(programVariable), "config")
	cmd.Dir, cmd.Env = t.TempDir(), []string{}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+fmt.Sprint(value))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestGitHub(t *testing.T) {
	doc := yamlOf(t, "ci/github.yml")[0]
	job := at(t, doc, "jobs", "drill")
	at(t, doc, "on", "schedule", 0, "cron")
	want(t, doc, false, "concurrency", "cancel-in-progress")
	env := at(t, job, "env").(map[string]any)
	checkVariables(t, env)
	if limit := time.Duration(at(t, job, "timeout-minutes").(int)) * time.Minute; limit < length(t, env["LIFEBOAT_DRILL_TIMEOUT"])+30*time.Minute {
		t.Errorf("the job is ended after %s", limit)
	}
	ran := 0
	for i := range at(t, job, "steps").([]any) {
		step := at(t, job, "steps", i).(map[string]any)
		if script, ok := step["run"].(string); ok {
			ran++
			if strings.Contains(script, "${{") {
				t.Errorf("an expression stands in a script, where its value would be run: %s", script)
			}
			checkShell(t, "bash", script)
			checkDrillLines(t, script)
		}
	}
	if ran < 3 {
		t.Errorf("only %d scripts", ran)
	}
}

func TestGitLab(t *testing.T) {
	job := at(t, yamlOf(t, "ci/gitlab.yml")[0], "restore-drill")
	want(t, job, false, "interruptible")
	want(t, job, 0, "retry")
	at(t, job, "resource_group")
	want(t, job, "always", "artifacts", "when")
	want(t, job, "report/drill.xml", "artifacts", "reports", "junit")
	env := at(t, job, "variables").(map[string]any)
	checkVariables(t, env)
	if limit := length(t, at(t, job, "timeout")); limit < length(t, env["LIFEBOAT_DRILL_TIMEOUT"])+30*time.Minute {
		t.Errorf("the job is ended after %s", limit)
	}
	for _, part := range []string{"before_script", "script"} {
		var lines []string
		for _, line := range at(t, job, part).([]any) {
			lines = append(lines, line.(string))
		}
		script := strings.Join(lines, "\n")
		checkShell(t, "bash", script)
		checkDrillLines(t, script)
	}
}

func checkDrillLines(t *testing.T, script string) {
	for line := range strings.Lines(script) {
		if _, command, ok := strings.Cut(line, "lifeboat drill "); ok {
			checkDrillFlags(t, command)
		}
	}
}

// checkShell has a script parsed, and looked at by shellcheck where it is.
func checkShell(t *testing.T, shell, script string) {
	t.Helper()
	cmd := exec.Command(shell, "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s -n: %v: %s\n%s", shell, err, out, script)
	}
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Log("shellcheck is not installed (make test installs it): only parsed")
		return
	}
	cmd = exec.Command(path, "--shell="+shell, "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNotifyScript(t *testing.T) { checkShell(t, "sh", read(t, "systemd/notify")) }

// Every metric in the rules is one that a drill writes, and so is each label
// that a summary shows.
func TestRules(t *testing.T) {
	written := sampleMetrics(t)
	doc := yamlOf(t, "prometheus/lifeboat.rules.yml")[0]
	alerts := map[string]bool{}
	for i := range at(t, doc, "groups", 0, "rules").([]any) {
		rule := at(t, doc, "groups", 0, "rules", i)
		name, expr := at(t, rule, "alert").(string), at(t, rule, "expr").(string)
		at(t, rule, "labels", "severity")
		summary := at(t, rule, "annotations", "summary").(string)
		alerts[name] = true
		metrics := regexp.MustCompile(`lifeboat_[a-z_]+`).FindAllString(expr, -1)
		if len(metrics) == 0 {
			t.Errorf("%s looks at no metric", name)
		}
		for _, m := range metrics {
			series := regexp.MustCompile(`(?m)^` + m + `\{.*\}`).FindString(written)
			if series == "" {
				t.Errorf("%s: no drill writes %s", name, m)
			}
			for _, l := range regexp.MustCompile(`\$labels\.([a-z]+)`).FindAllStringSubmatch(summary, -1) {
				if !strings.Contains(series, l[1]+`="`) {
					t.Errorf("%s: %s has no label %s", name, m, l[1])
				}
			}
		}
	}
	for _, name := range []string{"LifeboatDrillStale", "LifeboatDrillFailed", "LifeboatMetricsAbsent"} {
		if !alerts[name] {
			t.Errorf("there is no alert %s", name)
		}
	}
	promtool := tool(t, "promtool", "in Prometheus; the rules were tried with the one of 2.42")
	for _, args := range [][]string{{"check", "rules", "lifeboat.rules.yml"}, {"test", "rules", "lifeboat.test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v: %s", args, err, out)
		}
	}
}

// sampleMetrics is what a history of one drill with everything writes.
func sampleMetrics(t *testing.T) string {
	t.Helper()
	k, err := repo.NewHostKey("orders", strings.Repeat("ab", 16))
	if err != nil {
		t.Fatal(err)
	}
	began, second := time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC), 1.0
	d := &evidence.Drill{
		Schema: evidence.Schema, ID: evidence.NewID(began), Repository: strings.Repeat("ab", 16), Cluster: "orders",
		Started: began, Ended: began.Add(time.Minute), Level: evidence.Standard, Verdict: evidence.Passed,
		RPO:    evidence.RPO{Upper: &second, Objective: &second, Verdict: evidence.Passed},
		RTO:    evidence.RTO{Achieved: &second, Objective: &second, Verdict: evidence.Passed},
		Checks: []evidence.Check{{Name: "c", Required: true, Verdict: evidence.Passed}},
		RDS:    &evidence.RDS{Source: "orders"},
	}
	doc, err := evidence.Sign(d, *k.Signing)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	h := report.NewHistory("orders", []evidence.Entry{{ID: d.ID, Doc: doc}}, []repo.PublicKey{k.Signing.Public()}, time.Time{}, began.Add(time.Hour))
	if err := h.Prometheus(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

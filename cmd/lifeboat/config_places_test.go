package main

import (
	"os"
	"strings"
	"testing"
)

// What is mistyped in a list of repositories is told with its line.
func TestRepositoriesMistyped(t *testing.T) {
	t.Parallel()
	const good = "repositories:\n  - name: near\n    url: file:///srv/near\n  - name: far\n    url: s3://bucket/far\n    s3:\n      region: eu-central-1\n"
	dir := t.TempDir()
	file := write(t, dir, "lifeboat.yaml", good)
	cfg, _, err := load(t, dir, nil, nil)
	if err != nil || !cfg.several() || cfg.Name != "near" || cfg.Repository != "file:///srv/near" || cfg.each()[1].S3.Region != "eu-central-1" || cfg.S3.Region != "" {
		t.Fatalf("%+v, %v", cfg, err)
	}
	for _, how := range [][2][]string{{nil, {"--repository", "far"}}, {{"LIFEBOAT_REPOSITORY=far"}, nil}, {{"LIFEBOAT_REPOSITORY=near"}, {"--repository=far"}}} {
		cfg, _, err := load(t, dir, how[0], how[1])
		if err != nil || cfg.several() || cfg.Name != "far" || cfg.S3.Region != "eu-central-1" {
			t.Errorf("%v: %+v, %v", how, cfg, err)
		}
	}
	cfg, _, err = load(t, dir, []string{"LIFEBOAT_S3_REGION=us-east-1"}, []string{"--repository", "s3://other/place"})
	if err != nil || cfg.several() || cfg.Name != "" || cfg.Repository != "s3://other/place" || cfg.S3.Region != "us-east-1" {
		t.Errorf("%+v, %v", cfg, err)
	}

	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for text, want := range map[string]string{
		replace("name: far", "name: near"):                     "two repositories are called \"near\" and \"near\"",
		replace("name: far", "name: Far"):                      ":4: \"Far\" cannot name a repository",
		replace("  - name: far\n    url", "  - url"):           "a repository has no name",
		replace("    url: file:///srv/near\n", ""):             "repository near has no url",
		replace("file:///srv/near", "/srv/near"):               ":3: repository: \"/srv/near\" is a path",
		replace("    s3:", "    s4:"):                          ":6: unknown key \"s4\" of a repository",
		replace("region:", "regoin:"):                          ":7: unknown key \"s3.regoin\"",
		replace("region: eu-central-1", "path_style: 7"):       ":7: s3.path_style: \"7\" is neither true nor false",
		replace("s3://bucket/far", "file:///srv/./near/"):      "the repositories near and far are the same place",
		good + "repository: file:///srv/one\n":                 "repository and repositories are both set",
		good + "s3:\n  region: us-east-1\n":                    "s3.region does not count for a list of repositories",
		replace("    url: file", "    name: n\n    url: file"): "a repository has name twice",
		"repositories: file:///srv/near\n":                     "repositories must be a list",
		"repositories: []\n":                                   "repositories must be a list",
		"repositories:\n  - file:///srv/near\n":                "a repository must be a list of \"key: value\" lines",
		"repository:\n  - a\n":                                 "repository must be a single value",
	} {
		write(t, dir, "lifeboat.yaml", text)
		_, _, err := load(t, dir, nil, nil)
		if code, hint := classify(err); err == nil || code != exitUsage || hint == "" && !strings.Contains(text, "Far") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, hint %q, want %q", text, err, hint, want)
		}
		if err != nil && !strings.Contains(err.Error(), file) && !strings.Contains(want, "count") {
			t.Errorf("the file is not named: %v", err)
		}
	}
	// A list whose names - and _ alone tell apart would share a replication slot.
	write(t, dir, "lifeboat.yaml", replace("name: near", "name: f-r")+"  - name: f_r\n    url: file:///srv/third\n")
	if _, _, err := load(t, dir, nil, nil); err == nil || !strings.Contains(err.Error(), "two repositories") {
		t.Errorf("%v", err)
	}
}

// The list that is edited keeps every other line; what cannot be edited safely is
// left to a person.
func TestEditList(t *testing.T) {
	t.Parallel()
	second := "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
	for text, want := range map[string]string{
		"# a\nrecipients:\n  # the team\n  - " + testRecipient + " # on call\njobs: 2\n": "# a\nrecipients:\n  # the team\n  - " + testRecipient + " # on call\n  - " + second + "\njobs: 2\n",
		"recipients:\n- " + testRecipient:                                                "recipients:\n- " + testRecipient + "\n- " + second + "\n",
		"recipients: [" + testRecipient + "]\n":                                          "",
		"recipients: " + testRecipient + "\n":                                            "",
		"jobs: 2\nrecipients:\n  -\n    " + testRecipient + "\njobs:\n":                  "",
	} {
		dir := t.TempDir()
		file := write(t, dir, "lifeboat.yaml", text)
		err := editList(file, "recipients", []string{testRecipient}, []string{testRecipient, second})
		got := read(t, file)
		switch {
		case want == "" && (err == nil || got != text):
			t.Errorf("%q became %q, %v", text, got, err)
		case want != "" && (err != nil || got != want):
			t.Errorf("%q became %q, %v", text, got, err)
		}
		if want == "" || err != nil {
			continue
		}
		if err := editList(file, "recipients", []string{testRecipient, second}, []string{second}); err != nil || strings.Contains(read(t, file), testRecipient) || !strings.Contains(read(t, file), second) {
			t.Errorf("%q, %v", read(t, file), err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

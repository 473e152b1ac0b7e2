package main

import (
	"os"
	"strings"
	"testing"
)

func TestURLParameters(t *testing.T) {
	const conflict = "conflict"
	for _, c := range []struct {
		name, file, environ, args, want string // want: region, and where from
	}{
		{"url alone", "repository: s3://b/p?region=u", "", "", "u, in the URL"},
		{"same", "repository: s3://b/p?region=u\ns3: {region: u}", "", "", "u, in the URL"},
		{"differ in one place", "repository: s3://b/p?region=u\ns3: {region: k}", "", "", conflict},
		{"env key beats file url", "repository: s3://b/p?region=u", "LIFEBOAT_S3_REGION=e", "", "e env LIFEBOAT_S3_REGION"},
		{"flag url beats file key", "s3: {region: k}", "", "--repository s3://b/p?region=u", "u, in the URL"},
		{"flag url, file key of another bucket", "repository: s3://c?region=c", "", "--repository s3://b/p", ""},
		{"flag url and flag key", "", "", "--repository s3://b/p?region=u --s3-region k", conflict},
		{"file key alone", "repository: s3://b/p\ns3: {region: k}", "", "", "k"},
	} {
		dir := t.TempDir()
		write(t, dir, "lifeboat.yaml", c.file+"\n")
		var environ []string
		if c.environ != "" {
			environ = []string{c.environ}
		}
		cfg, _, err := load(t, dir, environ, strings.Fields(c.args))
		if c.want == conflict {
			if err == nil || !strings.Contains(err.Error(), `s3.region is "u" in the repository URL, and "k" in`) {
				t.Errorf("%s: %v, want a conflict", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := cfg.S3.Region
		switch o, ok := cfg.origins["s3.region"]; {
		case ok && o.url:
			got += ", in the URL"
		case ok && o.kind != originFile:
			got += " " + o.String()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if strings.Contains(cfg.Repository, "?") {
			t.Errorf("%s: repository %s still has its parameters", c.name, cfg.Repository)
		}
	}
}

func TestParseRepository(t *testing.T) {
	for in, want := range map[string]string{
		"file:///a/b":                "file:///a/b",
		"file:///a/../b/":            "file:///b",
		"file:///a%20b":              "file:///a%20b",
		"s3://bucket":                "s3://bucket",
		"s3://bucket/":               "s3://bucket",
		"s3://bucket/a/b/?region=x":  "s3://bucket/a/b",
		"file:///":                   "error",
		"file://backups/x":           "error",
		"file:x":                     "error",
		"file:///x?region=y":         "error",
		"s3:///prefix":               "error",
		"s3://b/../x":                "error",
		"s3://b/p#x":                 "error",
		"s3://b/p?region=a&region=b": "error",
		"s3://key:secret@b/p":        "error",
		"https://example/x":          "error",
		"backups":                    "error",
		"":                           "error",
		"s3://b/%zz":                 "error",
	} {
		got := "error"
		if l, err := parseRepository(in); err == nil {
			got = l.url()
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the secret: %v", in, err)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestMaskConn(t *testing.T) {
	for in, want := range map[string]string{
		"":                                        "",
		"host=/run dbname=postgres":               "host=/run dbname=postgres",
		"host=h password=s3cret user=u":           "host=h password=******** user=u",
		"password = 's3 cr\\'et' user=u":          "password = ******** user=u",
		"PASSWORD=s3cret":                         "PASSWORD=********",
		"password=s3\\ cret user=u":               "password=******** user=u",
		"sslpassword=s3cret":                      "sslpassword=********",
		"password='s3cret":                        "********",
		"host=h password=":                        "host=h password=********",
		"host=h password= s3cret":                 "host=h password= ********",
		"password=s3'cr'et user=u":                "password=******** user=u",
		"oauth_client_secret=s3cret":              "oauth_client_secret=********",
		"dbname=postgres://u:s3cret@h/db":         "dbname=********",
		"host=/run user=o'brien":                  "host=/run user=o'brien",
		"dbname=passwords":                        "dbname=passwords",
		"postgresql://h/db":                       "postgresql://h/db",
		"postgresql://u@h/db":                     "postgresql://u@h/db",
		"postgresql://u:s3cret@h/db":              "postgresql://u:********@h/db",
		"postgres://u:s3@cret@h:1,i:2/db?x=y":     "postgres://u:********@h:1,i:2/db?x=y",
		"postgres://h/db?user=u&password=s3cret":  "postgres://h/db?user=u&password=********",
		"postgres://h?sslpassword=s3cret&x=y":     "postgres://h?sslpassword=********&x=y",
		"postgres://u:s3/cret@h/db":               "********",
		"postgres://u:s3cret@h/db?password=s3cre": "postgres://u:********@h/db?password=********",
		"postgres://u@[::1]:5432,h/db?user=a@b":   "postgres://u@[::1]:5432,h/db?user=a@b",
		// What is neither is hidden whole.
		"u:s3cret@h/db":                    "********",
		"u:s3cret@h/db?sslmode=disable":    "********",
		"POSTGRES://u:s3cret@h/db?a=b":     "********",
		"mysql://u:s3cret@h/db":            "********",
		"host=h s3cret":                    "********",
		"host=h s3 cret=x":                 "********",
		"s3cret":                           "********",
		"host=h 'password=s3cret'":         "********",
		"postgres://u:s3cret/db":           "********",
		"postgres://u:12/s3cret@h/db?a=b":  "********",
		"postgres://u:12?s3cret@h/db":      "********",
		"postgres://u:12#s3cret@h/db":      "********",
		"postgres://u:s3cret,h/db":         "********",
		"postgres://h/db?a=b&s3cret":       "********",
		"postgres://u:s3?cret=x@h/db?y&z=": "********",
	} {
		if got := maskConn(in); got != want {
			t.Errorf("maskConn(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPasswordWarning(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "lifeboat.yaml", "conn: host=h password=s3cret\n")
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: true, 0o644: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, stderr, err := load(t, dir, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.HasPrefix(stderr, "lifeboat: warning: "+file+":1: conn holds a password"); got != warned || !warned && stderr != "" {
			t.Errorf("mode %04o: stderr %q, want a warning: %t", mode, stderr, warned)
		}
		if strings.Contains(stderr, "s3cret") {
			t.Errorf("mode %04o: the warning shows the password", mode)
		}
	}
	if _, stderr, _ := load(t, dir, []string{"LIFEBOAT_CONN="}, []string{"--conn", "u:s3cret@h"}); strings.Contains(stderr, "password") {
		t.Errorf("a warning of a password that nobody can tell is there: %q", stderr)
	}
	if _, stderr, _ := load(t, dir, nil, []string{"--conn", "password=s3cret"}); !strings.Contains(stderr, "--conn") {
		t.Errorf("no warning of a password in a flag: %q", stderr)
	}
}

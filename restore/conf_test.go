package restore

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func TestRewriteAutoConf(t *testing.T) {
	t.Parallel()
	settings := []Setting{{"restore_command", `a 'b' \c`}, {"recovery_target_time", ""}}
	block := blockBegin + "\nrestore_command = 'a ''b'' \\\\c'\nrecovery_target_time = ''\n" + blockEnd + "\n"
	for _, c := range []struct{ old, want string }{
		{"", block},
		{"work_mem = '1MB'", "work_mem = '1MB'\n" + block},
		{"# a comment\n\nwork_mem '1MB'\r\n", "# a comment\n\nwork_mem '1MB'\n" + block},
		{"  RESTORE_COMMAND='x'\nrestore_command 'x'\nrestore_command\nx.y = 1\n", "x.y = 1\n" + block},
		{"restore_commander = 1\n# restore_command = 'x'\n", "restore_commander = 1\n# restore_command = 'x'\n" + block},
		{"a = 1\n" + block + "b = 2\n", "a = 1\nb = 2\n" + block},
	} {
		if got := rewriteAutoConf(c.old, settings); got != c.want {
			t.Errorf("%q became\n%s\nwant\n%s", c.old, got, c.want)
		}
		if again := rewriteAutoConf(c.want, settings); again != c.want && !strings.Contains(c.old, block) {
			t.Errorf("a second time changes %q to %q", c.want, again)
		}
	}
}

// substitute does what BuildRestoreCommand does.
func substitute(command string) string {
	return strings.NewReplacer("%%", "%", "%f", "000000010000000000000001", "%p", "pg_wal/RECOVERYXLOG").Replace(command)
}

// unquote does what the configuration file's reader does.
func unquote(s string) string {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'")
	return strings.NewReplacer("''", "'", `\\`, `\`).Replace(s)
}

// Whatever words the command is made of, the shell that PostgreSQL starts gives
// them to the program one by one, as they were.
func FuzzRestoreCommand(f *testing.F) {
	for _, s := range []string{"/usr/bin/lifeboat", "", " ", "it's", `a"b`, "$HOME `id` $(id)", "100%", "%f%p%%", `back\slash\`, "ä ö", "*", "~", "-c", "a=b", "#x", "!", "{a,b}", "a;b|c&d<e>f"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		command, err := postgres.CommandLine([]string{"printf", `%s\n`, a, b}, "%f", "%p")
		if err != nil {
			if !hasControl(a) && !hasControl(b) {
				t.Errorf("%q, %q: %v", a, b, err)
			}
			return
		}
		line := substitute(unquote(quoteSetting(command)))
		out, err := exec.Command("/bin/sh", "-c", line).Output()
		want := a + "\n" + b + "\n000000010000000000000001\npg_wal/RECOVERYXLOG\n"
		if err != nil || string(out) != want {
			t.Errorf("%s\ngave %q, want %q (%v)", line, out, want, err)
		}
	})
}

func TestParseMapping(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Mapping{
		"/a=/b":       {"/a", "/b"},
		"16400=/b":    {"16400", "/b"},
		`/a\=x=/b\=y`: {"/a=x", "/b=y"},
		`/a\x=/b`:     {`/a\x`, "/b"},
	} {
		if got, err := ParseMapping(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "/a", "=/b", "/a=", "/a=/b=/c"} {
		if got, err := ParseMapping(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

func TestSetsDataDirectory(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": false, "# data_directory = 'x'": false, "data_directory='x'": true, "a=1\r\n\tDATA_DIRECTORY 'x'": true, "data_directory_mode = 0700": false,
	} {
		if setsDataDirectory(text) != want {
			t.Errorf("%q: not %t", text, want)
		}
	}
}

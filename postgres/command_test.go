package postgres_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// awkward are words that a shell or PostgreSQL would take apart.
var awkward = []string{
	"plain", "", "two words", "it's", `"double"`, "$HOME", "`id`", "a;b", "back\\slash", "100%", "%p", "*", "~", "ümlaut", "-x", "a=b", "#",
}

func TestShellWordReachesTheProgramAsItIs(t *testing.T) {
	for _, word := range awkward {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+postgres.ShellWord(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("ShellWord(%q) = %s: the shell made %q of it, %v", word, postgres.ShellWord(word), out, err)
		}
	}
	if got := postgres.ShellWord("/usr/bin/lifeboat"); got != "/usr/bin/lifeboat" {
		t.Errorf("a plain path was quoted: %s", got)
	}
}

func TestCommandLine(t *testing.T) {
	for _, word := range awkward {
		line, err := postgres.CommandLine([]string{"printf", "%s|%s", word}, "%p")
		if err != nil {
			t.Fatal(err)
		}
		// As the server does (percentrepl.c): %% is one %, %p the path.
		filled := strings.NewReplacer("%%", "%", "%p", "pg_wal/000000010000000000000001").Replace(line)
		out, err := exec.Command("/bin/sh", "-c", filled).Output()
		if want := word + "|pg_wal/000000010000000000000001"; err != nil || string(out) != want {
			t.Errorf("%s: printed %q, want %q (%v)", line, out, want, err)
		}
	}
}

func TestCommandLineRefuses(t *testing.T) {
	for _, program := range [][]string{nil, {"lifeboat", "a\nb"}, {"a\x00b"}} {
		if line, err := postgres.CommandLine(program, "%p"); err == nil {
			t.Errorf("CommandLine(%q) = %q", program, line)
		}
	}
}

package restore

import (
	"os/exec"
	"strings"
	"testing"
)

// The flags are typed into a shell as they are, and read again as they were meant,
// whatever a manifest calls a directory.
func TestWordFlags(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/srv/fast", "/srv/a b", "/srv/$(id >&2)", "/srv/`id`", "/srv/it's", "/srv/x; reboot", "/srv/a=b", "/srv/é"} {
		e := &WordError{Wanted: []Unnamed{{OID: 16400, Path: path}}}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf '%s\\n' "+e.Flags()).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if len(lines) != 2 || lines[0] != "--tablespace" {
			t.Errorf("%s: the shell reads %q", path, lines)
			continue
		}
		if m, err := ParseMapping(lines[1]); err != nil || m != (Mapping{"16400", path}) {
			t.Errorf("%s: read as %v, %v", path, m, err)
		}
	}
}

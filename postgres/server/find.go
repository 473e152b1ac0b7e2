package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Install is the set of server programs of one PostgreSQL version.
type Install struct {
	BinDir  string // absolute
	Major   int    // 15
	Version string // as the program prints it: "15.14", "18beta1"
}

// Path is the path of one of the installation's programs. It need not exist:
// client programs are often packaged apart.
func (in Install) Path(program string) string { return filepath.Join(in.BinDir, program) }

// FindError says that no installation was found, and where Find looked.
type FindError struct {
	Major  int      // the version wanted; 0 stands for any
	Looked []string // one entry for each place, with what was found there
}

func (e *FindError) Error() string {
	want := "PostgreSQL"
	if e.Major > 0 {
		want = fmt.Sprintf("PostgreSQL %d", e.Major)
	}
	return fmt.Sprintf("no server programs (postgres, initdb) of %s found; looked in %s",
		want, strings.Join(e.Looked, ", "))
}

// Find returns the installation of a major version; 0 takes the first found.
// With bindir it looks in that directory alone. Otherwise in this order: where
// pg_config says, the directories of PATH, and the places where distributions put
// each major version. When there is none the error is a *FindError.
func Find(major int, bindir string) (Install, error) {
	places := []string{bindir}
	if bindir == "" {
		places = candidates(major)
	}
	missing := &FindError{Major: major}
	seen := map[string]bool{}
	for _, dir := range places {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return Install{}, err
		}
		if seen[abs] {
			continue
		}
		seen[abs] = true
		in, err := inspect(abs)
		switch {
		case errors.Is(err, fs.ErrNotExist) && bindir == "":
			missing.Looked = append(missing.Looked, abs)
		case err != nil:
			missing.Looked = append(missing.Looked, fmt.Sprintf("%s (%v)", abs, err))
		case major > 0 && in.Major != major:
			missing.Looked = append(missing.Looked, fmt.Sprintf("%s (that is %s)", abs, in.Version))
		default:
			return in, nil
		}
	}
	return Install{}, missing
}

// inspect asks the programs in one directory for their version. Both must be
// there: distributions that package clients apart leave a directory with neither.
func inspect(dir string) (Install, error) {
	in := Install{BinDir: dir}
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(in.Path(program)); err != nil {
			return in, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, in.Path("postgres"), "--version").Output()
	if err != nil {
		return in, fmt.Errorf("postgres --version: %w", err)
	}
	in.Version, in.Major, err = parseVersion(string(out))
	return in, err
}

// parseVersion reads what "postgres --version" prints, such as
// "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", "… 18beta1", "… 19devel".
func parseVersion(out string) (version string, major int, err error) {
	_, rest, ok := strings.Cut(out, "(PostgreSQL) ")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return "", 0, fmt.Errorf("postgres --version printed %q", strings.TrimSpace(out))
	}
	version = fields[0]
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(version)
	}
	if major, err = strconv.Atoi(version[:digits]); err != nil {
		return "", 0, fmt.Errorf("postgres --version printed %q", strings.TrimSpace(out))
	}
	return version, major, nil
}

// newestMajor is the newest major version looked for when any will do.
const newestMajor = 30

// candidates lists the directories that may hold the programs, the likeliest first.
func candidates(major int) []string {
	var dirs []string
	majors := []int{major}
	if major == 0 {
		majors = nil
		for m := newestMajor; m >= 13; m-- {
			majors = append(majors, m)
		}
	}
	if dir := pgConfigBinDir(); dir != "" {
		dirs = append(dirs, dir)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, m := range majors {
		for _, pattern := range layouts {
			dir := strings.ReplaceAll(pattern, "MAJOR", strconv.Itoa(m))
			if _, err := os.Stat(dir); major == 0 && err != nil {
				continue // keep the list of places in the error readable
			}
			dirs = append(dirs, dir)
		}
	}
	return append(dirs, "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin")
}

// layouts are the directories where packagers put one major version.
var layouts = [...]string{
	"/usr/lib/postgresql/MAJOR/bin",                          // Debian, Ubuntu
	"/usr/pgsql-MAJOR/bin",                                   // PGDG's packages for RHEL, Fedora, SUSE
	"/usr/lib/postgresqlMAJOR/bin",                           // openSUSE
	"/usr/libexec/postgresqlMAJOR",                           // Alpine
	"/usr/lib64/postgresql-MAJOR/bin",                        // Gentoo
	"/opt/homebrew/opt/postgresql@MAJOR/bin",                 // Homebrew on arm64
	"/usr/local/opt/postgresql@MAJOR/bin",                    // Homebrew on amd64
	"/opt/local/lib/postgresqlMAJOR/bin",                     // MacPorts
	"/Applications/Postgres.app/Contents/Versions/MAJOR/bin", // Postgres.app
	"/Library/PostgreSQL/MAJOR/bin",                          // EDB's installer on macOS
	"/opt/PostgreSQL/MAJOR/bin",                              // EDB's installer on Linux
}

// pgConfigBinDir asks the pg_config in PATH, if there is one. Debian's wrapper
// answers for the newest server-dev package or the default version, which need
// not be the one wanted: Find checks the version of what lies there.
func pgConfigBinDir() string {
	path, err := exec.LookPath("pg_config")
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--bindir").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || !filepath.IsAbs(dir) {
		return ""
	}
	return dir
}

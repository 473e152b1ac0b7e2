package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// layoutOf is the layout of a manifest with these file records.
func layoutOf(entries []repo.FileEntry, spaces []Tablespace) (*layout, error) {
	files, err := repo.NewFiles(len(entries), slices.Values(entries))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsafeManifest, err) // no manifest with them is opened
	}
	return newLayout(files, spaces)
}

// hostile are file lists that must not be restored: each entry is added to, or
// replaces one of, an honest list.
func TestLayoutRefuses(t *testing.T) {
	t.Parallel()
	file := func(p string) repo.FileEntry {
		return repo.FileEntry{Type: repo.Regular, Path: p, Mode: 0o600, Size: 1}
	}
	dir := func(p string) repo.FileEntry { return repo.FileEntry{Type: repo.Dir, Path: p, Mode: 0o700} }
	honest := []repo.FileEntry{dir("global"), file("global/pg_control"), dir("base"), file("base/1"), dir("pg_tblspc")}
	spaces := []Tablespace{{OID: 16400, To: "/ts"}, {OID: 16401, InPlace: true}}
	if _, err := layoutOf(honest, spaces); err != nil {
		t.Fatal(err)
	}
	link := repo.FileEntry{Type: "link", Path: "base/link", Mode: 0o777}
	for name, add := range map[string][]repo.FileEntry{
		"parent":                           {file("../x")},
		"parent alone":                     {dir("..")},
		"parent within":                    {file("base/../../x")},
		"parent that stays inside":         {file("base/../x")},
		"absolute":                         {file("/etc/passwd")},
		"the directory itself":             {dir(".")},
		"empty":                            {file("")},
		"slash at the end":                 {file("base/")},
		"double slash":                     {file("base//2")},
		"zero byte":                        {file("base/\x00")},
		"setuid":                           {{Type: repo.Regular, Path: "base/2", Mode: 0o4755}},
		"negative size":                    {{Type: repo.Regular, Path: "base/2", Mode: 0o600, Size: -1}},
		"device":                           {{Type: "device", Path: "base/2", Mode: 0o600}},
		"twice":                            {file("base/1")},
		"twice as another kind":            {dir("base/1")},
		"below a file":                     {file("base/1/x")},
		"in a directory that is not there": {file("nowhere/x")},
		"link":                             {link},
		"below a link":                     {link, file("base/link/passwd")},
		"unknown tablespace":               {dir("pg_tblspc/16402"), file("pg_tblspc/16402/x")},
		"no number":                        {dir("pg_tblspc/x")},
		"leading zero":                     {dir("pg_tblspc/016400")},
		"tablespace that is a file":        {file("pg_tblspc/16400")},
		"file in pg_tblspc":                {file("pg_tblspc/readme")},
		"directory missing in tablespace":  {file("pg_tblspc/16400/PG_15_202209061/1")},
		"directory missing in place":       {file("pg_tblspc/16401/PG_15_202209061/1")},
		"a key in a tablespace":            {file("pg_tblspc/16400/authorized_keys")},
		"a directory in a tablespace":      {dir("pg_tblspc/16400/.ssh")},
		"no version's directory":           {dir("pg_tblspc/16400/PG_15")},
	} {
		_, err := layoutOf(append(append([]repo.FileEntry{}, honest...), add...), spaces)
		if !errors.Is(err, ErrUnsafeManifest) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, list := range map[string][]repo.FileEntry{
		"no control file":             {dir("global")},
		"control file is a directory": {dir("global"), dir("global/pg_control")},
		"huge control file":           {dir("global"), {Type: repo.Regular, Path: "global/pg_control", Mode: 0o600, Size: 1 << 30}},
		"pg_tblspc is a file":         {dir("global"), file("global/pg_control"), file("pg_tblspc")},
	} {
		if _, err := layoutOf(list, spaces); !errors.Is(err, ErrUnsafeManifest) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestLayoutPlaces(t *testing.T) {
	t.Parallel()
	file := func(p string) repo.FileEntry {
		return repo.FileEntry{Type: repo.Regular, Path: p, Mode: 0o600, Size: 1}
	}
	dir := func(p string) repo.FileEntry { return repo.FileEntry{Type: repo.Dir, Path: p, Mode: 0o700} }
	const in = "PG_15_202209061"
	l, err := layoutOf([]repo.FileEntry{dir("global"), file("global/pg_control"), dir("pg_tblspc"),
		dir("pg_tblspc/16401"), dir("pg_tblspc/16401/" + in), dir("pg_tblspc/16402/" + in), dir("pg_tblspc/16400/" + in),
		dir("pg_tblspc/16401/" + in + "/5"), dir("pg_tblspc/16402/" + in + "/5"), dir("pg_tblspc/16400/" + in + "/5"),
		file("pg_tblspc/16401/" + in + "/5/1"), file("pg_tblspc/16402/" + in + "/5/PG_VERSION"), file("pg_tblspc/16400/" + in + "/5/t3_16384"),
		file("pg_tblspc/16400/" + in + "/5/authorized_keys"), file("pg_tblspc/16401/" + in + "/5/x.so"),
		dir("..data"), file("..data/x"), file("...")},
		[]Tablespace{{OID: 16400, To: "/a"}, {OID: 16401, InPlace: true}, {OID: 16402, To: "/b"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]place{10: {0, "pg_tblspc/16401/" + in + "/5/1"}, 11: {2, in + "/5/PG_VERSION"}, 12: {1, in + "/5/t3_16384"},
		16: {0, "..data/x"}, 17: {0, "..."}} {
		if got := l.target(i); got.place != want || got.skip {
			t.Errorf("%s goes to %+v, want %+v", got.path, got, want)
		}
	}
	// What is not PostgreSQL's in a tablespace is not written, and the plan says so.
	c := countFiles(l, repo.Info{Tablespaces: []repo.Tablespace{{OID: 16400, Path: "/a"}, {OID: 16401, InPlace: true}, {OID: 16402, Path: "/b"}}})
	p := &Plan{}
	p.addNotes(Target{KeepArchiving: true}, c)
	if c.Strays != 2 || !strings.Contains(strings.Join(p.Notes, ";"), `2 files in the directories of tablespaces are not PostgreSQL's and are left out, the first is "pg_tblspc/16400/`+in+`/5/authorized_keys"`) {
		t.Errorf("%+v, %q", c, p.Notes)
	}
	for _, i := range []int{13, 14} {
		if got := l.target(i); !got.skip {
			t.Errorf("%s is written", got.path)
		}
	}
}

// A signed manifest whose paths are fine one by one and not together.
func TestApplyRefusesUnsafeManifest(t *testing.T) {
	t.Parallel()
	r, _, _ := newTestRepo(t)
	info := build(t, r, backupA, smallTree(t), built{files: func(f []repo.FileEntry) []repo.FileEntry {
		return append(f, repo.FileEntry{Type: repo.Regular, Path: "base/1/1259/x", Mode: 0o600})
	}})
	p := planFor(info, t.TempDir())
	if err := Apply(context.Background(), r, p, Options{}); !errors.Is(err, ErrUnsafeManifest) || !damaged(err) {
		t.Errorf("error %v", err)
	}
	c, err := readContents(context.Background(), r, info)
	if err != nil || !errors.Is(c.Err, ErrUnsafeManifest) {
		t.Errorf("contents: %v, %v", c, err)
	}
	if got := names(t, p.DataDir); len(got) != 0 {
		t.Errorf("written: %v", got)
	}
}

// A restored file is written by nobody else than its owner and its group, and runs as no
// other account, whatever a manifest says; and a directory is open to the group only where
// initdb --allow-group-access has made it so.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		asked   uint32
		written fs.FileMode
		refused bool
	}{
		{0o600, 0o600, false}, {0o640, 0o640, false}, {0o660, 0o660, false}, {0o644, 0o644, false}, {0o755, 0o755, false},
		{0o666, 0o664, false}, {0o777, 0o775, false}, {0o602, 0o600, false}, {0o002, 0, false},
		{0o4755, 0, true}, {0o2755, 0, true}, {0o1777, 0, true}, {1 << 31, 0, true}, {uint32(fs.ModeSetuid) | 0o755, 0, true},
	} {
		for _, kind := range []repo.FileType{repo.Regular, repo.Dir} {
			entry := repo.FileEntry{Type: kind, Path: "x", Mode: c.asked}
			l, err := layoutOf([]repo.FileEntry{{Type: repo.Dir, Path: "global", Mode: 0o700}, {Type: repo.Regular, Path: "global/pg_control", Mode: 0o600}, entry}, nil)
			if (err != nil) != c.refused {
				t.Errorf("%s with mode %o: %v", kind, c.asked, err)
			}
			if err != nil {
				continue
			}
			got := l.target(2).mode
			if kind == repo.Dir {
				for f := range l.directories() {
					if f.name == "x" {
						got = f.mode
					}
				}
			}
			if got != c.written {
				t.Errorf("%s with mode %o is written with %o, want %o", kind, c.asked, got, c.written)
			}
		}
	}
	for asked, want := range map[uint32]fs.FileMode{0o600: 0o700, 0o640: 0o750, 0o604: 0o700, 0o660: 0o750, 0o777: 0o750} {
		l, err := layoutOf([]repo.FileEntry{{Type: repo.Dir, Path: "global", Mode: 0o777}, {Type: repo.Regular, Path: "global/pg_control", Mode: 0o600},
			{Type: repo.Regular, Path: "PG_VERSION", Mode: asked}}, nil)
		if err != nil || l.rootMode() != want {
			t.Errorf("with PG_VERSION of %o: %v", asked, err)
		}
	}
}

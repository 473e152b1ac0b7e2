package restore

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// placeTablespaces says where each tablespace goes: where it was, unless it is
// mapped; and which ones recovery will make, at paths that nobody can choose.
func (p *Plan) placeTablespaces(t Target, s *Survey) error {
	used := make([]bool, len(t.Tablespaces))
	for _, ts := range p.Backup.Tablespaces {
		place := Tablespace{OID: ts.OID, From: ts.Path, To: t.confined(ts.OID, ts.Path), InPlace: ts.InPlace}
		for i, m := range t.Tablespaces {
			if !m.isOf(ts.OID, ts.Path) {
				continue
			}
			if ts.InPlace {
				return &TargetError{fmt.Sprintf("tablespace %d cannot be moved: it lies in the data directory", ts.OID)}
			}
			place.To, used[i] = m.New, true
		}
		if !ts.InPlace {
			if err := checkPath(place.To); err != nil {
				return err
			}
		}
		p.Tablespaces = append(p.Tablespaces, place)
	}
	if err := p.placeNew(t, s.Tablespaces); err != nil {
		return err
	}
	for i, m := range t.Tablespaces {
		if !used[i] && !p.namesNew(m) {
			return p.unusedMapping(m)
		}
	}
	return nil
}

// placeNew notes the tablespaces that recovery makes. One that the backup
// holds as well is made again by the record, whose path then counts: moved
// elsewhere, its files would be left behind there.
func (p *Plan) placeNew(t Target, made []NewTablespace) error {
	if t.Confine != "" {
		return p.confineNew(t, made)
	}
	for _, n := range made {
		i := slices.IndexFunc(p.Tablespaces, func(t Tablespace) bool { return t.OID == n.OID && !t.InPlace })
		if i >= 0 {
			if p.Tablespaces[i].To != n.Path {
				return &TargetError{fmt.Sprintf("tablespace %d cannot be moved: the WAL to be replayed makes it at %s", n.OID, n.Path)}
			}
			continue
		}
		if err := checkPath(n.Path); err != nil {
			return err
		}
		if !slices.ContainsFunc(p.NewTablespaces, func(o NewTablespace) bool { return o.Path == n.Path }) {
			p.NewTablespaces = append(p.NewTablespaces, n)
		}
	}
	return nil
}

// confined is where a tablespace goes that nobody has mapped.
func (t Target) confined(oid uint32, path string) string {
	if t.Confine == "" {
		return path
	}
	return filepath.Join(t.Confine, strconv.FormatUint(uint64(oid), 10))
}

// confineNew gives each path at which recovery makes a tablespace one directory: a
// tablespace that lay there when it was backed up is, to PostgreSQL, in the same
// place.
func (p *Plan) confineNew(t Target, made []NewTablespace) error {
	for _, n := range made {
		if err := checkPath(n.Path); err != nil {
			return err
		}
		if slices.ContainsFunc(p.NewTablespaces, func(o NewTablespace) bool { return o.Path == n.Path }) {
			continue
		}
		n.To = t.confined(n.OID, n.Path)
		for _, ts := range p.Tablespaces {
			if !ts.InPlace && (ts.OID == n.OID || ts.From == n.Path) {
				n.To = ts.To
			}
		}
		p.NewTablespaces = append(p.NewTablespaces, n)
	}
	return nil
}

// namesNew says whether the mapping leaves a tablespace that recovery makes where it
// is made: the operator's word that it is meant.
func (p *Plan) namesNew(m Mapping) bool {
	return slices.ContainsFunc(p.NewTablespaces, func(n NewTablespace) bool { return m.isOf(n.OID, n.Path) && m.New == n.Path })
}

func (p *Plan) unusedMapping(m Mapping) error {
	for _, n := range p.NewTablespaces {
		if m.isOf(n.OID, n.Path) {
			return &TargetError{fmt.Sprintf("tablespace %d cannot be moved: the WAL to be replayed makes it at %s", n.OID, n.Path)}
		}
	}
	var known []string
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			known = append(known, fmt.Sprintf("%d at %s", t.OID, t.From))
		}
	}
	if len(known) == 0 {
		return &TargetError{fmt.Sprintf("no tablespace %s: backup %s has none outside of the data directory", m.Old, p.Label)}
	}
	return &TargetError{fmt.Sprintf("no tablespace %s: backup %s has %s", m.Old, p.Label, strings.Join(known, ", "))}
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || hasControl(path) || path == "/" {
		return &DirError{Path: path, Kind: BadPath, Detail: "an absolute path without \"..\" is needed"}
	}
	return nil
}

// filled is a directory that is written to.
type filled struct {
	path  string
	bytes int64
	files int64
	keeps bool // what is in it is never removed
}

// fills says whether a tablespace of the backup goes to a directory.
func (p *Plan) fills(directory string) bool {
	return slices.ContainsFunc(p.Tablespaces, func(t Tablespace) bool { return !t.InPlace && t.To == directory })
}

// filledDirs lists the directories of the plan, the data directory first.
func (p *Plan) filledDirs(c *Contents) []filled {
	out := []filled{{path: p.DataDir, bytes: c.Bytes[0], files: c.Files[0]}}
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			n := len(out)
			out = append(out, filled{path: t.To, bytes: c.Bytes[n], files: c.Files[n]})
		}
	}
	for _, n := range p.NewTablespaces {
		if !p.fills(n.directory()) {
			out = append(out, filled{path: n.directory(), keeps: true})
		}
	}
	return out
}

// checkDirs makes sure that each directory can take what goes there, and that
// the account that will run the server can get to it.
func (p *Plan) checkDirs(in *Inputs, t Target, c *Contents) error {
	all := p.filledDirs(c)
	owner, known := in.Owners[p.Label]
	need := &MissingFactError{Backup: &p.Backup, Owner: !known}
	for _, f := range all {
		if _, known := in.Directories[f.path]; !known {
			need.Directories = append(need.Directories, f.path)
		}
	}
	if need.Owner || len(need.Directories) > 0 {
		return need
	}
	// A running server first: it is the gravest mistake of all.
	for i, f := range all {
		if err := checkFree(f, in.Directories[f.path], i == 0); err != nil {
			return err
		}
		p.Unfinished = p.Unfinished || in.Directories[f.path].Marked
	}
	if owner.Err != nil {
		return owner.Err
	}
	p.Owner = owner.Owner
	for _, f := range all {
		if err := checkRights(f.path, in.Directories[f.path], p.Owner); err != nil {
			return err
		}
	}
	if err := checkOverlap(all, in.Directories); err != nil {
		return err
	}
	if err := p.checkWord(t, in); err != nil {
		return err
	}
	return p.checkSpace(all, in.Directories)
}

// checkFree makes sure that a directory is missing, empty, or left by a restore
// that was not completed.
func checkFree(f filled, found Directory, dataDir bool) error {
	switch {
	case found.Err != nil:
		return dirError(f.path, found.Err)
	case !found.Exists:
		return nil
	case found.PID != 0:
		return &DirError{Path: f.path, Kind: ServerRunning, Detail: fmt.Sprintf("process %d", found.PID)}
	case !found.IsDir:
		return &DirError{Path: f.path, Kind: NotADir}
	}
	names := found.Names
	if !dataDir {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == lostAndFound })
	}
	switch {
	case len(names) == 0:
		return nil
	case found.Marked && !found.Control && !f.keeps:
		return nil // Apply removes it
	case f.keeps:
		return &DirError{Path: f.path, Kind: NotEmpty,
			Detail: "the WAL to be replayed makes a tablespace there, and what is in it may be the production server's"}
	case !dataDir:
		return &DirError{Path: f.path, Kind: NotEmpty,
			Detail: "a tablespace of the backup goes there, and what is in it may be the production server's"}
	}
	return &DirError{Path: f.path, Kind: NotEmpty, Detail: "it holds " + someOf(names)}
}

func someOf(names []string) string {
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and more"
	}
	return strings.Join(names, ", ")
}

// checkRights makes sure that we can write and that the owner can get there.
func checkRights(path string, found Directory, owner *Owner) error {
	if !found.Writable {
		return &DirError{Path: path, Kind: NoRights, Detail: "this account cannot write there"}
	}
	if owner == nil {
		return nil
	}
	for _, a := range found.Above {
		if !a.passable(owner) {
			return &DirError{Path: path, Kind: NoRights,
				Detail: fmt.Sprintf("%s, who is to own it, cannot pass through %s", owner.User, a.Path)}
		}
	}
	return nil
}

// checkOverlap makes sure that no directory lies in another.
func checkOverlap(all []filled, directories map[string]Directory) error {
	for i, a := range all {
		for _, b := range all[i+1:] {
			x, y := directories[a.path].Real, directories[b.path].Real
			if x == y || strings.HasPrefix(x, y+"/") || strings.HasPrefix(y, x+"/") {
				return &DirError{Path: b.path, Kind: Overlap, Detail: "it and " + a.path + " are the same or lie within each other"}
			}
		}
	}
	return nil
}

// What is needed beside the bytes of the files: the last block of each file is
// half empty on average, indirect blocks and directories take some, and recovery
// itself keeps WAL, at most about max_wal_size (1 GiB by default) of it.
const (
	perFile     = 4 << 10
	marginShare = 50 // one part in so many
	marginLeast = 32 << 20
	walAtMost   = 1 << 30
)

// checkSpace adds up what goes to each file system and compares.
func (p *Plan) checkSpace(all []filled, directories map[string]Directory) error {
	byDevice := map[uint64]int{}
	for i, f := range all {
		need := f.bytes + f.files*perFile + f.bytes/marginShare
		if i == 0 {
			raw := p.WAL.Segments * int64(p.Backup.SegSize)
			if !p.allWAL {
				raw = min(raw, walAtMost)
			}
			need += marginLeast + raw
		}
		found := directories[f.path]
		n, ok := byDevice[found.Device]
		if !ok {
			n = len(p.Disks)
			byDevice[found.Device] = n
			p.Disks = append(p.Disks, Disk{Free: found.Free})
		}
		p.Disks[n].Paths = append(p.Disks[n].Paths, f.path)
		p.Disks[n].Need += need
	}
	for _, d := range p.Disks {
		if d.Need > d.Free && !p.Unfinished {
			return &SpaceError{Paths: d.Paths, Need: d.Need, Free: d.Free}
		}
	}
	return nil
}

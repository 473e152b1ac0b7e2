package restore

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

var update = flag.Bool("update", false, "write the expected plans in testdata again")

// TestPlans runs the cases in testdata/plan. A file holds cases that begin with
// "=== NAME"; what stands before the first belongs to all of them. A case is
// lines that describe the world, "---", and the plan or error expected:
//
//	backup A tl=1 start=0/200028 stop=0/300000 time=02:00 tablespace=16400:/ts
//	wal 000000010000000000000002 000000010000000000000008
//	history 2 1:0/500000
//	bad-history 3
//	contents A bytes=1000,20 error=...
//	survey A end=0/700000 last=0/6FFF00 commit=05:00 reached newest=06:00 made=16500:/new broken=SEGMENT
//	directory /restore/data exists names=a,b pid=1 ...
//	owner A postgres 105 106
//	target time=04:00 backup=A timeline=2 action=promote tablespace=16400=/new
//
// Backups have labels A, B, C; times are on 2026-01-31, in UTC. Directories that a
// case does not speak of are missing, in a parent that takes everything.
func TestPlans(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runPlans(t, file) })
	}
}

func runPlans(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "=== ")
	out := parts[0]
	for _, part := range parts[1:] {
		name, body, _ := strings.Cut(part, "\n")
		world, want, _ := strings.Cut(body, "---\n")
		t.Run(name, func(t *testing.T) {
			got := planCase(t, parts[0]+world)
			out += "=== " + name + "\n" + world + "---\n" + got + "\n"
			if !*update && strings.TrimSpace(got) != strings.TrimSpace(want) {
				t.Errorf("have:\n%s\nwant:\n%s", got, want)
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimRight(out, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// world is a case while it is read.
type world struct {
	t      *testing.T
	repo   *repo.Repo
	in     *Inputs
	target Target
	free   int64
	json   bool
}

func label(name string) string {
	return fmt.Sprintf("20260131T0%c0000Z-00000%s", name[0]-'A'+'0', strings.ToLower(name))
}

func planCase(t *testing.T, text string) string {
	r, _, _ := newTestRepo(t)
	w := &world{t: t, repo: r, free: 1 << 40, target: Target{DataDir: "/restore/data", FetchCommand: []string{"/usr/bin/lifeboat", "wal", "fetch"}},
		in: &Inputs{Unread: map[string]error{}, Archives: map[postgres.SystemID]*wal.Index{}, Contents: map[string]*Contents{},
			Surveys: map[string]*Survey{}, Directories: map[string]Directory{}, Owners: map[string]OwnerFact{}}}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			w.read(f[0], f[1:])
		}
	}
	p, err := w.plan()
	if err != nil {
		return fmt.Sprintf("%s\n%v\n", strings.TrimPrefix(fmt.Sprintf("%T", unwrapTyped(err)), "*restore."), strings.ReplaceAll(err.Error(), "; ", ";\n  "))
	}
	if w.json {
		b, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	return describe(p)
}

func unwrapTyped(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil || strings.HasPrefix(fmt.Sprintf("%T", err), "*restore.") {
			return err
		}
		err = next
	}
}

// plan answers the questions of NewPlan as Load would.
func (w *world) plan() (*Plan, error) {
	for {
		p, err := NewPlan(w.in, w.target)
		m, ok := errors.AsType[*MissingFactError](err)
		if !ok {
			return p, err
		}
		if m.Archive != 0 {
			ix, err := wal.LoadIndex(context.Background(), w.repo, m.Archive)
			if err != nil {
				w.t.Fatal(err)
			}
			w.in.Archives[m.Archive] = ix
		}
		for _, f := range m.Directories {
			made := f != w.target.DataDir // a tablespace's directory that somebody has made
			w.in.Directories[f] = Directory{Real: f, Exists: made, IsDir: made, Writable: true, Device: 1, Free: w.free}
		}
		if m.Owner {
			w.in.Owners[m.Backup.Label] = OwnerFact{}
		}
		if m.Contents || m.Survey != nil {
			w.t.Fatalf("the case says nothing of the contents or the survey of backup %s", m.Backup.Label)
		}
	}
}

// describe is what a case shows of a plan.
func describe(p *Plan) string {
	var b strings.Builder
	f := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	f("backup %s on timeline %d", p.Label, p.Timeline)
	for _, s := range p.Path {
		f("path %d: %s to %s", s.Timeline, s.Begin, s.End)
	}
	f("wal %s to %s, %d segments", p.WAL.First, p.WAL.Last, p.WAL.Segments)
	f("stop %s", p.StopLSN)
	for _, t := range p.Tablespaces {
		f("tablespace %+v", t)
	}
	for _, t := range p.NewTablespaces {
		f("new tablespace %d %s", t.OID, t.Path)
	}
	for _, d := range p.Disks {
		f("disk %v need %d", d.Paths, d.Need)
	}
	if p.Owner != nil {
		f("owner %s:%s", p.Owner.User, p.Owner.Group)
	}
	for _, n := range p.Notes {
		f("note %s", n)
	}
	for _, s := range p.Settings {
		if s.Value != "" && s.Name != "restore_command" {
			f("set %s = %s", s.Name, s.Value)
		}
	}
	return b.String()
}

// args splits "key=value" words; a word without "=" is a key with "true".
func args(words []string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			v = "true"
		}
		m[k] = v
	}
	return m
}

func (w *world) read(verb string, f []string) {
	switch verb {
	case "backup":
		w.backup(f[0], args(f[1:]))
	case "unread":
		w.in.Unread[label(f[0])] = &repo.CorruptError{Object: repo.ManifestKey(label(f[0])), Reason: "not an envelope"}
	case "wal":
		putSegments(w.t, w.repo, f[0], f[len(f)-1])
	case "history":
		tl := w.number(f[0])
		h := postgres.History{Timeline: postgres.Timeline(tl)}
		for _, e := range f[1:] {
			parent, lsn, _ := strings.Cut(e, ":")
			h.Entries = append(h.Entries, postgres.HistoryEntry{Timeline: postgres.Timeline(w.number(parent)), Switch: w.lsn(lsn)})
		}
		putWAL(w.t, w.repo, h.Timeline.HistoryName(), h.Marshal())
	case "bad-history":
		putWAL(w.t, w.repo, postgres.Timeline(w.number(f[0])).HistoryName(), []byte("damaged"))
	case "contents":
		w.contents(f[0], args(f[1:]))
	case "survey":
		w.survey(f[0], args(f[1:]))
	case "directory":
		w.directory(f[0], args(f[1:]))
	case "owner":
		w.in.Owners[label(f[0])] = OwnerFact{Owner: &Owner{User: f[1], Group: f[1], UID: w.number(f[2]), GID: w.number(f[3])}}
	case "no-owner":
		w.in.Owners[label(f[0])] = OwnerFact{Err: &OwnerError{Owner: "pg", Reason: "there is no such account on this host"}}
	case "target":
		w.setTarget(args(f))
	case "free":
		w.free = int64(w.number(f[0]))
	case "json":
		w.json = true
	default:
		w.t.Fatalf("unknown line %q", verb)
	}
}

func (w *world) backup(name string, a map[string]string) {
	stop := w.time(a["time"])
	info := repo.Info{Format: 1, Label: label(name), Cluster: "main", System: testSystem, Timeline: postgres.Timeline(w.number(a["tl"])),
		StartLSN: w.lsn(a["start"]), StopLSN: w.lsn(a["stop"]), StartTime: stop.Add(-time.Minute), StopTime: stop,
		PGVersion: 150014, SegSize: 1 << 20, BlockSize: 8192, Settings: map[string]string{"max_connections": "100", "max_wal_senders": "10"}}
	if s := a["system"]; s != "" {
		info.System = postgres.SystemID(w.number(s))
	}
	if s := a["libraries"]; s != "" {
		info.Settings["shared_preload_libraries"] = s
	}
	for _, ts := range strings.Split(a["tablespace"], ",") {
		if oid, path, ok := strings.Cut(ts, ":"); ok {
			info.Tablespaces = append(info.Tablespaces, repo.Tablespace{OID: uint32(w.number(oid)), Path: path, InPlace: path == ""})
		}
	}
	if a["bad"] != "" {
		info.BadCount = int64(w.number(a["bad"]))
	}
	w.in.Backups = append(w.in.Backups, info)
}

func (w *world) contents(name string, a map[string]string) {
	c := &Contents{HasConf: a["no-conf"] == "", Standby: a["standby"] != ""}
	for _, n := range strings.Split(a["bytes"], ",") {
		if n != "" {
			c.Bytes = append(c.Bytes, int64(w.number(n)))
			c.Files = append(c.Files, 1)
			c.Fetch += int64(w.number(n)) / 3
		}
	}
	if a["missing-pack"] != "" {
		c.Err = &repo.CorruptError{Object: "packs/00", Reason: "the pack is missing"}
	}
	if a["forged"] != "" {
		c.Err = &repo.UntrustedError{Object: repo.ManifestKey(label(name)), Reason: "its signature is not valid"}
	}
	w.in.Contents[label(name)] = c
}

func (w *world) survey(name string, a map[string]string) {
	s := &Survey{End: w.lsn(a["end"]), Timeline: 1, Reached: a["reached"] != "", BrokenSegment: a["broken"], InPlace: a["in-place"] != ""}
	s.Last = s.End - 0x100
	if a["commit"] != "" {
		s.Commit = w.time(a["commit"])
		s.Newest = s.Commit
	}
	if a["newest"] != "" {
		s.Newest = w.time(a["newest"])
	}
	if a["broken"] != "" {
		s.Broken = errors.New("the record's checksum is wrong")
	}
	for _, ts := range strings.Split(a["made"], ",") {
		if oid, path, ok := strings.Cut(ts, ":"); ok {
			s.Tablespaces = append(s.Tablespaces, NewTablespace{OID: uint32(w.number(oid)), Path: path, LSN: s.End})
		}
	}
	if a["connections"] != "" {
		s.Parameters.MaxConnections = int32(w.number(a["connections"]))
	}
	w.in.Surveys[label(name)] = s
}

func (w *world) directory(path string, a map[string]string) {
	f := Directory{Real: path, Exists: true, IsDir: a["file"] == "", Writable: a["closed"] == "", Marked: a["marked"] != "",
		Control: a["control"] != "", Device: 1, Free: w.free}
	if a["names"] != "" {
		f.Names = strings.Split(a["names"], ",")
	}
	if a["pid"] != "" {
		f.PID = w.number(a["pid"])
	}
	if a["missing"] != "" {
		f.Exists, f.IsDir = false, false
	}
	if a["real"] != "" {
		f.Real = a["real"]
	}
	if a["uid"] != "" {
		f.UID = w.number(a["uid"])
	}
	if a["device"] != "" {
		f.Device = uint64(w.number(a["device"]))
	}
	if a["free"] != "" {
		f.Free = int64(w.number(a["free"]))
	}
	if a["above"] != "" {
		mode, _ := strconv.ParseUint(a["above"], 8, 32)
		f.Above = []Above{{Path: filepath.Dir(path), Mode: fs.FileMode(mode)}}
	}
	w.in.Directories[path] = f
}

func (w *world) setTarget(a map[string]string) {
	t := &w.target
	for k, v := range a {
		switch k {
		case "time":
			t.Point = Point{Kind: AtTime, Time: w.time(v)}
		case "lsn":
			t.Point = Point{Kind: AtLSN, LSN: w.lsn(v)}
		case "xid":
			t.Point = Point{Kind: AtXID, XID: uint32(w.number(v))}
		case "name":
			t.Point = Point{Kind: AtName, Name: v}
		case "immediate":
			t.Point = Point{Kind: Immediate}
		}
	}
	for k, v := range a {
		var err error
		switch k {
		case "exclusive":
			t.Point.Exclusive = true
		case "backup":
			t.Backup = label(v)
		case "to":
			t.DataDir = v
		case "timeline":
			t.Timeline, err = wal.ParseTimelineTarget(v)
		case "action":
			t.Action, err = ParseAction(v)
		case "system":
			t.System = postgres.SystemID(w.number(v))
		case "keep-archiving":
			t.KeepArchiving = true
		case "tablespace":
			for _, one := range strings.Split(v, ",") {
				var m Mapping
				m, err = ParseMapping(one)
				t.Tablespaces = append(t.Tablespaces, m)
			}
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) lsn(s string) postgres.LSN {
	l, err := postgres.ParseLSN(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) time(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", "2026-01-31 "+s)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

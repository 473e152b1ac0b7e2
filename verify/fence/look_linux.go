package fence

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Isolation is what was seen of a running process.
type Isolation struct {
	Network bool
	Files   bool
	Mounts  []string // writable mounts other than those in memory: their paths inside
}

// Look says how far the process with this id is separated from the calling one.
// For one that stands for a program inside a fence it is that program that counts.
func Look(pid int) (Isolation, error) {
	pid = standsFor(pid)
	var i Isolation
	for _, ns := range []struct {
		name string
		out  *bool
	}{{"net", &i.Network}, {"mnt", &i.Files}} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name))
		if err != nil {
			return i, err
		}
		ours, err := os.Readlink("/proc/self/ns/" + ns.name)
		if err != nil {
			return i, err
		}
		*ns.out = theirs != ours
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return i, err
	}
	for line := range strings.Lines(string(text)) {
		// ID, parent, device, root, mount point, options, …, "-", type (proc_pid_mountinfo(5))
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(kind) < 1 || kind[0] == "tmpfs" || kind[0] == "proc" || strings.HasPrefix(fields[4], "/dev/") {
			continue
		}
		if slices.Contains(strings.Split(fields[5], ","), "rw") {
			i.Mounts = append(i.Mounts, unescaped(fields[4]))
		}
	}
	slices.Sort(i.Mounts)
	return i, nil
}

// unescaped undoes what the kernel does to a path in a table of mounts
// (mangle in fs/seq_file.c, called by fs/proc_namespace.c).
func unescaped(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(path)
}

// standsFor is the process that has this id inside a PID namespace, as its last
// ("NSpid", proc_pid_status(5)); the id itself if there is none.
func standsFor(pid int) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			ids, ok := strings.CutPrefix(line, "NSpid:")
			if f := strings.Fields(ids); ok && len(f) > 1 && f[len(f)-1] == strconv.Itoa(pid) {
				if outer, err := strconv.Atoi(f[0]); err == nil {
					return outer
				}
			}
		}
	}
	return pid
}

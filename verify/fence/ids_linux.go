package fence

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// idRanges are where OwnIDs looks: what no distribution and no container gives
// out (systemd's UIDS-GIDS.md), then the range of systemd's dynamic users for
// hosts whose user namespace has no more than 16 bits.
var idRanges = [][2]uint32{{1879048192, 2147483646}, {61184, 65519}}

// OwnIDs picks an account and a group, by number, that own nothing else on this
// host: no entry of the password and group files has them, no range of
// subordinate ids, and no process. The two are the same number. It is for root.
func OwnIDs() (uid, gid uint32, err error) {
	used, err := usedIDs()
	if err != nil {
		return 0, 0, fmt.Errorf("pick an account for the server: %w", err)
	}
	mapped := func(id uint32) bool { return inMap("/proc/self/uid_map", id) && inMap("/proc/self/gid_map", id) }
	for _, r := range idRanges {
		for range 100 {
			id := r[0] + rand.Uint32N(r[1]-r[0]+1)
			if mapped(id) && !used(id) {
				return id, id, nil
			}
		}
	}
	return 0, 0, errors.New("pick an account for the server: no free number was found")
}

// outOfUse says whether an id lies where OwnIDs looks.
func outOfUse(id uint32) bool {
	return slices.ContainsFunc(idRanges, func(r [2]uint32) bool { return id >= r[0] && id <= r[1] })
}

// inMap says whether an id exists in this user namespace (user_namespaces(7)).
func inMap(path string, id uint32) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 3 && between(id, f[0], f[2]) {
			return true
		}
	}
	return false
}

func between(id uint32, first, count string) bool {
	from, err := strconv.ParseUint(first, 10, 32)
	n, err2 := strconv.ParseUint(count, 10, 64)
	return err == nil && err2 == nil && uint64(id) >= from && uint64(id)-from < n
}

// usedIDs says of a number whether this host knows it.
func usedIDs() (func(uint32) bool, error) {
	used := map[string]bool{}
	for _, path := range []string{"/etc/passwd", "/etc/group"} {
		for _, f := range colonFields(path) {
			for _, field := range f[min(2, len(f)):] {
				used[field] = true
			}
		}
	}
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return nil, err
	}
	for _, path := range statuses {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if name, ids, _ := strings.Cut(line, ":"); name == "Uid" || name == "Gid" || name == "Groups" {
				for _, id := range strings.Fields(ids) {
					used[id] = true
				}
			}
		}
	}
	ranges := append(colonFields("/etc/subuid"), colonFields("/etc/subgid")...)
	return func(id uint32) bool {
		if used[strconv.FormatUint(uint64(id), 10)] {
			return true
		}
		for _, r := range ranges {
			if len(r) == 3 && between(id, r[1], r[2]) {
				return true
			}
		}
		return false
	}, nil
}

// colonFields reads a file such as /etc/passwd; one that is not there is empty.
func colonFields(path string) [][]string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out [][]string
	for line := range strings.Lines(string(text)) {
		out = append(out, strings.Split(strings.TrimSpace(line), ":"))
	}
	return out
}

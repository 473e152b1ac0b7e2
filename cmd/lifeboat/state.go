package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/lifeboat-dr/lifeboat/hoststate"
)

// systemState is the directory of root's memory, and the beginning of the name of
// those that belong to one account: /var/lib/lifeboat-postgres.
const systemState = "/var/lib/lifeboat"

// stateDirectory is where this host keeps what it has seen, "" when it has no place
// for it. What is configured counts alone. Else it is the first of: what systemd made
// for the unit (StateDirectory=lifeboat…), /var/lib/lifeboat-ACCOUNT and
// /var/lib/lifeboat where this account can write to them (root makes the latter), and
// lifeboat below XDG_STATE_HOME or ~/.local/state.
func (a *app) stateDirectory(cfg *Config) string {
	if cfg.State != "" {
		return cfg.State
	}
	for _, dir := range filepath.SplitList(a.getenv("STATE_DIRECTORY")) {
		// A unit that only calls Lifeboat, such as PostgreSQL's, has a directory of its own.
		if filepath.IsAbs(dir) && strings.HasPrefix(filepath.Base(dir), "lifeboat") {
			return dir
		}
	}
	if u, err := user.Current(); err == nil && hoststate.Usable(systemState+"-"+u.Username) {
		return systemState + "-" + u.Username
	}
	if os.Geteuid() == 0 || hoststate.Usable(systemState) {
		return systemState
	}
	if dir := a.getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lifeboat")
	}
	home := a.getenv("HOME")
	if home == "" { // PostgreSQL can be started without
		if u, err := user.Current(); err == nil {
			home = u.HomeDir
		}
	}
	if !filepath.IsAbs(home) || home == "/" || home == "/nonexistent" {
		return ""
	}
	return filepath.Join(home, ".local", "state", "lifeboat")
}

// hostState is what this host remembers of a repository, nil when it has no place
// for it, which is told once: a command does without.
func (a *app) hostState(cfg *Config, repository string) *hoststate.Dir {
	path := a.stateDirectory(cfg)
	if path == "" {
		a.stateLost("there is no directory for what this host has seen of the repository, so nothing is compared with it: set state")
		return nil
	}
	dir, err := hoststate.Open(path, repository)
	if err != nil {
		a.stateLost("%v", err)
		return nil
	}
	return dir
}

// stateLost tells once in a run that what this host has seen could not be read or
// written. It is never an error: archiving and backups do not depend on it.
func (a *app) stateLost(format string, args ...any) {
	a.tellState.Do(func() { a.warn(format, args...) })
}

// stateName is the name of a file of the host's state that is about one place of a
// repository: what was seen or checked in one holds in no other.
func (c *Config) stateName(kind string) string {
	sum := sha256.Sum256([]byte(c.address()))
	return kind + "." + hex.EncodeToString(sum[:8])
}

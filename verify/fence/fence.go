// Package fence starts a program that can reach nothing but what it is shown:
// no network, and of the files only a few folders, most of them to read.
//
// A drill starts a copy of a production database. The copy knows production's
// hosts, and its WAL may hold production's paths: replaying CREATE TABLESPACE
// opens the very folder that the live server uses. Settings cannot prevent
// that, so the kernel has to (network, mount and user namespaces of Linux, see
// namespaces(7)).
//
// The folders are mounted by the program's own process before PostgreSQL takes
// its place: Command has the calling program started once more, with Argument
// as its first argument, and its main must hand that to Enter.
package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Argument is the first argument of a process that has to call Enter.
const Argument = "fence-enter"

// View is what a fenced program sees beside the system's own programs and
// libraries, which it can read. All paths are absolute and clean.
type View struct {
	// Root is an empty folder that the new file system is put together in.
	// Outside of the fence it stays empty.
	Root string `json:"root"`

	Writable []string          `json:"writable"`           // folders, at their own paths
	Readable []string          `json:"readable,omitempty"` // more folders to read, at their own paths
	Binds    map[string]string `json:"binds,omitempty"`    // by path inside: writable folders that lie elsewhere outside

	// Set by Command.
	UID     uint32   `json:"uid"`
	GID     uint32   `json:"gid"`
	Groups  []uint32 `json:"groups,omitempty"`
	Drop    bool     `json:"drop"`    // become that account
	DieWith int      `json:"dieWith"` // signal at the death of the parent; 0 is none
}

// ErrUnsupported means that this system cannot fence a program.
var ErrUnsupported = errors.New("this system has no namespaces")

func (v View) check() error {
	for inside, outside := range v.Binds {
		if err := checkPath(inside); err != nil {
			return err
		}
		if err := checkPath(outside); err != nil {
			return err
		}
	}
	for _, p := range append(append([]string{v.Root}, v.Writable...), v.Readable...) {
		if err := checkPath(p); err != nil {
			return err
		}
	}
	return nil
}

func checkPath(p string) error {
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
		return fmt.Errorf("fence: %q is not an absolute, clean path of a folder", p)
	}
	return nil
}

// Command changes cmd, which was not started yet, so that it runs fenced. Self
// is the path of the calling program. What cmd says of account and parent's
// death holds inside.
func Command(cmd *exec.Cmd, self string, v View) error {
	if err := v.check(); err != nil {
		return err
	}
	if err := isolate(cmd, &v); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	cmd.Args = append([]string{self, Argument, string(text), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	return nil
}

// Enter puts the calling process behind the fence and the program in its
// place. Args are those after Argument. It returns only on an error.
func Enter(args, env []string) error {
	if len(args) < 2 {
		return errors.New("fence: nothing to run")
	}
	var v View
	if err := json.Unmarshal([]byte(args[0]), &v); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if err := v.check(); err != nil {
		return err
	}
	return enter(v, args[1], args[1:], env)
}

//go:build !linux

package fence

import "os/exec"

func isolate(*exec.Cmd, *View) error { return ErrUnsupported }

func enter(View, string, []string, []string) error { return ErrUnsupported }

// Isolation is what was seen of a running process.
type Isolation struct {
	Network bool
	Files   bool
	Mounts  []string
}

// Look says how far a process is separated; here nothing can be.
func Look(int) (Isolation, error) { return Isolation{}, ErrUnsupported }

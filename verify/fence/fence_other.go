//go:build !linux

package fence

import (
	"context"
	"os/exec"
)

// Fence is of Linux.
type Fence struct{}

// Start makes no fence here: the error is ErrUnsupported.
func Start(context.Context, string, View) (*Fence, error) { return nil, ErrUnsupported }

// Command cannot succeed here.
func (*Fence) Command(*exec.Cmd) error { return ErrUnsupported }

// Layers is empty here.
func (*Fence) Layers() []State { return nil }

// Kill has nothing to kill here.
func (*Fence) Kill() error { return nil }

// OwnIDs cannot succeed here.
func OwnIDs() (uid, gid uint32, err error) { return 0, 0, ErrUnsupported }

func runInit([]string) error             { return ErrUnsupported }
func runClient([]string, []string) error { return ErrUnsupported }
func become([]string, []string) error    { return ErrUnsupported }

// Isolation is what was seen of a running process.
type Isolation struct {
	Network bool
	Files   bool
	Mounts  []string
}

// Look says how far a process is separated; here nothing can be.
func Look(int) (Isolation, error) { return Isolation{}, ErrUnsupported }

func becomeDirectly([]string, []string) error { return ErrUnsupported }

// Why is of no use here.
func (*Fence) Why(...Layer) string { return ErrUnsupported.Error() }

// Inside is of no use here.
func (*Fence) Inside() string { return "" }

// Cgroups is empty here.
func (*Fence) Cgroups() []string { return nil }

// RemoveCgroups has nothing to remove here.
func RemoveCgroups([]string) error { return nil }

// SweepCgroups has nothing to remove here.
func SweepCgroups() {}

// PID is 0 here.
func (*Fence) PID() int { return 0 }

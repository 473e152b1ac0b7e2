package s3test

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the process when its parent ends in
// whatever way.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

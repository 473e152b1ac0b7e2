package servertest

import (
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// confine makes a test process die with this one and, if it must, lets it and
// what it starts read what its account could not (capabilities(7)). The right
// is to read and to pass directories, not to write.
func confine(attr *syscall.SysProcAttr, readAll bool) {
	attr.Pdeathsig = syscall.SIGKILL
	if readAll {
		attr.AmbientCaps = []uintptr{unix.CAP_DAC_READ_SEARCH}
	}
}

// Unprivileged runs f in a goroutine whose own system calls, and the processes
// it starts, have no rights beyond those of the account: a file of mode 0
// cannot be read there. It holds for f's goroutine alone.
func Unprivileged(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine and its changed
		// capabilities with it.
		runtime.LockOSThread()
		err := dropCapabilities()
		if err == nil {
			defer close(done) // also after t.FailNow
			f()
			return
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("drop capabilities: %v", err)
	}
}

func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

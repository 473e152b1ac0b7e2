//go:build unix && !linux

package servertest

import (
	"syscall"
	"testing"
)

// confine changes nothing: neither parent-death signals nor capabilities exist
// here.
func confine(*syscall.SysProcAttr, bool) {}

// Unprivileged runs f. Nothing beyond the account's rights was given to it.
func Unprivileged(t testing.TB, f func()) {
	t.Helper()
	f()
}

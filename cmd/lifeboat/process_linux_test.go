package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Only a process of this boot and PID namespace can be known to have ended.
func TestProcessGone(t *testing.T) {
	t.Parallel()
	own := processName()
	if own == "" {
		t.Fatal("this process has no name")
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s %d", processPlace(), cmd.Process.Pid)
	if processGone(own) || processGone(name) {
		t.Error("a process that runs is taken for gone")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if !processGone(name) {
		t.Error("a process that was killed is not known to be gone")
	}
	boot, rest, _ := strings.Cut(name, " ")
	for _, other := range []string{"", " ", processPlace(), processPlace() + " ", processPlace() + " x", processPlace() + " 0",
		processPlace() + " -1", "00000000-0000-0000-0000-000000000000 " + rest, boot + " pid:[1] " + strings.Fields(rest)[1], rest} {
		if processGone(other) {
			t.Errorf("%q is taken for gone", other)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what one run of a program took, with all processes below it.
type usage struct {
	wall    time.Duration
	cpu     time.Duration // user and system
	largest int64         // bytes: peak memory of the largest process
	sum     int64         // bytes: peak of the memory of all its processes at one moment
	stored  int64         // bytes in the store
}

// command is a program to measure.
type command struct {
	args []string
	env  []string // beside the common ones
	// sample is how often to look at the memory of the processes; 0 is never.
	sample time.Duration
}

// measure runs a command as the server's account and waits for its end.
//
// The CPU time is that of wait4(2): the process and all below it that were
// waited for, as pgBackRest waits for its workers. The memory is read from
// /proc while they run, because what wait4 says of it has the memory of the
// process that forked, this one, as its floor.
func (b *bench) measure(ctx context.Context, c command) (usage, error) {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append(b.environment(), c.env...)
	cmd.SysProcAttr = b.asAccount()
	// On Ctrl-C the whole group ends, and has time to tidy up.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	// A file, not a pipe: reading it would cost us time while we measure.
	output, err := os.CreateTemp(b.dir, "output-")
	if err != nil {
		return usage{}, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output

	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	watch := watchMemory(cmd.Process.Pid, c.sample)
	err = cmd.Wait()
	u := usage{wall: time.Since(begin)}
	u.largest, u.sum = watch.end()
	if err != nil {
		text, _ := os.ReadFile(output.Name())
		return u, fmt.Errorf("%s: %w: %s", strings.Join(c.args, " "), err, bytes.TrimSpace(text))
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u, nil
}

// memoryWatch looks at a tree of processes again and again.
type memoryWatch struct {
	stop, done   chan struct{}
	largest, sum int64
}

func watchMemory(root int, every time.Duration) *memoryWatch {
	w := &memoryWatch{stop: make(chan struct{}), done: make(chan struct{})}
	if every == 0 {
		close(w.done)
		return w
	}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				w.look(root)
			}
		}
	}()
	return w
}

func (w *memoryWatch) look(root int) {
	var sum int64
	for _, pid := range processTree(root) {
		now, peak := memoryOf(pid)
		sum += now
		w.largest = max(w.largest, peak)
	}
	w.sum = max(w.sum, sum)
}

func (w *memoryWatch) end() (largest, sum int64) {
	close(w.stop)
	<-w.done
	return w.largest, w.sum
}

// processTree lists a process and those below it.
func processTree(root int) []int {
	all := []int{root}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", root))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // it has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				all = append(all, processTree(pid)...)
			}
		}
	}
	return all
}

// memoryOf is the resident memory of a process, now and at its peak, in
// bytes; 0 when it has ended.
func memoryOf(pid int) (now, peak int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		var kib int64
		switch name {
		case "VmRSS", "VmHWM":
			kib, _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		}
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak
}

// settle brings to disk what earlier runs wrote, so that the next one does not
// pay for them.
func settle() { unix.Sync() }

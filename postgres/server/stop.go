package server

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is a way to shut a server down, see "Shutting Down the Server" in the
// manual.
type Mode syscall.Signal

// The modes of a shutdown.
const (
	Smart     = Mode(syscall.SIGTERM) // waits for the clients to leave
	Fast      = Mode(syscall.SIGINT)  // ends the sessions, writes a checkpoint
	Immediate = Mode(syscall.SIGQUIT) // no checkpoint: the next start recovers
)

func (m Mode) String() string {
	switch m {
	case Smart:
		return "smart"
	case Fast:
		return "fast"
	case Immediate:
		return "immediate"
	}
	return fmt.Sprintf("signal %d", int(m))
}

// Stop shuts the server down and waits until it is gone. A server that is gone already is no error. When ctx
// ends first the error wraps ctx's and the server is still shutting down: stop
// it again in a harder mode, or Kill it.
func (s *Server) Stop(ctx context.Context, mode Mode) error {
	if err := s.signal(syscall.Signal(mode)); err != nil {
		return fmt.Errorf("%s shutdown of PostgreSQL on %s: %w", mode, s.opts.DataDir, err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s shutdown of PostgreSQL on %s: process %d still runs: %w",
			mode, s.opts.DataDir, s.pid, context.Cause(ctx))
	}
}

// signal sends a signal to the postmaster unless it was reaped: its number
// could be another process's by now.
func (s *Server) signal(sig syscall.Signal) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := syscall.Kill(s.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// Reload makes the server read its configuration files again (SIGHUP).
func (s *Server) Reload() error { return s.signal(syscall.SIGHUP) }

// Kill ends the postmaster and every process below it with SIGKILL, the
// commands it runs included, all at one moment and without any chance to tidy
// up: for the server this is what a loss of power is, but for the page cache.
// It returns when they are gone. The data directory stays as it is.
func (s *Server) Kill() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if pf, err := readPIDFile(s.opts.DataDir); err == nil && pf.pid == s.pid {
		s.killedShm.Store(int64(pf.shmID))
	}
	// Everything is stopped before anything is killed: the postmaster would
	// otherwise notice the death of a child and begin to clean up, and new
	// processes could appear behind our back.
	s.signal(syscall.SIGSTOP)
	below, err := killBelow(s.pid)
	s.signal(syscall.SIGKILL)
	<-s.done
	if err == nil {
		err = awaitGone(below)
	}
	if err != nil {
		return fmt.Errorf("kill PostgreSQL on %s: %w", s.opts.DataDir, err)
	}
	return nil
}

// KillBelow ends every process below one, which the caller has stopped or which
// is the caller itself, with SIGKILL, and returns when they are gone. It goes by
// the kernel's table of processes alone. A process that does not end within ten
// seconds, because the kernel holds it, is an error.
func KillBelow(pid int) error {
	below, err := killBelow(pid)
	if err == nil {
		err = awaitGone(below)
	}
	return err
}

// killBelow freezes all below a process, so that none appears meanwhile, and then
// kills them.
func killBelow(pid int) ([]int, error) {
	below, err := freezeBelow(pid)
	for _, pid := range below {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		err = fmt.Errorf("find the processes below %d: %w", pid, err)
	}
	return below, err
}

func awaitGone(pids []int) error {
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for len(pids) > 0 {
		if gone(pids[0]) {
			pids = pids[1:]
			continue
		}
		select {
		case <-limit.C:
			return fmt.Errorf("process %d does not end", pids[0])
		case <-again.C:
		}
	}
	return nil
}

// ReleaseSharedMemory removes the System V shared memory segment that a killed
// server left in the kernel. A start on the same data directory would do so;
// this is for one that will never be started again. Without a Kill before, or
// when the segment is gone or in use, it does nothing. Settings should have
// dynamic_shared_memory_type=mmap, else files in /dev/shm stay behind too.
func (s *Server) ReleaseSharedMemory() error {
	id := s.killedShm.Swap(-1)
	if id < 0 {
		return nil
	}
	if err := removeSegment(int(id)); err != nil {
		return fmt.Errorf("remove shared memory segment %d of PostgreSQL on %s: %w", id, s.opts.DataDir, err)
	}
	return nil
}

// removeSegment removes a System V segment that no process is attached to.
func removeSegment(id int) error {
	var desc unix.SysvShmDesc
	_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &desc)
	if err == nil && desc.Nattch > 0 {
		return nil
	}
	if err == nil {
		_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return nil // no such segment (any more)
	}
	return err
}

// freezeBelow stops every process below one and returns them. It looks again
// until it finds no new one, since a process can fork until it is stopped.
func freezeBelow(root int) ([]int, error) {
	frozen := map[int]bool{}
	var all []int
	for {
		parents, err := parentsOfAll()
		if err != nil {
			return all, err
		}
		found := false
		for _, pid := range descendants(parents, root) {
			if !frozen[pid] {
				frozen[pid], found = true, true
				all = append(all, pid)
				syscall.Kill(pid, syscall.SIGSTOP)
			}
		}
		if !found {
			return all, nil
		}
	}
}

// descendants lists the processes below root in a map from process to parent.
func descendants(parents map[int]int, root int) []int {
	children := map[int][]int{}
	for pid, parent := range parents {
		children[parent] = append(children[parent], pid)
	}
	var all []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

package escape

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System V semaphores and message queues (sysvipc(7)), for which package unix has numbers
// of system calls and nothing more.
const (
	semGetVal = 12 // linux/sem.h
	semSetVal = 16
)

// A semaphore has this value; a probe that reaches it leaves another.
const semaphoreValue = 1234

func semaphoreControl(id, command, value int) (int, error) {
	got, _, errno := unix.Syscall6(unix.SYS_SEMCTL, uintptr(id), 0, uintptr(command), uintptr(value), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

// openSystemV makes both. A kernel without them has no way by them: the attempt fails on
// both sides.
func (c *canaries) openSystemV() {
	c.Semaphore, c.Queue = -1, -1
	if id, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, unix.IPC_CREAT|0o666); errno == 0 {
		c.Semaphore = int(id)
		c.onClose(func() { _, _ = semaphoreControl(c.Semaphore, unix.IPC_RMID, 0) })
		_, _ = semaphoreControl(c.Semaphore, semSetVal, semaphoreValue)
	}
	if id, _, errno := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o666, 0); errno == 0 {
		c.Queue = int(id)
		c.onClose(func() { _, _, _ = unix.Syscall(unix.SYS_MSGCTL, uintptr(c.Queue), unix.IPC_RMID, 0) })
	}
}

// semaphore changes it.
func semaphore(t targets) error {
	got, err := semaphoreControl(t.Semaphore, semGetVal, 0)
	if err != nil {
		return err
	}
	if got != semaphoreValue && got != semaphoreValue+1 { // the probe before may have been here
		return errNotSeen
	}
	_, err = semaphoreControl(t.Semaphore, semSetVal, semaphoreValue+1)
	return err
}

// message is struct msgbuf of msgsnd(2).
type message struct {
	kind int64
	text [64]byte
}

// queue puts a message into it.
func queue(t targets) error {
	m := message{kind: 1}
	n := copy(m.text[:], t.Token)
	_, _, errno := unix.Syscall6(unix.SYS_MSGSND, uintptr(t.Queue), uintptr(unsafe.Pointer(&m)), uintptr(n), ipcNoWait, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

const ipcNoWait = 0o4000 // IPC_NOWAIT, linux/ipc.h

// sysvArrived says what came to them.
func (c *canaries) sysvArrived() {
	if got, err := semaphoreControl(c.Semaphore, semGetVal, 0); err == nil && got != semaphoreValue {
		c.see("System V semaphores")
	}
	var m message
	if n, _, errno := unix.Syscall6(unix.SYS_MSGRCV, uintptr(c.Queue), uintptr(unsafe.Pointer(&m)), uintptr(len(m.text)), 0, ipcNoWait, 0); errno == 0 && string(m.text[:n]) == c.Token {
		c.see("System V message queues")
	}
}

// The memory of a canary's process: a page to read, and one to write to.

// memory is what a process has for others to reach.
func memory(text []byte) ([]byte, error) {
	page, err := unix.Mmap(-1, 0, 2*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	copy(page, text)
	page[os.Getpagesize()] = 1 // it is there, and so is in no swap
	return page, nil
}

// readMemory reads the process's memory by process_vm_readv(2).
func readMemory(pid int, at uint64, n int) ([]byte, error) {
	buf := make([]byte, n)
	local := unix.Iovec{Base: &buf[0]}
	local.SetLen(n)
	got, err := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(at), Len: n}}, 0)
	return buf[:max(0, got)], err
}

func memoryHolds(t targets) error {
	text, err := readMemory(t.PID, t.Memory, len(t.Token))
	if err == nil && string(text) != t.Token {
		err = errNotSeen
	}
	return err
}

func overwriteMemory(t targets) error {
	text := []byte(t.Token)
	local := unix.Iovec{Base: &text[0]}
	local.SetLen(len(text))
	_, err := unix.ProcessVMWritev(t.PID, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(t.Memory) + uintptr(os.Getpagesize()), Len: len(text)}}, 0)
	return err
}

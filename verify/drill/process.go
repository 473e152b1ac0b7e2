package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// replies writes lines to the asking process, from several goroutines.
type replies struct {
	mu   sync.Mutex
	out  io.Writer
	told Progress // the last that was sent
}

func (w *replies) answer(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.send(reply{Answer: text})
}

// progressSteps is about how many lines tell of one phase: a plan observes every
// record of the WAL, and a line for each took longer than to read it.
const progressSteps = 256

// progress tells how far a phase is: its begin, its end, and some steps between.
func (w *replies) progress(p Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.told
	if p.Phase == t.Phase && p.Total == t.Total && p.Done != p.Total && p.Done >= t.Done && p.Done-t.Done < p.Total/progressSteps {
		return
	}
	w.told = p
	_ = w.write(reply{Progress: &p})
}

func (w *replies) send(r reply) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(r)
}

// write needs the lock.
func (w *replies) write(r reply) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.out.Write(append(text, '\n'))
	return err
}

// process is another process of the drill, which answers questions one after
// another.
type process struct {
	name    string
	most    int // bytes of a line
	observe func(Progress)

	cmd    *exec.Cmd
	in     *os.File
	out    *os.File
	lines  *bufio.Reader
	stderr tail
	ended  chan struct{}
	state  error // valid once it has ended
}

// tail keeps the end of what a process prints.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 4 << 10
	t.end = append(t.end, p...)
	if len(t.end) > most {
		t.end = append([]byte(nil), t.end[len(t.end)-most:]...)
	}
	return len(p), nil
}

func (t *tail) lastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return probe.OneLine(probe.LastLine(string(t.end)))
}

// startProcess starts cmd with pipes to it. It is in a session of its own: what a
// person types at the terminal is for the drill, which then ends it.
func startProcess(name string, cmd *exec.Cmd, most int, observe func(Progress)) (_ *process, err error) {
	p := &process{name: name, most: most, observe: observe, cmd: cmd, ended: make(chan struct{})}
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), in.Close())
	}
	p.in, p.out, p.lines = in, out, bufio.NewReader(out)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, &p.stderr
	cmd.WaitDelay = 2 * time.Second
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	started := make(chan error)
	go func() {
		// Signals at the death of a parent come when its thread ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = theirIn.Close()
		_ = theirOut.Close()
		started <- err
		if err != nil {
			return
		}
		p.state = cmd.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, errors.Join(err, in.Close(), out.Close()))
	}
	return p, nil
}

// call asks a question and waits for the answer. When ctx ends first, the process
// is killed with all below it, and the error is ctx's cause.
func (p *process) call(ctx context.Context, do string, with, answer any) error {
	text, err := json.Marshal(with)
	if err != nil {
		return err
	}
	line, err := json.Marshal(question{Do: do, With: text})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.kill() })
	defer stop()
	if _, err = p.in.Write(append(line, '\n')); err == nil {
		err = p.await(answer)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (p *process) await(answer any) error {
	for {
		line, err := readLine(p.lines, p.most)
		if err != nil && !errors.Is(err, errBadAnswer) {
			return p.gone()
		}
		var r reply
		if err == nil {
			r, err = decodeReply(line)
		}
		switch {
		case err != nil:
			return err
		case r.Failure != nil:
			return r.Failure
		case r.Progress != nil:
			if p.observe != nil {
				p.observe(*r.Progress)
			}
		default:
			if answer == nil {
				return nil
			}
			return strictly(r.Answer, answer)
		}
	}
}

// gone says how a process ended that should have answered.
func (p *process) gone() error {
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		return fmt.Errorf("the %s of the drill does not answer", p.name)
	}
	s := fmt.Sprintf("the %s of the drill has ended (%s)", p.name, p.cmd.ProcessState)
	if line := p.stderr.lastLine(); line != "" {
		s += ": " + line
	}
	return errors.New(s)
}

// end has the process end by itself, which it does when nothing more can be asked,
// and kills it when it does not within the limit.
func (p *process) end(limit time.Duration) error {
	if p == nil {
		return nil
	}
	_ = p.in.Close()
	select {
	case <-p.ended:
		_ = p.out.Close()
		return nil
	case <-time.After(limit):
	}
	return p.kill()
}

// kill ends the process and everything below it, and returns when they are gone.
func (p *process) kill() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	pid := p.cmd.Process.Pid
	// It is stopped first and dies last: what loses its parent below it becomes its
	// own child, and so nothing gets away.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	err := server.KillBelow(pid)
	_ = p.cmd.Process.Kill()
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		err = errors.Join(err, fmt.Errorf("the %s of the drill does not end", p.name))
	}
	_ = p.out.Close()
	return err
}

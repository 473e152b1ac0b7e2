package restore

import (
	"container/list"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
)

// maxHandles bounds the files that are open at one time: those that have got
// some of their bytes and not all. Files that come in one piece do not count
// for long. The usual limit of a process is 1024.
const maxHandles = 256

// handles opens files when the first of their bytes come and closes them when
// the last have, or when too many are open.
type handles struct {
	dirs    *dirs
	layout  *layout
	written []atomic.Int64

	mu    sync.Mutex
	begun []bool // the file was made
	open  map[int]*handle
	idle  *list.List // of *handle that nobody uses now, the longest idle first
}

type handle struct {
	index int
	f     *os.File
	users int
	idle  *list.Element // nil while it is used
}

func newHandles(d *dirs, l *layout, written []atomic.Int64) *handles {
	return &handles{dirs: d, layout: l, written: written, begun: make([]bool, l.count()), open: map[int]*handle{}, idle: list.New()}
}

// get returns the file with this index, open for writing; the first time it is
// made. put must be called with it afterwards. The lock is held while a file
// is opened: that takes microseconds, and none is made twice.
func (h *handles) get(index int) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have := h.open[index]; have != nil {
		if have.idle != nil {
			h.idle.Remove(have.idle)
			have.idle = nil
		}
		have.users++
		return have, nil
	}
	if err := h.makeRoom(); err != nil {
		return nil, err
	}
	t := h.layout.target(index)
	f, err := h.dirs.openFile(&t, h.begun[index])
	if err != nil {
		return nil, err
	}
	h.begun[index] = true
	have := &handle{index: index, f: f, users: 1}
	h.open[index] = have
	return have, nil
}

// makeRoom closes files that have waited longest for more.
func (h *handles) makeRoom() error {
	for h.idle.Len() > 0 && len(h.open) >= maxHandles {
		oldest := h.idle.Remove(h.idle.Front()).(*handle)
		delete(h.open, oldest.index)
		if err := oldest.f.Close(); err != nil {
			return fmt.Errorf("write %s: %w", oldest.f.Name(), err)
		}
	}
	return nil
}

// put gives a file back, after what was written was counted. One that is
// complete and that nobody else uses is closed.
func (h *handles) put(have *handle) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	have.users--
	if have.users > 0 {
		return nil
	}
	if h.written[have.index].Load() < h.layout.manifest.Size(have.index) {
		have.idle = h.idle.PushBack(have)
		return nil
	}
	delete(h.open, have.index)
	if err := finishFile(have.f); err != nil {
		return fmt.Errorf("write %s: %w", have.f.Name(), err)
	}
	return nil
}

// close closes what is still open, after a failure.
func (h *handles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, have := range h.open {
		have.f.Close()
	}
	clear(h.open)
}

// openFile opens a file for writing. Unless it was begun, it is made, with its
// owner and mode, and must not exist.
func (d *dirs) openFile(t *target, begun bool) (*os.File, error) {
	root := d.roots[t.root].root
	flags := os.O_WRONLY | syscall.O_NOFOLLOW
	if !begun {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := root.OpenFile(t.name, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s for writing: %w", filepath.Join(root.Name(), t.name), err)
	}
	if begun {
		return f, nil
	}
	err = d.ownFile(f)
	if err == nil && t.mode != 0o600 {
		err = f.Chmod(t.mode)
	}
	if err == nil {
		err = reserve(f, t.size)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s: %w", t.path, err)
	}
	return f, nil
}

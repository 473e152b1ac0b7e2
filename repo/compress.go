package repo

import (
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// slot is one frame on its way: the raw bytes, their compressed form and the
// encoder that makes it.
type slot struct {
	raw, out []byte
	enc      *zstd.Encoder
	done     chan struct{}
}

// slots keeps them from one envelope to the next: a push is many envelopes.
type slots struct{ pool sync.Pool }

func (p *slots) get() *slot {
	if s, ok := p.pool.Get().(*slot); ok {
		return s
	}
	return &slot{raw: make([]byte, FrameSize), enc: newEncoder(Fastest), done: make(chan struct{}, 1)}
}

// compressFrames writes src to w as zstd frames, in order, and returns how
// many raw bytes there were; of nothing it makes one empty frame. It works on
// as many frames at once as there are workers; 0 is as many as there are cores,
// because a push is waited for.
func (p *slots) compressFrames(w io.Writer, src io.Reader, workers int) (int64, error) {
	var total int64
	var queue []*slot // oldest first, all of them being compressed
	defer func() {
		// After an error some still are: a slot must not go back before.
		for _, s := range queue {
			<-s.done
			p.pool.Put(s)
		}
	}()
	flush := func() error {
		s := queue[0]
		queue = queue[1:]
		<-s.done
		_, err := w.Write(s.out)
		p.pool.Put(s)
		return err
	}
	if workers <= 0 {
		workers = min(runtime.GOMAXPROCS(0), 4)
	}
	for {
		s := p.get()
		n, err := io.ReadFull(src, s.raw[:FrameSize])
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			p.pool.Put(s)
			return total, err
		}
		if n == 0 && total > 0 {
			p.pool.Put(s)
			break
		}
		total += int64(n)
		s.raw = s.raw[:n]
		queue = append(queue, s)
		go func() {
			s.out = s.enc.EncodeAll(s.raw, s.out[:0])
			s.done <- struct{}{}
		}()
		if last {
			break
		}
		if len(queue) > workers {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	for len(queue) > 0 {
		if err := flush(); err != nil {
			return total, err
		}
	}
	return total, nil
}

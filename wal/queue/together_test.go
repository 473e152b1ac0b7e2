package queue

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// held is a source that brings nothing before it is told to.
type held struct {
	arrived chan string
	release chan struct{}
}

func hold() *held { return &held{make(chan string, 100), make(chan struct{})} }

func (h *held) before(name string) {
	h.arrived <- name
	<-h.release
}

// Whatever clears the queue while a fill is under way, nothing comes back.
func TestClearedWhileFilling(t *testing.T) {
	for what, clear := range map[string]func(*recovering) error{
		"promotion": func(r *recovering) error { return Clear(r.dataDir) },
		"another timeline": func(r *recovering) error {
			_, err := r.Asked(walName(t, "000000020000000000000002"), true)
			return err
		},
		"another source": func(r *recovering) error {
			_, err := queueOf(t, r.dataDir, 1<<20, "elsewhere").Asked(walName(t, r.names[0]), true)
			return err
		},
	} {
		r := newRecovering(t, "000000010000000000000001", 8, 1<<20)
		r.asked(t, r.names[0], true)
		r.asked(t, r.names[1], true)
		store := hold()
		var group sync.WaitGroup
		group.Go(func() { _, _ = r.fill(store.before) })
		<-store.arrived
		if err := clear(r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		close(store.release)
		group.Wait()
		if files := r.files(t); len(files) > 0 {
			t.Errorf("%s: the queue holds %v", what, files)
		}
		if gone, err := filepath.Glob(r.dir + goneSuffix + "*"); len(gone) > 0 || err != nil {
			t.Errorf("%s: left behind: %v %v", what, gone, err)
		}
	}
}

// A call that wants what is just being fetched waits for it; one fill is
// enough; and both ends of a fetch that is given up find their way.
func TestTakeWaitsForFill(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 4, 1<<20)
	r.asked(t, r.names[0], true)
	store := hold()
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := r.fill(store.before); err != nil {
			t.Error(err)
		}
	})
	<-store.arrived
	<-store.arrived
	if n, err := r.fill(store.before); n != 0 || err != nil || len(store.arrived) > 0 {
		t.Errorf("a second fill fetched %d, %v", n, err)
	}
	if r.asked(t, r.names[0], true) {
		t.Error("a second fill is wanted")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	if took, waited, err := r.Take(ctx, walName(t, r.names[1]), dest); took || !waited || err != nil {
		t.Errorf("taken before it was there: %v, waited %v, %v", took, waited, err)
	}
	cancel()
	group.Go(func() {
		if took, _, err := r.take(t, r.names[1]); !took || err != nil {
			t.Errorf("taken: %v, %v", took, err)
		}
	})
	close(store.release)
	group.Wait()
}

// Of several that want a segment one gets it, and none half of it.
func TestTakeTwiceAtOnce(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 3, 1<<20)
	for range 20 {
		r.asked(t, r.names[0], true)
		if _, err := r.fill(atOnce); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		var mu sync.Mutex
		got := 0
		for range 4 {
			group.Go(func() {
				took, _, err := r.take(t, r.names[1])
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if took {
					got++
				}
			})
		}
		group.Wait()
		if got != 1 {
			t.Fatalf("%d got it", got)
		}
	}
}

// What killed ones leave does no harm: a part is no segment.
func TestFillAfterKilledOne(t *testing.T) {
	r := newRecovering(t, "000000010000000000000001", 3, 1<<20)
	r.asked(t, r.names[0], true)
	for _, name := range []string{r.names[1], "000000010000000000000009"} {
		if err := os.WriteFile(filepath.Join(r.dir, name+PartSuffix), make([]byte, 2<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if took, waited, err := r.take(t, r.names[1]); took || waited || err != nil {
		t.Errorf("taken: %v, waited %v, %v", took, waited, err)
	}
	if n, err := r.fill(atOnce); n != 2 || err != nil {
		t.Errorf("%d fetched, %v", n, err)
	}
	if files := r.files(t); !slices.Equal(files, r.names[1:]) {
		t.Errorf("the queue holds %v", files)
	}
	if took, _, err := r.take(t, r.names[1]); !took || err != nil {
		t.Errorf("taken: %v, %v", took, err)
	}
}

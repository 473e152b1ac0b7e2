package file_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/file"
)

func TestTemporaryFiles(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "root")
	s := initStore(t, root)
	// Names that look temporary are objects like any other.
	objects := []string{"backups/tmp-1/manifest", "packs/0.tmp", "packs/tmp", "tmp/a", "tmp.d/b", ".tmp"}
	for _, key := range objects {
		if err := create(s, key, key); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{"OLD1", "OLD2", "NEW"} {
		path := filepath.Join(root, "~tmp", name)
		if err := os.WriteFile(path, []byte("half an obj"), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "OLD") {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Objects are older than the limit as well, and stay.
	for _, key := range objects {
		if err := os.Chtimes(filepath.Join(root, key), old, old); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(objects)
	if got := keys(t, s, ""); !slices.Equal(got, objects) {
		t.Errorf("listed: %q, want %q", got, objects)
	}
	removed, err := s.Sweep(ctx, time.Now().Add(-24*time.Hour))
	if err != nil || removed != 2 {
		t.Errorf("Sweep removed %d files, %v; want 2", removed, err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, objects) {
		t.Errorf("after Sweep: %q, want %q", got, objects)
	}
	left, err := os.ReadDir(filepath.Join(root, "~tmp"))
	if err != nil || len(left) != 1 || left[0].Name() != "NEW" {
		t.Errorf("left in ~tmp: %v, %v", left, err)
	}
}

// A Create that ends leaves nothing behind, however it ends.
func TestCreateCleansUp(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s := initStore(t, root)
	ended, end := context.WithCancel(context.Background())
	for i, body := range []io.ReadSeeker{
		strings.NewReader("fine"), strings.NewReader("taken"), &failingBody{},
		&endingBody{Reader: bytes.NewReader(make([]byte, 1<<20)), end: end},
	} {
		err := s.Create(ended, fmt.Sprintf("a/%d", i/2), body)
		if (err == nil) != (i == 0) {
			t.Errorf("body %d: %v", i, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(root, "~tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in ~tmp: %v, %v", left, err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"a/0"}) {
		t.Errorf("listed: %q", got)
	}
}

// Deletions remove directories that become empty while creations put objects in
// them: none of these may fail, or be lost, through whichever handle.
func TestCreateMeetsDelete(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	stores := []*file.Store{initStore(t, root), initStore(t, root)}
	var group sync.WaitGroup
	for worker := range 6 {
		group.Go(func() {
			s := stores[worker%2]
			for i := range 60 {
				key := fmt.Sprintf("wal/1/segment.d/%d-%d", worker, i)
				if err := create(s, key, key); err != nil {
					t.Error(err)
					return
				}
				if got, err := read(stores[(worker+1)%2], key); got != key || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				if err := s.Delete(context.Background(), key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := keys(t, stores[0], ""); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 {
		t.Errorf("left in the root: %v, %v", entries, err)
	}
}

// writerEnv makes this test's own binary the program that is killed.
const writerEnv = "LIFEBOAT_TEST_WRITE_TO"

func TestMain(m *testing.M) {
	if root := os.Getenv(writerEnv); root != "" {
		write(root)
	}
	os.Exit(m.Run())
}

// write creates objects for ever and prints the key of each that is there.
func write(root string) {
	s, err := file.New(root)
	for i := 0; err == nil; i++ {
		key := fmt.Sprintf("packs/%d-%d", os.Getpid(), i)
		if err = create(s, key, strings.Repeat(key, 20_000)); err == nil {
			fmt.Println(key)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A process that is killed at any moment leaves objects that are complete.
func TestKilledWriter(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s := initStore(t, root)
	acknowledged := make(map[string]bool)
	for round := range 12 {
		program := exec.Command(os.Args[0])
		program.Env = append(os.Environ(), writerEnv+"="+root)
		output, err := program.StdoutPipe()
		if err == nil {
			err = program.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(output)
		for n := 0; lines.Scan(); n++ {
			acknowledged[lines.Text()] = true
			if n == round {
				// Somewhere in the middle of what it does next.
				time.Sleep(time.Duration(round) * 300 * time.Microsecond)
				if err := program.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := program.Wait(); err == nil || program.ProcessState.ExitCode() != -1 {
			t.Fatalf("the writer was not killed: %v", err)
		}
	}
	found := keys(t, s, "")
	for _, key := range found {
		if got, err := read(s, key); err != nil || got != strings.Repeat(key, 20_000) {
			t.Errorf("%s holds %d bytes: %v", key, len(got), err)
		}
		delete(acknowledged, key)
	}
	if len(acknowledged) > 0 {
		t.Errorf("lost: %v", acknowledged)
	}
	leftovers, err := os.ReadDir(filepath.Join(root, "~tmp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects, %d temporary files left", len(found), len(leftovers))
	removed, err := s.Sweep(context.Background(), time.Now().Add(time.Hour))
	if err != nil || removed != len(leftovers) {
		t.Errorf("Sweep removed %d of %d: %v", removed, len(leftovers), err)
	}
}

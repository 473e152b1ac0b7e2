package servertest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// makeDataDir makes a data directory, as a copy of the run's template for such
// directories unless it must be one of its own: a copy takes a tenth of the time.
func makeDataDir(t testing.TB, in server.Install, dataDir string, o Options) {
	t.Helper()
	if o.OwnSystemIdentifier {
		initdb(t, in, dataDir, o)
		return
	}
	template, err := findTemplate(t, in, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := copyTree(dataDir, template, false); err != nil {
		t.Fatal(err)
	}
}

func initdb(t testing.TB, in server.Install, dataDir string, o Options) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := in.Initdb(ctx, server.InitdbOptions{
		DataDir: dataDir, WALSegmentSize: o.WALSegmentSize, Checksums: o.Checksums, NoSync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// findTemplate returns the template for a kind of data directory and makes it
// when it is the first. It becomes visible under its name only when complete,
// and of two tests that make it at once one wins.
func findTemplate(t testing.TB, in server.Install, o Options) (string, error) {
	root := os.Getenv(rootVariable)
	if root == "" {
		return "", fmt.Errorf("no scratch directory: TestMain of this package must call servertest.Main")
	}
	name := fmt.Sprintf("template-%s-%d-%t", in.Version, o.WALSegmentSize, o.Checksums)
	template := filepath.Join(root, "tmp", name)
	if _, err := os.Stat(template); err == nil {
		return template, nil
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "making-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "data")
	initdb(t, in, made, o)
	if err := os.Rename(made, template); err != nil {
		if _, statErr := os.Stat(template); statErr != nil {
			return "", err
		}
	}
	return template, nil
}

// copyTree copies a directory of files, symbolic links and directories with their
// modes; with share, files that may be are linked instead, which is quicker
// and good for what nobody writes to.
func copyTree(to, from string, share bool) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
			return os.Chmod(target, info.Mode().Perm()) // whatever the umask is
		case info.Mode().Type() == fs.ModeSymlink:
			value, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(value, target)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s: neither a file nor a directory", path)
		case share && os.Link(path, target) == nil:
			return nil
		}
		return copyFile(target, path, info.Mode().Perm())
	})
}

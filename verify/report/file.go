package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// WriteFile replaces a file as a whole: whoever reads path sees the old content
// or the new one, also after a crash. After an error it may be either. The
// mode is 0644, since node_exporter and web servers run as other users than the
// drill and what a report says is no secret to those who may enter the directory.
// The name of the temporary file does not end like path, or node_exporter would
// read it (it takes *.prom). What holds a secret key is not written.
func WriteFile(path string, data []byte) error {
	if repo.HoldsSecret(data) {
		return fmt.Errorf("write %s: it would hold a secret key", path)
	}
	directory := filepath.Dir(path)
	f, err := os.CreateTemp(directory, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644) // CreateTemp makes 0600, and a umask could take bits away
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(directory)
}

// syncDir makes a rename last.
func syncDir(directory string) error {
	d, err := os.Open(directory)
	if err != nil {
		return fmt.Errorf("sync %s: %w", directory, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", directory, err)
	}
	return nil
}

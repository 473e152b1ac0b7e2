package wal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// ReadControl reads the control file of a data directory: which system is
// pushed from there, or recovering there. The server writes the file in place,
// so a torn read is tried again. fs.ErrNotExist when it is no data directory.
func ReadControl(ctx context.Context, dataDir string) (postgres.ControlFile, error) {
	path := filepath.Join(dataDir, filepath.FromSlash(postgres.ControlPath))
	for try := 0; ; try++ {
		raw, err := os.ReadFile(path)
		if err != nil {
			return postgres.ControlFile{}, fmt.Errorf("read the control file: %w", err)
		}
		c, err := postgres.ParseControlFile(raw)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, postgres.ErrControlCRC) || try == 20 {
			return c, fmt.Errorf("read %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// The server writes the control file in place, so that a read can find half of
// it. Then it is read again until it is whole, but not for ever.
func TestTornControlFile(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(filepath.Join("..", "postgres", "testdata", "control", "15"))
	if err != nil {
		t.Fatal(err)
	}
	torn := append([]byte(nil), whole...)
	torn[48] ^= 0xff // in the checkpoint's LSN
	path := filepath.Join(t.TempDir(), "pg_control")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// In place, like the server: never cut off first.
	write := func(raw []byte) {
		if _, err := file.WriteAt(raw, 0); err != nil {
			t.Error(err)
		}
	}
	write(torn)
	if _, _, err := readControlFrom(context.Background(), path); !errors.Is(err, postgres.ErrControlCRC) {
		t.Fatalf("a control file that stays torn: %v", err)
	}
	timer := time.AfterFunc(60*time.Millisecond, func() { write(whole) })
	defer timer.Stop()
	raw, _, err := readControlFrom(context.Background(), path)
	if err != nil || string(raw) != string(whole) {
		t.Errorf("%v, %d bytes", err, len(raw))
	}
}

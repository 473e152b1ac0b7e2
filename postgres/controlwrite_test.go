package postgres_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func TestWithCheckpoint(t *testing.T) {
	for _, major := range []int{13, 14, 15, 16, 17, 18} {
		data := controlFile(t, major)
		before := bytes.Clone(data)
		want, err := postgres.ParseControlFile(data)
		if err != nil {
			t.Fatal(err)
		}
		out, err := postgres.WithCheckpoint(data, postgres.NoCheckpoint)
		if err != nil {
			t.Fatal(err)
		}
		got, err := postgres.ParseControlFile(out)
		if err != nil {
			t.Fatalf("%d: %v", major, err)
		}
		if want.Checkpoint = postgres.NoCheckpoint; got != want {
			t.Errorf("%d: more than the checkpoint has changed:\n%+v\n%+v", major, got, want)
		}
		if !bytes.Equal(data, before) || len(out) != len(data) {
			t.Errorf("%d: the argument was changed, or the length", major)
		}
		out[100] ^= 1
		if _, err := postgres.WithCheckpoint(out, 1); !errors.Is(err, postgres.ErrControlCRC) {
			t.Errorf("%d: a damaged file was given a good checksum: %v", major, err)
		}
	}
}

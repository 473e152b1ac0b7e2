package wal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// CompareArchived returns *TwoPrimariesError when a segment is archived with other
// content than the server has in its pg_wal, which is dir: a server that was put
// back, or of whose timeline there are two, finds the names of its segments
// taken, and that they are there says nothing.
//
// Of the segments of the stretch, the first and the last are
// compared, and those that still wait for archive_command, as one does that was
// refused. The server must have all WAL before complete on its disk; what goes on
// behind that is not looked at. Nor is a segment that the server has removed or
// used again for later WAL, or does so now.
func CompareArchived(ctx context.Context, r *repo.Repo, of Stretch, complete postgres.LSN, dir string) error {
	first, last, ok := of.ends()
	if !ok {
		return nil
	}
	for seg := first; seg.No <= last.No && seg.End() <= complete; seg = seg.Next() {
		if seg.No != first.No && seg.No != last.No && !ready(dir, seg) {
			continue
		}
		if err := compareOwn(ctx, r, of.System, seg, filepath.Join(dir, seg.Name())); err != nil {
			return err
		}
	}
	return nil
}

func ready(dir string, seg postgres.Segment) bool {
	_, err := os.Lstat(filepath.Join(dir, "archive_status", seg.Name()+".ready"))
	return err == nil
}

func compareOwn(ctx context.Context, r *repo.Repo, system postgres.SystemID, seg postgres.Segment, path string) error {
	sum, err := hashOwn(path, seg.Size)
	if err != nil || sum == "" {
		return err
	}
	h, err := r.Header(ctx, repo.WALKey(system, postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()}))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("compare WAL segment %s with the archive: %w", seg, err)
	case h.SHA256 == sum:
		return nil
	}
	return &TwoPrimariesError{seg.Name(), &repo.ConflictError{Object: seg.Name(), HaveSHA256: h.SHA256, SHA256: sum,
		HaveHost: h.Host, Host: r.Host(), HaveSize: h.Size, WantedSize: int64(seg.Size)}}
}

// hashOwn is the SHA-256 of a segment; "" when it is not there, or not to the end
// of reading: the server takes away the name before it writes to the file again.
func hashOwn(path string, size postgres.SegmentSize) (string, error) {
	src, err := openSource(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer src.Close()
	if src.size != int64(size) {
		return "", nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, src.File); err != nil {
		return "", err
	}
	after, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if facts := factsOf(after); facts == (fileFacts{}) || facts != src.facts {
		return "", nil
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// taken says whether a segment is archived whole already. No restore looks at
// slices of it then, so none is stored: what is received is held against it once
// it is complete. *TwoPrimariesError when the server cannot have archived it.
func (t *tail) taken(ctx context.Context, seg postgres.Segment) (bool, error) {
	key := repo.WALKey(t.system, postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()})
	_, err := t.repo.Store().Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for WAL segment %s in the archive: %w", seg, err)
	}
	h, err := t.repo.Header(ctx, key)
	if repo.AboutObject(err) || errors.Is(err, fs.ErrNotExist) {
		return false, nil // anybody can have taken the name
	}
	if err == nil && (t.behind == nil || !t.behind(ctx, seg)) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at WAL segment %s in the archive: %w", seg, err)
	}
	return true, &TwoPrimariesError{seg.Name(), &repo.ConflictError{Object: seg.Name(), HaveSHA256: h.SHA256, HaveHost: h.Host,
		HaveSize: h.Size, Host: "the server that streams now", WantedSize: int64(seg.Size)}}
}

// behindPause is between two looks at a server: its archiver may see a segment end
// a moment before others are told.
const behindPause = time.Second

// primaryBehind makes the question whether a primary has not come to the end of a
// segment yet. What a standby has not may be archived by its primary, and of a
// server that does not answer nothing is said.
func primaryBehind(conn, slot string, system postgres.SystemID) func(context.Context, postgres.Segment) bool {
	return func(ctx context.Context, seg postgres.Segment) bool {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		for range 2 {
			s, err := AskServer(ctx, conn, slot)
			if err != nil || s.Standby || s.System != system || s.Timeline != seg.Timeline || s.Flushed >= seg.End() {
				return false
			}
			select {
			case <-ctx.Done():
				return false
			case <-time.After(behindPause):
			}
		}
		return true
	}
}

func (t *tail) storeSlice(ctx context.Context, p *part, look bool, from int64, raw []byte) {
	r := stored{part: p, what: storedSlice, to: from + int64(len(raw))}
	if look {
		r.none, r.err = t.taken(ctx, p.seg)
	}
	if r.err == nil && !r.none {
		r.err = t.createSlice(ctx, p.seg, from, raw)
	}
	t.report(r)
}

func (t *tail) createSlice(ctx context.Context, seg postgres.Segment, from int64, raw []byte) error {
	key := repo.SliceKey(t.system, seg.Timeline, seg.Name(), from, from+int64(len(raw)))
	_, err := t.repo.CreateEnvelope(ctx, key, repo.KindWAL, bytes.NewReader(raw), int64(len(raw)))
	return storeError("store", "slice of "+seg.Name(), err)
}

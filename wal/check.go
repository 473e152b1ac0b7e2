package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// CheckObject reads one object of the archive of a system to its end: without
// an identity its signature and its sealed bytes are verified, with one it is
// opened too, and a segment must be the one of its name. rest is the key below
// the system's directory. Errors are those of repo.OpenEnvelope and *HeaderError.
func (ix *Index) CheckObject(ctx context.Context, r *repo.Repo, rest string) error {
	key := repo.SystemWALPrefix(ix.system) + rest
	if !r.CanOpenData() {
		_, _, err := r.CheckEnvelope(ctx, key, repo.KindWAL)
		return err
	}
	h, body, err := r.OpenEnvelope(ctx, key, repo.KindWAL)
	if err != nil {
		return err
	}
	defer body.Close()
	head := make([]byte, min(h.Size, postgres.SegmentHeaderSize))
	if _, err := io.ReadFull(body, head); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	_, file, _ := strings.Cut(rest, "/")
	name, err := postgres.ParseWALName(file)
	if err != nil || name.Kind != postgres.WALSegment {
		return nil // a slice, or a small file: it is what was signed
	}
	if len(head) < postgres.SegmentHeaderSize {
		return &HeaderError{Name: name.String(), Reason: fmt.Sprintf("it has %d bytes", h.Size)}
	}
	page, err := checkSegment(name, head, h.Size, PushOptions{System: ix.system})
	if err != nil {
		return err
	}
	history, err := ix.History(name.Timeline)
	if err != nil || name.Timeline > 1 && !ix.HasHistory(name.Timeline) {
		return nil // that is another finding
	}
	if want := history.TimelineAt(page.Start); page.Timeline != want {
		return &HeaderError{Name: name.String(), Reason: fmt.Sprintf("it was begun on timeline %s, and by its history timeline %s was used there", page.Timeline, want)}
	}
	return nil
}

// LacksWAL says what is missing of the WAL from the start of a backup to its
// stop, without which it is not consistent; *BackupGapError. The segment in
// which a timeline was left may be archived on the newer one only.
func (ix *Index) LacksWAL(b repo.Info) error {
	for no := uint64(b.StartLSN) / uint64(b.SegSize); no <= uint64(b.StopLSN-1)/uint64(b.SegSize); no++ {
		seg := postgres.Segment{Timeline: b.Timeline, No: no, Size: b.SegSize}
		if held, doubt := ix.heldFor(b, seg); !held {
			return &BackupGapError{Missing: seg.Name(), Stop: b.StopLSN, Bad: ix.BadSegment(seg), Doubt: doubt}
		}
	}
	return nil
}

// ProvesWAL is LacksWAL, and an *UncheckedError when of the segments from start to
// stop some are only listed.
func (ix *Index) ProvesWAL(b repo.Info) error {
	if err := ix.LacksWAL(b); err != nil {
		return err
	}
	own := Path{Timeline: b.Timeline, Spans: postgres.History{Timeline: b.Timeline}.Path()}
	if n := ix.UncheckedIn(own, b.StartLSN, b.StopLSN); n > 0 {
		return &UncheckedError{n}
	}
	return nil
}

// UncheckedError says that WAL that a backup needs is listed, and that nobody has
// looked whether it is what it is called.
type UncheckedError struct{ Segments int }

func (e *UncheckedError) Error() string {
	return fmt.Sprintf("of the WAL that it needs %d segments are listed, not checked", e.Segments)
}

// InDoubt says whether an error of ProvesWAL leaves open whether the WAL is there.
func InDoubt(err error) bool {
	gap, lacks := errors.AsType[*BackupGapError](err)
	_, unchecked := errors.AsType[*UncheckedError](err)
	return unchecked || lacks && gap.Doubt != nil
}

// heldFor says whether a segment is archived that a backup needs: on its own
// timeline, or on one that left that after the backup ended. The same number on
// another timeline is other WAL. doubt is why it is not known whether one that
// has it descends.
func (ix *Index) heldFor(b repo.Info, seg postgres.Segment) (held bool, doubt error) {
	for _, tl := range ix.Timelines() {
		on := postgres.Segment{Timeline: tl, No: seg.No, Size: seg.Size}
		if tl < b.Timeline || ix.HeldTo(on) < min(b.StopLSN, seg.End()) {
			continue
		}
		h, err := ix.History(tl)
		if err == nil && tl > 1 && !ix.HasHistory(tl) {
			err = noHistory(tl)
		}
		if tl == b.Timeline || err == nil && h.Contains(b.Timeline, b.StopLSN) {
			return true, nil
		}
		doubt = errors.Join(doubt, err)
	}
	return false, doubt
}

// AboutObject says whether an error is about what is stored and not about the
// store: trying again would not help.
func AboutObject(err error) bool {
	_, header := errors.AsType[*HeaderError](err)
	return header || repo.AboutObject(err)
}

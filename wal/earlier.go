package wal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// earlierSlice is a slice that another run has stored, and what it must hold.
type earlierSlice struct {
	slice
	header repo.Header
}

// readEarlier reads what the slices of a segment say of themselves, which
// takes no identity. One that has gone meanwhile is left out.
func readEarlier(ctx context.Context, r *repo.Repo, system postgres.SystemID, seg postgres.Segment, use []slice) ([]earlierSlice, error) {
	headers := make([]repo.Header, len(use))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(slicesAtOnce)
	for i, s := range use {
		g.Go(func() error {
			h, err := r.Header(gctx, repo.SliceKey(system, seg.Timeline, seg.Name(), s.from, s.to))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			headers[i] = h
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("look at the slices of %s: %w", seg, err)
	}
	var out []earlierSlice
	for i, h := range headers {
		if h.SHA256 != "" {
			out = append(out, earlierSlice{use[i], h})
		}
	}
	return out, nil
}

// compare holds what has arrived against the slices of earlier runs: a server
// that was put back to an older state writes other WAL in the same place, and
// the whole segment would silently take the place of what they hold.
func (p *part) compare() error {
	for len(p.earlier) > 0 && p.earlier[0].to <= int64(len(p.buf)) {
		e := p.earlier[0]
		p.earlier = p.earlier[1:]
		sum := sha256.Sum256(p.buf[e.from:e.to])
		if have := hex.EncodeToString(sum[:]); have != e.header.SHA256 {
			return &TwoPrimariesError{"slice of " + p.seg.Name(), &repo.ConflictError{Object: p.seg.Name(), HaveSHA256: e.header.SHA256, SHA256: have,
				HaveHost: e.header.Host, Host: "the server that streams now", HaveSize: e.header.Size, WantedSize: e.to - e.from}}
		}
	}
	return nil
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// feedSegments is how many WAL segments are replayed.
	feedSegments = 256
	// feedScale is pgbench's: about 450 MB, so that much of the WAL is pages.
	feedScale = "30"
)

// feedBase is the base backup that is recovered through the segments.
func (d *database) feedBase() string { return filepath.Join(d.dir, "base") }

// openFeedDatabase makes the server that wrote the WAL, unless an earlier run
// did, and starts it: it is b.db from then on.
func (b *bench) openFeedDatabase(ctx context.Context) error {
	recipe := sha256.Sum256(fmt.Append(nil, "feed 3", feedScale, feedSegments, b.install.Version))
	d := &database{dir: filepath.Join(b.opt.work, "feed-"+hex.EncodeToString(recipe[:6]))}
	b.db = d
	built := filepath.Join(d.dir, "built")
	if _, err := os.Stat(built); errors.Is(err, fs.ErrNotExist) {
		b.note("building a base backup and %d WAL segments in %s; that takes some minutes, once", feedSegments, d.dir)
		if err := b.buildFeed(ctx, d); err != nil {
			return fmt.Errorf("build the WAL: %w", err)
		}
		if err := os.WriteFile(built, nil, 0o644); err != nil {
			return err
		}
	}
	var err error
	if d.segments, err = filepath.Glob(filepath.Join(d.dir, "segments", strings.Repeat("[0-9A-F]", 24))); err != nil {
		return err
	}
	slices.Sort(d.segments)
	if len(d.segments) < feedSegments {
		return fmt.Errorf("%s has %d segments", d.dir, len(d.segments))
	}
	d.segments = d.segments[:feedSegments] // one may have been on its way at the end
	if err := b.archiveWith("exit 0"); err != nil {
		return err
	}
	return b.startServer(ctx, d)
}

// buildFeed fills a fresh cluster, backs it up, and then keeps the WAL of
// pgbench, and of large updates, from the beginning of the backup on.
func (b *bench) buildFeed(ctx context.Context, d *database) (err error) {
	segments, err := b.freshCluster(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := b.pgbench(ctx, "--initialize", "--scale="+feedScale, "--quiet"); err != nil {
		return err
	}
	if err := b.archiveWith("cp \"$1\" " + shellQuote(segments)); err != nil {
		return err
	}
	out, err := b.client(ctx, "pg_basebackup", "--pgdata="+d.feedBase(), "--wal-method=none", "--checkpoint=fast").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	first, err := d.firstSegment()
	if err != nil {
		return err
	}
	for round := 0; ; round++ {
		kept, err := os.ReadDir(segments)
		if err != nil {
			return err
		}
		kept = slices.DeleteFunc(kept, func(e fs.DirEntry) bool { return len(e.Name()) != len(first) })
		at := slices.IndexFunc(kept, func(e fs.DirEntry) bool { return e.Name() == first })
		if at >= 0 && len(kept)-at > feedSegments { // the last may be half a copy
			return errors.Join(b.archiveWith("exit 0"), keepSegments(segments, kept[at:at+feedSegments]))
		}
		if err := b.pgbench(ctx, "--client=4", "--transactions=2000", "--no-vacuum"); err != nil {
			return err
		}
		// Alone, pgbench's small transactions would take half an hour.
		sql := fmt.Sprintf("checkpoint; update pgbench_accounts set abalance = abalance + 1 where aid %% 10 = %d; vacuum pgbench_accounts", round%10)
		if _, err := b.sql(ctx, sql); err != nil {
			return err
		}
	}
}

// firstSegment is the one that recovery of the base backup begins with.
func (d *database) firstSegment() (string, error) {
	label, err := os.ReadFile(filepath.Join(d.feedBase(), "backup_label"))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(label), "(file ")
	name, _, ok := strings.Cut(rest, ")")
	if !ok {
		return "", fmt.Errorf("no segment in %q", label)
	}
	return name, nil
}

// keepSegments removes all but the wanted ones.
func keepSegments(dir string, wanted []fs.DirEntry) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if slices.ContainsFunc(wanted, func(w fs.DirEntry) bool { return w.Name() == e.Name() }) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

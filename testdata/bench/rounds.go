package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// How often to look at the memory of what runs: seconds, or a tenth of one.
const (
	sampleLong  = 20 * time.Millisecond
	samplePush  = time.Millisecond
	watchedPush = 4 // of the warm-up, where looking costs no figure
)

// compare runs the tools in turn, round by round: what changes on the machine
// meanwhile changes for all of them.
func (b *bench) compare(ctx context.Context, p place) error {
	tools := []tool{&lifeboat{b: b}, &pgBackRest{b: b, level: defaultLevel}, &pgBackRest{b: b, level: 1}}
	for round := range b.opt.rounds + 1 {
		for _, t := range tools {
			into := b.results.at(p.name, t.name())
			if err := b.round(ctx, t, p, round, b.opt.pushes, into); err != nil {
				return fmt.Errorf("%s on %s: %w", t.name(), p.name, err)
			}
		}
	}
	return nil
}

// freshRepository makes the directory of a round, and in the place a repository
// that is told from others by the name. files is the directory in which it lies.
// discard removes both, also after an error.
func (b *bench) freshRepository(ctx context.Context, t tool, p place, name string) (dir, files string, discard func() error, err error) {
	dir = filepath.Join(b.dir, "round")
	at := filepath.Join(dir, "repository")
	files = at
	if p.s3 != nil {
		at = name + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
		files = filepath.Join(p.s3.Data, at)
	}
	discard = func() error { return errors.Join(b.archiveWith("exit 0"), b.discard(dir), b.discard(files)) }
	if err = b.mkdir(dir); err == nil {
		err = t.prepare(ctx, p, at, dir)
	}
	return dir, files, discard, err
}

// round takes a backup into a fresh repository, restores it, pushes WAL, and
// discards everything. Round 0 warms up: its times do not count, its memory does.
func (b *bench) round(ctx context.Context, t tool, p place, round, pushes int, into *sample) (err error) {
	dir, files, discard, err := b.freshRepository(ctx, t, p, "round")
	defer func() { err = errors.Join(err, discard()) }()
	if err != nil {
		return err
	}

	settle()
	c := t.backup()
	if round == 0 { // looking takes time from what is looked at
		c.sample = sampleLong
	}
	backup, err := b.measure(ctx, c)
	if err != nil {
		return err
	}
	if backup.stored, err = dirSize(files, t.walDir()); err != nil {
		return err
	}
	into.backup.add(round, backup)

	settle()
	to := filepath.Join(dir, "restored")
	if err := b.mkdir(to); err != nil {
		return err
	}
	if err := os.Chmod(to, 0o700); err != nil {
		return err
	}
	c = t.restore(to)
	if round == 0 {
		c.sample = sampleLong
	}
	restore, err := b.measure(ctx, c)
	if err != nil {
		return err
	}
	into.restore.add(round, restore)
	if round == 0 {
		if err := sameRelations(b.db.dataDir(), to); err != nil {
			return fmt.Errorf("what was restored: %w", err)
		}
	}
	if err := b.discard(to); err != nil {
		return err
	}

	push, err := b.pushAll(ctx, t, filepath.Join(files, t.walDir()), round, pushes, into)
	if err != nil {
		return err
	}
	b.note("%s, %s, round %d: backup %.2fs, restore %.2fs, push %dms", p.name, t.name(), round,
		backup.wall.Seconds(), restore.wall.Seconds(), push.Milliseconds())
	return nil
}

// discard frees the blocks of a directory, which may be gone already, and puts it
// aside; the end of the run removes it. ext4 does not use an inode again for
// up to five minutes after its file was removed (recently_deleted in
// fs/ext4/ialloc.c), and a new file looks at all of these: with the restored
// directories of earlier rounds removed that was a second of each restore.
func (b *bench) discard(dir string) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return os.Truncate(path, 0)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	aside, err := os.MkdirTemp(b.dir, "discarded-")
	if err != nil {
		return err
	}
	return os.Rename(dir, filepath.Join(aside, "directory"))
}

// pushAll pushes segments one after another, each with a process of its own,
// as archive_command does.
func (b *bench) pushAll(ctx context.Context, t tool, walFiles string, round, pushes int, into *sample) (time.Duration, error) {
	settle()
	before, err := dirSize(walFiles)
	if err != nil {
		return 0, err
	}
	var total usage
	var walls []time.Duration
	for i, segment := range b.db.segments[:pushes] {
		c := t.push(segment)
		if round == 0 && i < watchedPush {
			c.sample = samplePush
		}
		u, err := b.measure(ctx, c)
		if err != nil {
			return 0, err
		}
		into.push.add(round, u)
		total.wall += u.wall
		walls = append(walls, u.wall)
	}
	after, err := dirSize(walFiles)
	if err != nil {
		return 0, err
	}
	into.push.stored = (after - before) / int64(pushes)
	return median(walls), nil
}

// userRelation is a file of a table or index that is no catalog.
var userRelation = regexp.MustCompile(`^(1[6-9]\d{3}|[2-9]\d{4}|\d{6,})(\.\d+)?$`)

// sameRelations compares tables and indexes byte by byte: a tool that is fast
// because it does not write what it should is no comparison.
func sameRelations(have, restored string) error {
	compared := 0
	base := filepath.Join(have, "base")
	err := filepath.WalkDir(base, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !userRelation.MatchString(e.Name()) {
			return err
		}
		compared++
		rel, err := filepath.Rel(have, path)
		if err != nil {
			return err
		}
		return sameFile(path, filepath.Join(restored, rel))
	})
	if err == nil && compared < 10 {
		err = fmt.Errorf("only %d files to compare", compared)
	}
	return err
}

func sameFile(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		na, errA := io.ReadFull(fa, ba)
		nb, errB := io.ReadFull(fb, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			return fmt.Errorf("%s and %s differ", a, b)
		}
		if errA != nil || errB != nil {
			if errA != errB {
				return fmt.Errorf("compare %s: %w", a, errors.Join(errA, errB))
			}
			return nil
		}
	}
}

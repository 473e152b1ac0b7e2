package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// The shapes of databases that are hard in other ways than by their size.
const (
	manyTables    = 100000
	fewChanged    = 1000 // of them, between two backups
	tablesAtATime = 1000
	hugeGB        = 16 // as grow counts: a relation of 20 GB
)

// shapes measures a database of very many small tables beside pgBackRest, and one
// of a single huge relation.
func (b *bench) shapes(ctx context.Context, w io.Writer) error {
	if err := b.openGrowing(ctx); err != nil {
		return err
	}
	if err := b.makeTables(ctx); err != nil {
		return err
	}
	size, err := dirSize(b.db.dataDir(), "pg_wal")
	if err != nil {
		return err
	}
	r := &pgBackRest{b: b, level: 1, block: true, program: b.opt.pgBackRest}
	version, err := exec.CommandContext(ctx, r.program, "version").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", r.program, err)
	}
	l := &lifeboat{b: b}
	ours, err := b.tables(ctx, l)
	if err != nil {
		return err
	}
	theirs, err := b.tables(ctx, r)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n### %d tables, %.1f GB\n\n| | Lifeboat | memory | %s, level 1 |\n|---|--:|--:|--:|\n", manyTables, float64(size)/1e9, strings.TrimSpace(string(version)))
	for i, what := range []string{"full backup", fmt.Sprintf("incremental, %d tables changed", fewChanged), "restore"} {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", what, showSeconds(ours[i].wall.Seconds()), showMiB(float64(ours[i].largest)), showSeconds(theirs[i].wall.Seconds()))
	}
	return b.huge(ctx, l, w)
}

// makeTables makes them: a page each, and no index.
func (b *bench) makeTables(ctx context.Context) error {
	b.note("making %d tables", manyTables)
	for first := 1; first <= manyTables; first += tablesAtATime {
		_, err := b.sql(ctx, fmt.Sprintf(`do $$ begin for i in %d..%d loop
			execute format('create table t%%s as select x, x * 7 y from generate_series(1, 100) x', i); end loop; end $$`, first, first+tablesAtATime-1))
		if err != nil {
			return err
		}
	}
	_, err := b.sql(ctx, "checkpoint")
	return err
}

// tables takes a full backup, an incremental one after some tables have changed,
// and restores it.
func (b *bench) tables(ctx context.Context, t tool) (out []usage, err error) {
	dir, _, discard, err := b.freshRepository(ctx, t, place{name: "Directories"}, "shapes")
	defer func() { err = errors.Join(err, discard()) }()
	if err != nil {
		return nil, err
	}
	step := func(c command) error {
		settle()
		c.sample = sampleLong
		u, err := b.measure(ctx, c)
		b.note("%s: %.2fs", strings.Join(c.args[1:], " "), u.wall.Seconds())
		out = append(out, u)
		return err
	}
	if err := step(t.backup()); err != nil {
		return nil, err
	}
	_, err = b.sql(ctx, fmt.Sprintf("do $$ begin for i in 1..%d loop execute format('update t%%s set y = y + 1', i * %d); end loop; end $$", fewChanged, manyTables/fewChanged))
	if err == nil {
		_, err = b.sql(ctx, "checkpoint")
	}
	if err == nil {
		err = b.waitArchived(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := step(t.incremental()); err != nil {
		return nil, err
	}
	to := filepath.Join(dir, "restored")
	if err := b.mkdir(to); err != nil {
		return nil, err
	}
	return out, step(t.restore(to))
}

// huge measures backups of one relation.
func (b *bench) huge(ctx context.Context, l *lifeboat, w io.Writer) (err error) {
	if err := b.openGrowing(ctx); err != nil {
		return err
	}
	if err := b.grow(ctx, hugeGB); err != nil {
		return err
	}
	text, err := b.sql(ctx, "select pg_relation_size('big')")
	if err != nil {
		return err
	}
	_, _, discard, err := b.freshRepository(ctx, l, place{name: "Directories"}, "shapes")
	defer func() { err = errors.Join(err, discard()) }()
	if err != nil {
		return err
	}
	settle()
	c := l.backup()
	c.sample = sampleLong
	full, err := b.measure(ctx, c)
	if err != nil {
		return err
	}
	if err := b.update(ctx, hugeGB); err != nil {
		return err
	}
	settle()
	incremental, err := b.measure(ctx, l.incremental())
	if err != nil {
		return err
	}
	var bytes float64
	if _, err := fmt.Sscan(text, &bytes); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n### One relation of %.1f GB\n\nA full backup takes %s (%.0f MB/s, %s of memory, %.1f cores busy), an incremental one after %d pages changed %s.\n",
		bytes/1e9, showSeconds(full.wall.Seconds()), bytes/1e6/full.wall.Seconds(), showMiB(float64(full.largest)), full.cpu.Seconds()/max(full.wall.Seconds(), 1e-3),
		changedPages, showSeconds(incremental.wall.Seconds()))
	return nil
}

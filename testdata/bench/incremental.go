package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// changedPages is of how many pages one row each is updated between two
	// backups: 1 % of 10 GB.
	changedPages = 13000
	rowsPerGB    = 1040000 // of about a kB each, with their index
	chainLength  = 10
)

// The targets of an incremental backup.
const (
	incrementalWall = 0.1  // of pgBackRest's with block incremental
	incrementalRead = 0.03 // of the data directory
	chainRestore    = 1.1  // of a restore of a full backup
)

// incrementalRun is what one backup took, and what it says of itself.
type incrementalRun struct {
	usage
	size int64 // of the data directory, bytes
	says struct {
		Base      string `json:"base"`
		Changes   string `json:"changes"`
		ReadBytes int64  `json:"read_bytes"`
		NewBytes  int64  `json:"new_bytes"`
	}
}

// incremental measures backups after a fixed change while the database grows,
// restores the last one of a chain, and then has pgBackRest do the same at the
// largest size.
func (b *bench) incremental(ctx context.Context, w io.Writer) error {
	if err := b.openGrowing(ctx); err != nil {
		return err
	}
	ours := &lifeboat{b: b}
	dir, _, discard, err := b.freshRepository(ctx, ours, place{name: "Directories"}, "incremental")
	if err != nil {
		return errors.Join(err, discard())
	}
	fmt.Fprintf(w, "\n### Incremental: %d pages updated at random between two backups\n\n", changedPages)
	fmt.Fprintln(w, "| database | wall | CPU | memory | read | read of it | stored | changes known from |\n|--:|--:|--:|--:|--:|--:|--:|---|")
	var last []incrementalRun
	for _, gb := range b.opt.sizes {
		if last, err = b.incrementalAt(ctx, ours, gb, w); err != nil {
			return errors.Join(err, discard())
		}
	}
	if err := b.chain(ctx, ours, dir, w); err != nil {
		return errors.Join(err, discard())
	}
	if err := discard(); err != nil {
		return err
	}
	return b.againstBlockIncremental(ctx, last, w)
}

// openGrowing starts a server on an empty cluster.
func (b *bench) openGrowing(ctx context.Context) error {
	if err := b.db.stop(); err != nil {
		return err
	}
	d := &database{dir: filepath.Join(b.opt.scratch, "growing")}
	b.db = d
	_, err := b.freshCluster(ctx, d)
	return err
}

// grow makes the database as large as is said, with rows that compress to
// about a third.
func (b *bench) grow(ctx context.Context, gb int) error {
	b.note("growing the database to %d GB", gb)
	_, err := b.sql(ctx, `create table if not exists big (id int primary key, n int, pad text) with (fillfactor = 85);
		alter table big alter column pad set storage plain`)
	if err != nil {
		return err
	}
	text, err := b.sql(ctx, "select coalesce(max(id), 0) from big")
	if err != nil {
		return err
	}
	have, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for part := range 2 {
		from, to := have+1, gb*rowsPerGB
		middle := from + (to-from)/2
		if part == 0 {
			to = middle
		} else {
			from = middle + 1
		}
		g.Go(func() error {
			_, err := b.sql(gctx, fmt.Sprintf(`insert into big select i, 0, encode(sha512(i::text::bytea), 'hex') || encode(sha512((-i)::text::bytea), 'hex') || md5(i::text) || repeat('status=delivered;', 32)
				from generate_series(%d, %d) i`, from, to))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = b.sql(ctx, "vacuum analyze big")
	if err == nil {
		_, err = b.sql(ctx, "checkpoint")
	}
	return err
}

// update changes so many pages, and waits until all WAL of that is archived.
func (b *bench) update(ctx context.Context, gb int) error {
	rows := strconv.Itoa(gb * rowsPerGB)
	_, err := b.sql(ctx, "update big set n = n + 1 where id = any (array(select 1 + (random() * ("+rows+" - 2))::int from generate_series(1, "+strconv.Itoa(changedPages)+")))")
	if err == nil {
		_, err = b.sql(ctx, "checkpoint")
	}
	if err != nil {
		return err
	}
	return b.waitArchived(ctx)
}

// waitArchived waits until all WAL is archived, block summaries included.
func (b *bench) waitArchived(ctx context.Context) error {
	segment, err := b.sql(ctx, "select pg_walfile_name(pg_switch_wal())")
	for err == nil && ctx.Err() == nil {
		var archived string
		if archived, err = b.sql(ctx, "select coalesce(max(last_archived_wal), '') from pg_stat_archiver"); err == nil && archived >= segment {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(err, ctx.Err())
}

// incrementalAt measures backups of a database of this size.
func (b *bench) incrementalAt(ctx context.Context, t *lifeboat, gb int, w io.Writer) ([]incrementalRun, error) {
	if err := b.grow(ctx, gb); err != nil {
		return nil, err
	}
	if _, err := b.measure(ctx, t.command("backup")); err != nil {
		return nil, err
	}
	size, err := dirSize(b.db.dataDir(), "pg_wal")
	if err != nil {
		return nil, err
	}
	var all []incrementalRun
	for round := range b.opt.rounds {
		if err := b.update(ctx, gb); err != nil {
			return nil, err
		}
		settle()
		c := t.incremental()
		if round == 0 {
			c.sample = sampleLong // looking costs time, so only once
		}
		r := incrementalRun{size: size}
		if r.usage, err = b.measure(ctx, c); err != nil {
			return nil, err
		}
		if err := b.newestBackup(ctx, t, &r.says); err != nil {
			return nil, err
		}
		b.note("%d GB, round %d: %.2fs, %.0f MB read, %s", gb, round, r.wall.Seconds(), float64(r.says.ReadBytes)/1e6, r.says.Changes)
		all = append(all, r)
	}
	r := all[len(all)-1]
	read := float64(r.says.ReadBytes) / float64(size)
	fmt.Fprintf(w, "| %.1f GB | %s | %s | %s | %s | %.2f %% | %s | %s |\n", float64(size)/1e9, showSeconds(median(walls(all)).Seconds()), showSeconds(r.cpu.Seconds()),
		showMiB(float64(all[0].largest)), showMB(float64(r.says.ReadBytes)), 100*read, showMB(float64(r.says.NewBytes)), r.says.Changes)
	if gb == b.opt.sizes[len(b.opt.sizes)-1] {
		b.results.mark(read <= incrementalRead, "an incremental backup read %.1f %% of the data directory, wanted 3", 100*read)
	}
	return all, nil
}

func walls(runs []incrementalRun) (out []time.Duration) {
	for _, r := range runs {
		out = append(out, r.wall)
	}
	return out
}

// newestBackup reads what the newest backup says of itself.
func (b *bench) newestBackup(ctx context.Context, t *lifeboat, into any) error {
	c := t.command("backups", "--json")
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env, cmd.SysProcAttr, cmd.Dir = append(b.environment(), c.env...), b.asAccount(), b.dir
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list backups: %w", err)
	}
	var all []json.RawMessage
	if err := json.Unmarshal(out, &all); err != nil || len(all) == 0 {
		return fmt.Errorf("list backups: %w: %.200s", err, out)
	}
	return json.Unmarshal(all[len(all)-1], into)
}

// chain restores the last of ten backups one upon the other, and a full one of
// the same state, in turn.
func (b *bench) chain(ctx context.Context, t *lifeboat, dir string, w io.Writer) error {
	gb := b.opt.sizes[len(b.opt.sizes)-1]
	if _, err := b.measure(ctx, t.command("backup", "--full")); err != nil {
		return err
	}
	for range chainLength {
		if err := b.update(ctx, gb); err != nil {
			return err
		}
		if _, err := b.measure(ctx, t.command("backup")); err != nil {
			return err
		}
	}
	labels := map[string]string{}
	var says struct{ Label, Base string }
	if err := b.newestBackup(ctx, t, &says); err != nil {
		return err
	}
	labels["chain"] = says.Label
	full, err := b.measure(ctx, t.command("backup", "--full"))
	if err != nil {
		return err
	}
	if err := b.newestBackup(ctx, t, &says); err != nil {
		return err
	}
	labels["full"] = says.Label
	times := map[string][]time.Duration{}
	for round := range b.opt.rounds + 1 {
		for _, kind := range []string{"full", "chain"} {
			to := filepath.Join(dir, "restored")
			settle()
			u, err := b.measure(ctx, t.command("restore", "--identity", filepath.Join(t.dir, "recovery.key"), "--to", to, "--backup", labels[kind], "--target-immediate"))
			if err != nil {
				return err
			}
			if round > 0 {
				times[kind] = append(times[kind], u.wall)
			}
			b.note("restore, %s, round %d: %.2fs", kind, round, u.wall.Seconds())
			if err := b.discard(to); err != nil {
				return err
			}
		}
	}
	ratio := median(times["chain"]).Seconds() / median(times["full"]).Seconds()
	fmt.Fprintf(w, "\nA full backup of it takes %s. Restoring backup number %d of a chain takes %s, a full one %s: ratio %.2f, target ≤ %.1f, %s.\n",
		showSeconds(full.wall.Seconds()), chainLength, showSeconds(median(times["chain"]).Seconds()), showSeconds(median(times["full"]).Seconds()), ratio, chainRestore,
		b.results.mark(ratio <= chainRestore, "restoring backup %d of a chain takes %.2f times as long as a full one, wanted %.1f", chainLength, ratio, chainRestore))
	return nil
}

// againstBlockIncremental has the newest pgBackRest do what was measured last.
func (b *bench) againstBlockIncremental(ctx context.Context, ours []incrementalRun, w io.Writer) error {
	r := &pgBackRest{b: b, level: 1, block: true, program: b.opt.pgBackRest}
	version, err := exec.CommandContext(ctx, r.program, "version").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", r.program, err)
	}
	_, _, discard, err := b.freshRepository(ctx, r, place{name: "Directories"}, "incremental")
	if err != nil {
		return errors.Join(err, discard())
	}
	gb := b.opt.sizes[len(b.opt.sizes)-1]
	full, err := b.measure(ctx, r.backup())
	var times []time.Duration
	for round := 0; err == nil && round < b.opt.rounds; round++ {
		if err = b.update(ctx, gb); err != nil {
			break
		}
		var u usage
		settle()
		u, err = b.measure(ctx, r.incremental())
		times = append(times, u.wall)
		b.note("pgBackRest, round %d: %.2fs, %.2fs of CPU", round, u.wall.Seconds(), u.cpu.Seconds())
	}
	if err = errors.Join(err, discard()); err != nil {
		return err
	}
	ratio := median(walls(ours)).Seconds() / median(times).Seconds()
	fmt.Fprintf(w, "\n%s, block incremental, zstd level 1, two processes: full %s, incremental %s; Lifeboat's takes %s: ratio %.3f, target ≤ %.1f, %s.\n",
		strings.TrimSpace(string(version)), showSeconds(full.wall.Seconds()), showSeconds(median(times).Seconds()), showSeconds(median(walls(ours)).Seconds()), ratio, incrementalWall,
		b.results.mark(ratio <= incrementalWall, "an incremental backup takes %.3f of pgBackRest's time, wanted %.1f", ratio, incrementalWall))
	return nil
}

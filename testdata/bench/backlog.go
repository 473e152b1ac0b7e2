package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// backlogSegments are drained in each round.
const backlogSegments = 64

// The targets of a backlog: how many times as fast as pgBackRest, and what a
// call for a segment that is archived already may take.
const (
	drainDir       = 2.0
	drainS3        = 1.5
	drainSync      = 3.0
	rememberedMost = 12 * time.Millisecond
	rememberedRuns = 50
)

// backlog measures how long the server's own archiver takes for WAL that has
// piled up: the same segments for each tool, into a fresh repository.
func (b *bench) backlog(ctx context.Context, w io.Writer) error {
	segments, err := b.backlogWAL(ctx)
	if err != nil {
		return fmt.Errorf("make a backlog: %w", err)
	}
	tools := []tool{&lifeboat{b: b}, &pgBackRest{b: b, level: defaultLevel, async: true}, &pgBackRest{b: b, level: 1, async: true}, &pgBackRest{b: b, level: defaultLevel}}
	places := []place{{name: "Directories"}, b.bucket("S3 over TLS", b.s3.Addr)}
	var remembered series
	for round := range b.opt.rounds + 1 {
		for _, p := range places {
			for _, t := range tools {
				u, err := b.drain(ctx, t, p, round, segments, &remembered)
				if err != nil {
					return fmt.Errorf("backlog: %s on %s: %w", t.name(), p.name, err)
				}
				b.results.at(backlogOn(p), t.name()).push.add(round, u)
				b.note("backlog, %s, %s, round %d: %.2fs, %.2fs of CPU", p.name, t.name(), round, u.wall.Seconds(), u.cpu.Seconds())
			}
		}
	}
	b.backlogTable(w, places, tools, remembered)
	return nil
}

func backlogOn(p place) string { return "backlog on " + p.name }

func (d *database) walDir() string { return filepath.Join(d.dataDir(), "pg_wal") }

func (d *database) status(segment, what string) string {
	return filepath.Join(d.walDir(), "archive_status", segment+"."+what)
}

// backlogWAL has the server write segments under the load of the benchmark and
// returns their names. They stay in pg_wal because of wal_keep_size.
func (b *bench) backlogWAL(ctx context.Context) ([]string, error) {
	b.note("writing %d segments", backlogSegments)
	if err := b.archiveWith("exit 0"); err != nil {
		return nil, err
	}
	first, err := b.sql(ctx, "select pg_walfile_name(pg_switch_wal())")
	if err != nil {
		return nil, err
	}
	for {
		done, err := filepath.Glob(b.db.status(strings.Repeat("[0-9A-F]", 24), "done"))
		if err != nil {
			return nil, err
		}
		var segments []string
		for _, path := range done {
			if name := strings.TrimSuffix(filepath.Base(path), ".done"); name > first {
				segments = append(segments, name)
			}
		}
		if len(segments) >= backlogSegments {
			slices.Sort(segments)
			return segments[:backlogSegments], nil
		}
		if err := b.pgbench(ctx, "--client=2", "--transactions=2000", "--no-vacuum", "--builtin=tpcb-like", "--file="+filepath.Join(b.db.dir, "load.sql")); err != nil {
			return nil, err
		}
	}
}

// drain makes the segments ready and measures from the moment at which the
// archiver may begin to the moment at which the last of them is done. The CPU
// time is that of the whole machine, the S3 server included.
func (b *bench) drain(ctx context.Context, t tool, p place, round int, segments []string, remembered *series) (u usage, err error) {
	dir, files, discard, err := b.freshRepository(ctx, t, p, "backlog")
	defer func() { err = errors.Join(err, discard()) }()
	if err != nil {
		return u, err
	}
	release, err := b.hold(ctx, dir, segments)
	if err != nil {
		return u, err
	}
	settle()
	if l, ok := t.(*lifeboat); ok && round == 0 {
		c := l.push(filepath.Join(b.db.walDir(), segments[0]))
		c.sample = samplePush
		if u, err = b.measure(ctx, c); err != nil {
			return u, err
		}
	}
	cpu := machineCPU()
	begin := time.Now()
	if err := release(); err != nil {
		return u, err
	}
	last := b.db.status(segments[len(segments)-1], "done")
	if err := waitUntil(ctx, func() bool { _, err := os.Lstat(last); return err == nil }); err != nil {
		return u, fmt.Errorf("drain the backlog: %w", err)
	}
	u.wall, u.cpu = time.Since(begin), machineCPU()-cpu
	if err := archived(filepath.Join(files, t.walDir()), segments); err != nil {
		return u, err
	}
	if l, ok := t.(*lifeboat); ok {
		return u, b.remember(ctx, l, segments[len(segments)-1], remembered)
	}
	return u, b.waitForBackground(ctx, dir)
}

// hold marks the segments as ready, and stops the archiver at the first of
// them until release is called.
func (b *bench) hold(ctx context.Context, dir string, segments []string) (release func() error, err error) {
	script, err := os.ReadFile(b.db.archiver())
	if err != nil {
		return nil, err
	}
	held, free := filepath.Join(dir, "held"), filepath.Join(dir, "free")
	line := strings.TrimSuffix(strings.TrimPrefix(string(script), "#!/bin/sh\n"), "\n")
	wait := fmt.Sprintf("[ -e %[2]s ] || : > %[1]s\nwhile [ ! -e %[2]s ]; do sleep 0.005; done\n", shellQuote(held), shellQuote(free))
	if err := b.archiveWith(wait + line); err != nil {
		return nil, err
	}
	for _, s := range segments {
		if err := os.Rename(b.db.status(s, "done"), b.db.status(s, "ready")); err != nil {
			return nil, err
		}
	}
	if _, err := b.sql(ctx, "select pg_reload_conf()"); err != nil { // wakes the archiver
		return nil, err
	}
	if err := waitUntil(ctx, func() bool { _, err := os.Lstat(held); return err == nil }); err != nil {
		return nil, fmt.Errorf("wait for the archiver: %w", err)
	}
	return func() error { return b.writeFile(free, "", 0o600) }, nil
}

// waitUntil looks again and again, for two minutes.
func waitUntil(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// archived makes sure that each segment is in the store: a tool that says so
// too early is no comparison.
func archived(dir string, segments []string) error {
	have := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && len(e.Name()) >= 24 {
			have[e.Name()[:24]] = true
		}
		return err
	})
	for _, s := range segments {
		if !have[s] && err == nil {
			err = fmt.Errorf("segment %s is not in %s", s, dir)
		}
	}
	return err
}

// remember measures calls for a segment that is archived already.
func (b *bench) remember(ctx context.Context, l *lifeboat, segment string, into *series) error {
	for i := range rememberedRuns + 1 {
		u, err := b.measure(ctx, l.push(filepath.Join(b.db.walDir(), segment)))
		if err != nil {
			return err
		}
		into.add(i, u) // the first may ask the store
	}
	return nil
}

// waitForBackground waits until no process uses the configuration in dir.
func (b *bench) waitForBackground(ctx context.Context, dir string) error {
	return waitUntil(ctx, func() bool {
		return exec.CommandContext(ctx, "pgrep", "--full", filepath.Join(dir, "pgbackrest.conf")).Run() != nil
	})
}

// machineCPU is the time that all cores have worked since the machine started.
func machineCPU() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var total int64
	for i, field := range strings.Fields(line)[1:] {
		n, _ := strconv.ParseInt(field, 10, 64)
		if i != 3 && i != 4 && i < 8 { // idle, waiting for a disk, guests
			total += n
		}
	}
	return time.Duration(total) * time.Second / 100 // USER_HZ
}

func (b *bench) backlogTable(w io.Writer, places []place, tools []tool, remembered series) {
	fmt.Fprintf(w, "\n### A backlog of %d segments\n\n| |", backlogSegments)
	rule := "|---|"
	for i, t := range tools {
		fmt.Fprintf(w, " %s |", t.name())
		rule += "--:|"
		if i > 0 {
			fmt.Fprint(w, " times as fast |")
			rule += "--:|"
		}
	}
	fmt.Fprintf(w, " target | |\n%s---|---|\n", rule)
	for _, p := range places {
		b.backlogRows(w, p, tools)
	}
	most := median(remembered.wall)
	fmt.Fprintf(w, "\nA call for a segment that is archived already: %s (%s–%s, %d calls), wanted ≤ %s: %s\n", showMillis(most.Seconds()),
		showMillis(slices.Min(remembered.wall).Seconds()), showMillis(slices.Max(remembered.wall).Seconds()), len(remembered.wall),
		showMillis(rememberedMost.Seconds()), b.results.mark(most <= rememberedMost, "a call for an archived segment takes %v, wanted %v", most, rememberedMost))
}

// backlogRows prints the figures of one place. The second tool is pgBackRest in
// the background, the last the one that is not.
func (b *bench) backlogRows(w io.Writer, p place, tools []tool) {
	var all []*series
	for _, t := range tools {
		all = append(all, &b.results.at(backlogOn(p), t.name()).push)
	}
	row := func(what string, of func(*series) []time.Duration) (times []float64) {
		fmt.Fprintf(w, "| %s, %s |", p.name, what)
		own := median(of(all[0])).Seconds()
		for i, s := range all {
			d := of(s)
			fmt.Fprintf(w, " %s (%s–%s) |", showSeconds(median(d).Seconds()), showSeconds(slices.Min(d).Seconds()), showSeconds(slices.Max(d).Seconds()))
			times = append(times, median(d).Seconds()/own)
			if i > 0 {
				fmt.Fprintf(w, " %.2f |", times[i])
			}
		}
		return times
	}
	times := row("wall", func(s *series) []time.Duration { return s.wall })
	wanted := drainDir
	if p.s3 != nil {
		wanted = drainS3
	}
	async, sync := times[1], times[len(times)-1]
	fmt.Fprintf(w, " ≥ %.1f and ≥ %.1f | %s |\n", wanted, drainSync,
		b.results.mark(async >= wanted && sync >= drainSync, "backlog on %s: %.2f and %.2f times as fast, wanted %.1f and %.1f", p.name, async, sync, wanted, drainSync))
	row("CPU of the machine", func(s *series) []time.Duration { return s.cpu })
	fmt.Fprint(w, " | |\n")
	fmt.Fprintf(w, "| %s, memory of the push that looks ahead | %s |%s ≤ %s | %s |\n", p.name, showMiB(float64(all[0].largest)),
		strings.Repeat(" |", 2*(len(tools)-1)), showMiB(pushMemory),
		b.results.mark(all[0].largest <= pushMemory, "backlog on %s: memory %s, wanted %s", p.name, showMiB(float64(all[0].largest)), showMiB(pushMemory)))
}

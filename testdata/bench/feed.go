package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// feedTarget is how many times as fast as the other tool WAL is to be fed.
const feedTarget = 2.0

// feeder is a tool whose restore_command is measured.
type feeder interface {
	tool
	// fetch is the restore_command for a data directory, without %f and %p.
	fetch(dataDir string) command
}

func (l *lifeboat) fetch(string) command {
	return l.command("wal", "fetch", "--identity", filepath.Join(l.dir, "recovery.key"))
}

// fetch fetches ahead, with two processes and pgBackRest's own limit of 128 MiB.
func (r *pgBackRest) fetch(dataDir string) command {
	return r.command("--archive-async", "--pg1-path="+dataDir, "archive-get")
}

// fed is what one tool took to feed recovery.
type fed struct {
	replay, waited     []time.Duration // of a recovery: redo, and in it the time spent in restore_command
	feed, feedCommands []time.Duration // of the loop without a server: all of it, and restore_command alone
}

// feed measures how fast WAL is handed to recovery, on directories and on S3.
func (b *bench) feed(ctx context.Context, w io.Writer) (err error) {
	before := b.db
	defer func() { b.db = before }()
	if before != nil {
		if err := before.stop(); err != nil {
			return err
		}
		before.server = nil
	}
	defer func() { err = errors.Join(err, b.db.stop()) }()
	if err := b.openFeedDatabase(ctx); err != nil {
		return err
	}
	for _, p := range []place{{name: "Directories"}, b.bucket("S3 over TLS", b.s3.Addr)} {
		if err := b.feedFrom(ctx, p, w); err != nil {
			return fmt.Errorf("feed from %s: %w", p.name, err)
		}
	}
	return nil
}

func (b *bench) feedFrom(ctx context.Context, p place, w io.Writer) error {
	tools := []feeder{&lifeboat{b: b}, &pgBackRest{b: b, level: defaultLevel}}
	results := make([]fed, len(tools))
	for i, t := range tools {
		b.note("%s: archiving %d segments with %s", p.name, len(b.db.segments), t.name())
		if err := b.archiveAll(ctx, t, p, i); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	content := ""
	for round := range b.opt.rounds + 1 {
		for i, t := range tools {
			loop, commands, err := b.feedLoop(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
			replay, waited, got, err := b.recover(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
			if content == "" {
				content = got
			}
			if got != content {
				return fmt.Errorf("%s recovered %q, another %q", t.name(), got, content)
			}
			b.note("%s, %s, round %d: recovery %.2fs, of which waited %.2fs; feed alone %.2fs, of which restore_command %.2fs",
				p.name, t.name(), round, replay.Seconds(), waited.Seconds(), loop.Seconds(), commands.Seconds())
			if r := &results[i]; round > 0 {
				r.replay, r.waited = append(r.replay, replay), append(r.waited, waited)
				r.feed, r.feedCommands = append(r.feed, loop), append(r.feedCommands, commands)
			}
		}
	}
	b.feedTable(w, p, results)
	return nil
}

// archiveAll makes a repository and has all segments in it.
func (b *bench) archiveAll(ctx context.Context, t feeder, p place, i int) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("feed-%s-%d", strings.Fields(p.name)[0], i))
	if err := b.mkdir(dir); err != nil {
		return err
	}
	at := filepath.Join(dir, "repository")
	if p.s3 != nil {
		at = "feed-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	}
	if err := t.prepare(ctx, p, at, dir); err != nil {
		return err
	}
	if err := b.archiveWith("exit 0"); err != nil {
		return err
	}
	line := shellCommand(t.push("")) // exports, then exec and the words
	exports, words, _ := strings.Cut(line, "exec ")
	words = strings.TrimSuffix(words, shellQuote(""))
	script := exports + "printf '%s\\n' \"$@\" | xargs -P 3 -n 1 " + words
	_, err := b.measure(ctx, command{args: append([]string{"sh", "-c", script, "sh"}, b.db.segments...)})
	return err
}

// restoreCommand is what PostgreSQL hands to a shell.
func restoreCommand(c command) string {
	var words []string
	for _, w := range append(slices.Clone(c.env), c.args...) {
		words = append(words, strings.ReplaceAll(postgres.ShellWord(w), "%", "%%"))
	}
	line := strings.Join(words, " ") + ` %f "%p"`
	if len(c.env) > 0 {
		line = "env " + line
	}
	return line
}

// feedLoop asks for one segment after another as the startup process does
// (RestoreArchivedFile and KeepFileRestoredFromArchive in
// access/transam/xlogarchive.c), and replays nothing.
func (b *bench) feedLoop(ctx context.Context, t feeder) (all, commands time.Duration, err error) {
	dir := filepath.Join(b.dir, "loop")
	for _, d := range []string{dir, filepath.Join(dir, "global"), filepath.Join(dir, "pg_wal")} {
		if err := b.mkdir(d); err != nil {
			return 0, 0, err
		}
	}
	control, err := os.ReadFile(filepath.Join(b.db.feedBase(), filepath.FromSlash(postgres.ControlPath)))
	if err != nil {
		return 0, 0, err
	}
	if err := b.writeFile(filepath.Join(dir, filepath.FromSlash(postgres.ControlPath)), string(control), 0o600); err != nil {
		return 0, 0, err
	}
	settle()
	template := restoreCommand(t.fetch(dir))
	begin := time.Now()
	last := ""
	for _, segment := range b.db.segments {
		name := filepath.Base(segment)
		line := strings.NewReplacer("%f", name, "%p", "pg_wal/RECOVERYXLOG", "%%", "%").Replace(template)
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, b.environment(), b.asAccount()
		asked := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, 0, fmt.Errorf("%s: %w: %s", line, err, out)
		}
		commands += time.Since(asked)
		kept := filepath.Join(dir, "pg_wal", name)
		if err := keepRestored(filepath.Join(dir, "pg_wal", "RECOVERYXLOG"), kept, last); err != nil {
			return 0, 0, err
		}
		last = kept
	}
	all = time.Since(begin)
	return all, commands, errors.Join(sameFile(last, b.db.segments[len(b.db.segments)-1]), b.discard(dir))
}

// keepRestored is durable_rename, and the removal of the segment before.
func keepRestored(restored, kept, last string) error {
	f, err := os.Open(restored)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close(), os.Rename(restored, kept))
	directory, openErr := os.Open(filepath.Dir(kept))
	if openErr != nil {
		return openErr
	}
	err = errors.Join(err, directory.Sync(), directory.Close())
	if err == nil && last != "" {
		err = os.Remove(last)
	}
	return err
}

// recover recovers a copy of the base backup through all segments and returns
// how long redo took, how much of that PostgreSQL was in restore_command, both
// by the server's log, and what was recovered.
func (b *bench) recover(ctx context.Context, t feeder) (replay, waited time.Duration, content string, err error) {
	dir := filepath.Join(b.dir, "recovered")
	if _, err := b.measure(ctx, command{args: []string{"cp", "-a", b.db.feedBase(), dir}}); err != nil {
		return 0, 0, "", err
	}
	if err := b.writeFile(filepath.Join(dir, "recovery.signal"), "", 0o600); err != nil {
		return 0, 0, "", err
	}
	settle()
	log := filepath.Join(b.dir, "recovery.log")
	if err := os.RemoveAll(log); err != nil {
		return 0, 0, "", err
	}
	running := &database{}
	running.server, err = server.Start(ctx, b.install, server.Options{
		DataDir: dir, SocketDir: filepath.Join(b.dir, "r"), Account: b.account, DieWithParent: true, Env: b.environment(), LogFile: log,
		Settings: map[string]string{
			"restore_command": restoreCommand(t.fetch(dir)), "hot_standby": "off", "archive_mode": "off", "autovacuum": "off",
			"shared_buffers": "1GB", "max_wal_size": "4GB", "log_min_messages": "debug3", "log_line_prefix": "%n %b ",
		},
	})
	if err != nil {
		return 0, 0, "", err
	}
	defer func() { err = errors.Join(err, running.stop(), b.discard(dir)) }()
	if err := running.server.WaitWritable(ctx); err != nil {
		return 0, 0, "", err
	}
	source := b.db.server
	b.db.server = running.server
	content, err = b.sql(ctx, "select count(*), sum(abalance) from pgbench_accounts union all select count(*), sum(delta) from pgbench_history")
	b.db.server = source
	if err != nil {
		return 0, 0, "", err
	}
	replay, waited, err = readRecoveryLog(log, filepath.Base(b.db.segments[len(b.db.segments)-1]))
	return replay, waited, content, err
}

// logLine is a line of the startup process: seconds since 1970, and the text.
var logLine = regexp.MustCompile(`(?m)^(\d+\.\d+) startup (?:DEBUG|LOG):  (.*)$`)

// readRecoveryLog adds up the time from each call of restore_command to what
// the server says next, between the start and the end of redo.
func readRecoveryLog(path, last string) (replay, waited time.Duration, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	seen := map[string]bool{}
	var begin, asked float64
	for _, m := range logLine.FindAllStringSubmatch(string(text), -1) {
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, 0, err
		}
		if asked > 0 && begin > 0 {
			waited += time.Duration((at - asked) * float64(time.Second))
		}
		asked = 0
		switch {
		case strings.HasPrefix(m[2], "redo starts at"):
			begin = at
		case strings.HasPrefix(m[2], "executing restore command"):
			asked = at
		case strings.HasPrefix(m[2], "restored log file"):
			seen[strings.Split(m[2], `"`)[1]] = true
		case strings.HasPrefix(m[2], "redo done at"):
			if !seen[last] || len(seen) < feedSegments {
				return 0, 0, fmt.Errorf("recovery ended after %d segments: %v", len(seen), slices.Max(slices.Collect(maps.Keys(seen))))
			}
			return time.Duration((at - begin) * float64(time.Second)), waited, nil
		}
	}
	return 0, 0, fmt.Errorf("%s does not tell of a recovery", path)
}

func (b *bench) feedTable(w io.Writer, p place, r []fed) {
	fmt.Fprintf(w, "\n### Feeding recovery through %d segments: %s\n\n", feedSegments, p.name)
	fmt.Fprintf(w, "| | Lifeboat | pgBackRest asynchronous | times as fast | target | |\n|---|--:|--:|--:|--:|---|\n")
	row := func(name string, of func(fed) []time.Duration, target float64) {
		var cells [2]string
		for i := range cells {
			d := of(r[i])
			cells[i] = fmt.Sprintf("%.2f s (%.2f–%.2f)", median(d).Seconds(), slices.Min(d).Seconds(), slices.Max(d).Seconds())
		}
		have := float64(median(of(r[1]))) / float64(median(of(r[0])))
		verdict, want := "", ""
		if target > 0 {
			want = fmt.Sprintf("≥ %.1f", target)
			verdict = b.results.mark(have >= target, "%s: %s: %.2f times as fast, wanted %.1f", p.name, name, have, target)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %.2f | %s | %s |\n", name, cells[0], cells[1], have, want, verdict)
	}
	row("recovery: redo", func(f fed) []time.Duration { return f.replay }, 0)
	row("recovery: PostgreSQL waited for WAL", func(f fed) []time.Duration { return f.waited }, feedTarget)
	share := func(f fed) float64 { return 100 * float64(median(f.waited)) / float64(median(f.replay)) }
	fmt.Fprintf(w, "| recovery: share of the time waited | %.0f %% | %.0f %% | | | |\n", share(r[0]), share(r[1]))
	row("no server: the whole loop", func(f fed) []time.Duration { return f.feed }, 0)
	row("no server: restore_command", func(f fed) []time.Duration { return f.feedCommands }, feedTarget)
}

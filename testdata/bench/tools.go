package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// place is where repositories are: directories, or a bucket. Each run has a fresh
// repository in it.
type place struct {
	name string
	s3   *s3test.Server // nil for directories
	addr string         // host:port of the server, or of the proxy before it
	ca   string         // the CA's certificate, where the account can read it
}

// tool is one of the programs that are compared.
type tool interface {
	name() string
	// prepare makes a repository, in the directory or below the prefix given by
	// at, and has the server archive into it. What it writes beside goes to dir.
	prepare(ctx context.Context, p place, at, dir string) error
	backup() command
	incremental() command
	restore(to string) command
	push(segment string) command
	// walDir is the name of the directory of a repository that holds the WAL.
	walDir() string
}

// lifeboat with its defaults.
type lifeboat struct {
	b   *bench
	env []string
	dir string
}

func (l *lifeboat) name() string   { return "Lifeboat" }
func (l *lifeboat) walDir() string { return "wal" }

func (l *lifeboat) config() string { return filepath.Join(l.dir, "lifeboat.yaml") }

func (l *lifeboat) command(args ...string) command {
	return command{args: append([]string{l.b.opt.lifeboat, "--config", l.config(), "--quiet"}, args...), env: l.env}
}

func (l *lifeboat) prepare(ctx context.Context, p place, at, dir string) error {
	l.dir, l.env = dir, nil
	url := "file://" + at
	var flags []string
	if p.s3 != nil {
		l.env = p.s3.Env()
		url = "s3://" + p.s3.Bucket + "/" + at
		flags = []string{"--s3-endpoint", "https://" + p.addr, "--s3-region", p.s3.Region, "--s3-path-style", "--s3-ca-file", p.ca}
	}
	init := []string{"init", "--cluster", "bench", "--pgdata", l.b.db.dataDir(), "--conn", l.b.db.server.Conn(),
		"--repository", url, "--recovery-key", filepath.Join(dir, "recovery.key")}
	if _, err := l.b.measure(ctx, l.command(append(init, flags...)...)); err != nil {
		return err
	}
	return l.b.archiveWith(shellCommand(l.command("wal", "push")) + ` "$1"`)
}

func (l *lifeboat) backup() command { return l.command("backup", "--full") }

func (l *lifeboat) incremental() command { return l.command("backup") }

func (l *lifeboat) restore(to string) command {
	return l.command("restore", "--identity", filepath.Join(l.dir, "recovery.key"), "--to", to)
}

func (l *lifeboat) push(segment string) command { return l.command("wal", "push", segment) }

// pgBackRest as fast as its options make it, and encrypting as Lifeboat does.
type pgBackRest struct {
	b     *bench
	level int  // of zstd
	async bool // archive in the background, several segments at once
	block bool // block incremental

	program string // "" for the one in PATH
	dir     string
}

func (r *pgBackRest) name() string {
	name := "pgBackRest"
	if r.async {
		name += " asynchronous"
	}
	if r.level != defaultLevel {
		name += ", level " + strconv.Itoa(r.level)
	}
	return name
}

// defaultLevel is pgBackRest's own for zst.
const defaultLevel = 3

func (r *pgBackRest) walDir() string { return "archive" }

func (r *pgBackRest) command(args ...string) command {
	return command{args: append([]string{cmp.Or(r.program, "pgbackrest"), "--config=" + filepath.Join(r.dir, "pgbackrest.conf"), "--stanza=bench"}, args...)}
}

func (r *pgBackRest) prepare(ctx context.Context, p place, at, dir string) error {
	r.dir = dir
	if err := r.writeConfig(p, at); err != nil {
		return err
	}
	if _, err := r.b.measure(ctx, r.command("stanza-create")); err != nil {
		return err
	}
	if err := r.b.archiveWith(shellCommand(r.command("archive-push")) + ` "$1"`); err != nil {
		return err
	}
	// The backup wants the segment before its own in the archive.
	_, err := r.b.measure(ctx, r.command("check"))
	return err
}

func (r *pgBackRest) writeConfig(p place, at string) error {
	s := r.b.db.server
	lines := []string{
		"[global]",
		"compress-type=zst", "compress-level=" + strconv.Itoa(r.level),
		"process-max=2", "repo1-bundle=y", "start-fast=y",
		"repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=" + rand.Text() + rand.Text(),
		"repo1-retention-full=9",
		"log-level-console=warn", "log-level-file=off",
		"lock-path=" + filepath.Join(r.dir, "lock"), "spool-path=" + filepath.Join(r.dir, "spool"),
	}
	if r.block {
		lines = append(lines, "repo1-block=y")
	}
	if r.async {
		lines = append(lines, "archive-async=y")
	}
	if p.s3 == nil {
		lines = append(lines, "repo1-path="+at)
	} else {
		// It compares the certificate with names only, not with addresses.
		_, port, _ := strings.Cut(p.addr, ":")
		lines = append(lines, "repo1-type=s3", "repo1-path=/"+at, "repo1-s3-uri-style=path",
			"repo1-s3-endpoint=localhost", "repo1-storage-port="+port, "repo1-storage-ca-file="+p.ca,
			"repo1-s3-region="+p.s3.Region, "repo1-s3-bucket="+p.s3.Bucket,
			"repo1-s3-key="+p.s3.AccessKey, "repo1-s3-key-secret="+p.s3.SecretKey)
	}
	lines = append(lines, "[bench]", "pg1-path="+r.b.db.dataDir(), "pg1-socket-path="+s.SocketDir(),
		"pg1-port="+strconv.Itoa(s.Port()), "pg1-user=postgres", "")
	return r.b.writeFile(filepath.Join(r.dir, "pgbackrest.conf"), strings.Join(lines, "\n"), 0o600)
}

func (r *pgBackRest) backup() command { return r.command("--type=full", "backup") }

func (r *pgBackRest) incremental() command { return r.command("--type=incr", "backup") }

func (r *pgBackRest) restore(to string) command { return r.command("--pg1-path="+to, "restore") }

func (r *pgBackRest) push(segment string) command { return r.command("archive-push", segment) }

// writeFile writes a file that the account owns.
func (b *bench) writeFile(path, text string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(b.account.UID), int(b.account.GID))
}

// shellCommand is a command as lines of shell that end with it, so that more
// arguments can follow.
func shellCommand(c command) string {
	var s strings.Builder
	for _, pair := range c.env {
		s.WriteString("export " + shellQuote(pair) + "\n")
	}
	s.WriteString("exec")
	for _, arg := range c.args {
		s.WriteString(" " + shellQuote(arg))
	}
	return s.String()
}

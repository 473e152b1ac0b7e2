package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describe prints what was measured on what.
func (b *bench) describe(ctx context.Context, w io.Writer) error {
	first := func(args ...string) string {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		if err != nil {
			return "unknown (" + err.Error() + ")"
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line
	}
	extra := ""
	if b.opt.scratch != b.opt.work {
		extra = fmt.Sprintf(", repositories and restored files on %s", fileSystem(b.opt.scratch))
	}
	lines := []string{
		fmt.Sprintf("- %s, %d rounds after one to warm up, %d pushes a round", time.Now().UTC().Format("2006-01-02"), b.opt.rounds, b.opt.pushes),
		fmt.Sprintf("- %d cores (%s), %s of memory, Linux %s, %s; data directory on %s%s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"),
			memory(), first("uname", "-r"), field("/etc/os-release", "PRETTY_NAME"), fileSystem(b.opt.work), extra),
		fmt.Sprintf("- %s; %s; PostgreSQL %s; versitygw %s", first(b.opt.lifeboat, "version"), first("pgbackrest", "version"), b.install.Version, versitygwVersion()),
	}
	if b.db != nil {
		lines = append(lines, fmt.Sprintf("- data directory without pg_wal: %.0f MB; page cache warm", float64(b.db.bytes)/1e6))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// versitygwVersion is what go install noted in the program.
func versitygwVersion() string {
	path, err := exec.LookPath("versitygw")
	if err != nil {
		path = filepath.Join(".tools", "bin", "versitygw")
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return info.Main.Version
}

// memory is that of the machine.
func memory() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

// field is the value of the first line "name: value" or "name=value" of a file.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.ReplaceAll(line, "=", ":"), ":")
		if strings.TrimSpace(key) == name {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return "unknown"
}

// fileSystem names the kind of file system that holds a directory.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxSocketPath is the longest path of a Unix socket: sun_path holds 108 bytes
// on Linux and 104 on macOS, the last of them NUL.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// checkSocketPath refuses a directory in which the socket's path would not fit
// (PostgreSQL refuses it as well, but only in the log), and one with a comma:
// libpq splits the host of a connection string there and knows no way to quote.
func checkSocketPath(dir string, port int) error {
	path := socketPath(dir, port)
	if strings.Contains(dir, ",") {
		return fmt.Errorf("socket directory %s: a comma in it stands between hosts in a connection string", dir)
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("socket %s: %d bytes, the longest path of a Unix socket is %d; name a shorter directory for it",
			path, len(path), maxSocketPath)
	}
	return nil
}

func socketPath(dir string, port int) string {
	return filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port))
}

// makeSocketDir makes the directory of the socket unless it is there.
func (s *Server) makeSocketDir() (err error) {
	o := &s.opts
	switch {
	case o.SocketDir == "":
		if o.SocketDir, err = os.MkdirTemp("", "lifeboat-pg-"); err != nil {
			return err
		}
		s.ownSockDir = true
	default:
		if o.SocketDir, err = filepath.Abs(o.SocketDir); err != nil {
			return err
		}
	}
	if err := checkSocketPath(o.SocketDir, o.Port); err != nil {
		s.removeSocketDir()
		return err
	}
	if !s.ownSockDir {
		err := os.Mkdir(o.SocketDir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(o.SocketDir, int(o.Account.UID), int(o.Account.GID)); err != nil {
			s.removeSocketDir()
			return err
		}
	}
	return nil
}

// missingFiles makes the configuration files that the data directory lacks and
// the server insists on, and returns the settings that name them.
// postgresql.auto.conf lies in the data directory and counts as ever.
func (s *Server) missingFiles() (map[string]string, error) {
	set := map[string]string{}
	for _, f := range []struct{ setting, name, text string }{
		{"config_file", "postgresql.conf", "# This data directory came without a postgresql.conf: PostgreSQL's defaults hold.\n"},
		{"hba_file", "pg_hba.conf", "# This data directory came without a pg_hba.conf.\nlocal all all " + s.localAuth() + "\n"},
	} {
		if _, named := s.opts.Settings[f.setting]; named {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.opts.DataDir, f.name)); !errors.Is(err, fs.ErrNotExist) {
			continue // there, or unreadable: the server says so better
		}
		path := filepath.Join(s.opts.SocketDir, f.name)
		if err := s.writeOwned(path, f.text); err != nil {
			return nil, fmt.Errorf("stand in for the missing %s: %w", f.name, err)
		}
		set[f.setting] = path
		s.made = append(s.made, path)
	}
	return set, nil
}

// localAuth is the way to log in over the socket: whoever can enter a private
// directory is trusted, in any other the system vouches for the account.
func (s *Server) localAuth() string {
	if info, err := os.Stat(s.opts.SocketDir); err == nil && info.Mode().Perm()&0o077 == 0 {
		return "trust"
	}
	return "peer"
}

// writeOwned writes a new file, mode 0600, that belongs to the server's
// account. One that an earlier start left there is replaced.
func (s *Server) writeOwned(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, s.opts.Account.own(f), f.Close())
}

// removeSocketDir removes the private directory that Start made.
func (s *Server) removeSocketDir() {
	if s.ownSockDir {
		os.RemoveAll(s.opts.SocketDir)
	}
}

// openLog opens the log for appending and notes where this start begins. The
// directory may belong to the server's account, so a link is not followed and
// only a file that was just made is given away.
func (s *Server) openLog() (*os.File, error) {
	o := &s.opts
	if o.LogFile == "" {
		o.LogFile = filepath.Join(o.SocketDir, "server.log")
	}
	var err error
	if o.LogFile, err = filepath.Abs(o.LogFile); err != nil {
		return nil, err
	}
	const flags = os.O_WRONLY | os.O_APPEND | syscall.O_NOFOLLOW
	f, err := os.OpenFile(o.LogFile, flags|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(o.LogFile, flags, 0)
	} else if err == nil {
		err = o.Account.own(f)
	}
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("log file: %w", err)
	}
	s.logStart = info.Size()
	return f, nil
}

// tailBytes bounds what LogTail returns of one file.
const tailBytes = 8 << 10

// LogTail returns the last lines, at most about 8 KiB, of what the server has
// logged since this start. When the data directory's configuration turns on
// the logging collector, the end of the collector's current file follows. It
// also answers after the server has ended.
func (s *Server) LogTail() string {
	select {
	case <-s.done:
		return s.tail
	default:
		return s.readTail()
	}
}

func (s *Server) readTail() string {
	tail := tailOf(filepath.Dir(s.opts.LogFile), filepath.Base(s.opts.LogFile), s.logStart)
	if name := s.collectorFile(); name != "" {
		tail += tailOf(s.opts.DataDir, name, 0)
	}
	return tail
}

// collectorFile is the file that the logging collector writes now, relative to
// the data directory, by the file current_logfiles (see the manual, "File
// Locations" of error reporting). One that lies elsewhere is left out: a server
// that is not to be trusted could name any file of the host.
func (s *Server) collectorFile() string {
	text, err := ReadForeign(s.opts.DataDir, "current_logfiles", 64<<10)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Sort(lines) // csvlog, jsonlog, stderr: the plain one last
	_, name, ok := strings.Cut(lines[len(lines)-1], " ")
	if !ok {
		return ""
	}
	if filepath.IsAbs(name) {
		if name, err = filepath.Rel(s.opts.DataDir, name); err != nil {
			return ""
		}
	}
	if !filepath.IsLocal(name) {
		return ""
	}
	return name
}

// tailOf reads the last whole lines of a file that lie behind an offset. A log
// that cannot be read has no tail: its reader wants to report something else.
func tailOf(dir, name string, from int64) string {
	text, whole, err := ReadForeignTail(dir, name, from, tailBytes)
	if err != nil {
		return ""
	}
	if !whole {
		if _, rest, ok := bytes.Cut(text, []byte("\n")); ok {
			text = rest
		}
	}
	return string(text)
}

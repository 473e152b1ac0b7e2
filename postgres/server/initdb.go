package server

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// InitdbOptions says what Initdb makes.
type InitdbOptions struct {
	DataDir string // missing or empty; its parent must exist
	Role    string // the superuser; empty means "postgres"

	WALDir         string // empty: pg_wal inside the data directory
	WALSegmentSize int    // bytes, a power of two from 1 MiB to 1 GiB; 0 means PostgreSQL's own 16 MiB
	Checksums      bool   // page checksums
	NoSync         bool   // do not wait for the disk: for scratch servers only

	// Account runs initdb and owns the data directory. nil means the owner of
	// the data directory, or of its parent when it is missing, when the caller
	// is root, else the caller.
	Account *Account
}

// Initdb makes a new data directory. Logins over the Unix socket are trusted,
// so the socket must lie in a private directory, and all others are refused: no
// password exists that could leak. The locale is C and the encoding UTF-8, the
// same on every machine.
func (in Install) Initdb(ctx context.Context, o InitdbOptions) error {
	if err := in.initdb(ctx, o); err != nil {
		return fmt.Errorf("make the data directory %s: %w", o.DataDir, err)
	}
	return nil
}

func (in Install) initdb(ctx context.Context, o InitdbOptions) (err error) {
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return err
	}
	if o.Account == nil {
		if o.Account, err = accountForNew(o.DataDir); err != nil {
			return err
		}
	}
	if err := o.Account.check(); err != nil {
		return err
	}
	// initdb makes the directory itself, but as its own account it may lack the
	// right to write to the parent.
	if err := os.Mkdir(o.DataDir, 0o700); err == nil && os.Geteuid() == 0 {
		if err := os.Lchown(o.DataDir, int(o.Account.UID), int(o.Account.GID)); err != nil {
			return err
		}
	}
	args, err := in.initdbArguments(o)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, in.Path("initdb"), args...)
	cmd.Dir = "/" // the account must be able to enter the working directory
	cmd.Env = append(childEnv(nil, o.Account), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	o.Account.apply(cmd.SysProcAttr)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = nil, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

func (in Install) initdbArguments(o InitdbOptions) ([]string, error) {
	role := o.Role
	if role == "" {
		role = "postgres"
	}
	args := []string{
		"--pgdata=" + o.DataDir, "--username=" + role,
		"--auth-local=trust", "--auth-host=reject",
		"--encoding=UTF8", "--locale=C", "--no-instructions",
	}
	if size := o.WALSegmentSize; size != 0 {
		if size < 1<<20 || size > 1<<30 || size&(size-1) != 0 {
			return nil, fmt.Errorf("WAL segment size %d: not a power of two from 1 MiB to 1 GiB", size)
		}
		args = append(args, "--wal-segsize="+strconv.Itoa(size>>20))
	}
	if o.WALDir != "" {
		args = append(args, "--waldir="+o.WALDir)
	}
	switch {
	case o.Checksums:
		args = append(args, "--data-checksums")
	case in.Major >= 18: // on by default since 18
		args = append(args, "--no-data-checksums")
	}
	if o.NoSync {
		args = append(args, "--no-sync")
	}
	return args, nil
}

func accountForNew(dataDir string) (*Account, error) {
	if _, err := os.Stat(dataDir); err == nil {
		return accountFor(dataDir)
	}
	return accountFor(filepath.Dir(dataDir))
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/restore"
)

// fetchCommand is what restore_command will run: this program, the
// configuration file, and what flags and environment said beside it, because
// the server has neither.
func fetchCommand(cfg *Config) ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own path: %w", err)
	}
	args := []string{exe, "wal", "fetch"}
	if cfg.File != "" {
		args = append(args, "--config", cfg.File)
	}
	if cfg.Chosen {
		args = append(args, "--repository="+cfg.Name)
	}
	for _, k := range keys() {
		o, set := cfg.origins[k.name]
		if !set || o.kind < originEnv || !fetchNeeds(k) {
			continue
		}
		for _, v := range k.texts(cfg) {
			args = append(args, "--"+k.flagName()+"="+v)
		}
	}
	return args, nil
}

// fetchNeeds says whether a key has a part in fetching WAL. None of them is a
// secret: keys are named by their files.
func fetchNeeds(k *key) bool {
	return strings.HasPrefix(k.name, "s3.") || slices.Contains([]string{"repository", "identity", "signer", "cluster_key"}, k.name)
}

// credentialNotes tells of credentials that restore_command will lack unless
// the server is started with them.
func (r *restoration) credentialNotes() []string {
	if !slices.ContainsFunc(r.cfg.each(), func(c *Config) bool {
		return strings.HasPrefix(c.Repository, "s3:") && (r.source == "" || c.Name == r.source)
	}) {
		return nil
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		if r.getenv(name) != "" {
			return []string{"credentials come from the environment (" + name + "): the server must be started with it too, or restore_command cannot fetch WAL"}
		}
	}
	return nil
}

// tryFetch fetches the first WAL segment of the plan as the account that will
// own the files, when that is not our own. The program, its configuration and
// the identity often lie where root alone can read them, and recovery would
// find that out only after everything was written.
func (r *restoration) tryFetch(ctx context.Context, p *restore.Plan) error {
	if p.Owner == nil || p.WAL.First == "" {
		return nil
	}
	account := &server.Account{Name: p.Owner.User, UID: uint32(p.Owner.UID), GID: uint32(p.Owner.GID)}
	if known, err := server.LookupAccount(p.Owner.User); err == nil {
		account.Groups = known.Groups
	}
	dir, err := os.MkdirTemp("", "lifeboat-fetch-")
	if err != nil {
		return fmt.Errorf("try restore_command: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, p.Owner.UID, p.Owner.GID); err != nil {
		return fmt.Errorf("try restore_command: %w", err)
	}
	args := append(slices.Clone(r.target.FetchCommand[1:]), "--system="+p.Backup.System.String(), p.WAL.First, filepath.Join(dir, p.WAL.First))
	cmd := exec.CommandContext(ctx, r.target.FetchCommand[0], args...)
	cmd.Dir = "/"
	cmd.Env = slices.DeleteFunc(slices.Clone(r.environ), func(v string) bool { return strings.HasPrefix(v, "LIFEBOAT_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account.UID, Gid: account.GID, Groups: account.Groups}}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	reason := strings.TrimPrefix(firstLine(string(out)), "lifeboat: error: ")
	if reason == "" {
		reason = err.Error()
	}
	return failed(exitFailed, "%s, who will run the server, cannot fetch WAL: %s", p.Owner.User, reason).
		hinted("let %s read %s, the configuration and the identity file: put them in a directory of its own, mode 0700", p.Owner.User, r.target.FetchCommand[0])
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
)

func keygenCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "keygen",
		Usage: "make a recovery key",
		Description: `
Makes a post-quantum age identity and writes it to --out, or to stdout. With a
configuration of a cluster it carries the cluster's signing key as trust
anchor, so that the file and the repository are all that a restore needs. Add
the recipient that is printed to recipients: in the configuration; backups
taken from then on can be opened with the new key, too.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write the key to `FILE`, which must not exist (mode 0600)"},
		}, configFlags("cluster_key", "signer")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c)
			if err != nil {
				return err
			}
			anchor, err := trustAnchor(cfg)
			if err != nil {
				return err
			}
			key, err := repo.NewRecoveryKey(anchor)
			if err != nil {
				return err
			}
			return a.giveKey(c, key)
		},
	}
}

// trustAnchor is what a recovery key should say of the cluster; nil where
// nothing is configured.
func trustAnchor(cfg *Config) (*repo.KeyFile, error) {
	keys, err := loadKeys(&Config{ClusterKey: cfg.ClusterKey, Signers: cfg.Signers})
	if err != nil {
		return nil, err
	}
	anchor := &repo.KeyFile{Cluster: cfg.Cluster, Signers: keys.Trusted}
	if k := keys.Cluster; k != nil {
		anchor.Cluster, anchor.Repository, anchor.Signers = k.Cluster, k.Repository, k.Signers
	}
	if len(anchor.Signers) == 0 {
		return nil, nil
	}
	return anchor, nil
}

// giveKey writes the key to --out and prints its recipient, or writes it to
// stdout and prints the recipient beside it.
func (a *app) giveKey(c *cli.Context, key *repo.KeyFile) error {
	recipient := key.Recipients()[0]
	text := key.Marshal(recoveryComment(key))
	out := c.String("out")
	if out == "" {
		if a.json {
			return usage("keygen --json needs --out FILE: the key is not for a report").hinted("add --out FILE, or leave out --json")
		}
		_, err := a.secrets.Write(text)
		a.note("recipient: %s", recipient)
		return err
	}
	path, err := a.abs(out)
	if err != nil {
		return err
	}
	if err := writeNew(path, text); err != nil {
		return err
	}
	report := struct {
		File      string `json:"file"`
		Recipient string `json:"recipient"`
	}{path, recipient}
	return a.result(report, func(w io.Writer) { _, _ = fmt.Fprintf(w, "recipient: %s\n", recipient) })
}

func recoveryComment(key *repo.KeyFile) string {
	s := "Lifeboat recovery key: whoever has this file can read the backups.\n" +
		"Keep it off the database host, and keep a copy: without it no backup opens.\n" +
		"It is a plain age identity file."
	if key.Cluster != "" {
		s = "Lifeboat recovery key of the cluster " + key.Cluster + ": whoever has this file can read its backups.\n" +
			"Keep it off the database host, and keep a copy: without it no backup opens.\n" +
			"It is a plain age identity file."
	}
	return s
}

// writeNew writes a file that must not exist yet, mode 0600, durably: a key
// that is lost in a crash after backups were sealed to it is lost for good.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usage("%s exists already, and is not overwritten", path).hinted("name another file, or move it away if it is not needed")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return usage("write %s: there is no such directory", path).hinted("make the directory %s, or name another one", filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

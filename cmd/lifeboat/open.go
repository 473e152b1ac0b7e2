package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/stall"
)

// openStore opens the store of the configured repository. Only here is it
// decided which kind of store is used.
func openStore(ctx context.Context, cfg *Config) (storage.Store, error) {
	return openStoreWith(ctx, cfg, 0)
}

// openStoreWithin is openStore for what is waited for: an operation fails when
// the store shows no sign of life for the limit. A connection that is dead is
// given up after a third of it, so that another can be tried.
func openStoreWithin(ctx context.Context, cfg *Config, limit time.Duration) (storage.Store, error) {
	return stall.Open(ctx, limit, func(ctx context.Context) (storage.Store, error) {
		return openStoreWith(ctx, cfg, limit/3)
	})
}

// mostDial is the longest that a connection may take to be made, however long
// the store may be silent after that.
const mostDial = 10 * time.Second

// openStoreWith gives up a silent connection after the given time, or after the
// store's own when it is 0.
func openStoreWith(ctx context.Context, cfg *Config, silent time.Duration) (storage.Store, error) {
	l, err := parseRepository(cfg.Repository)
	if err != nil {
		return nil, usage("repository: %v", err)
	}
	if l.scheme == "file" {
		return file.New(l.path)
	}
	return s3.New(ctx, s3.Options{
		DialTimeout: min(silent, mostDial), StallTimeout: silent,
		Bucket: l.bucket, Prefix: l.prefix,
		Endpoint: cfg.S3.Endpoint, Region: cfg.S3.Region, PathStyle: cfg.S3.PathStyle, CAFile: cfg.S3.CAFile,
		SSE: cfg.S3.SSE, SSEKMSKey: cfg.S3.SSEKMSKey, StorageClass: cfg.S3.StorageClass,
		ObjectLockMode: cfg.S3.ObjectLockMode, ObjectLockDays: cfg.S3.ObjectLockDays,
	})
}

// createStore is openStore for init, which may make the directory.
func createStore(ctx context.Context, cfg *Config) (storage.Store, error) {
	if l, err := parseRepository(cfg.Repository); err == nil && l.scheme == "file" {
		return file.Init(l.path)
	}
	return openStore(ctx, cfg)
}

// openRepo opens the configured repository with all keys that are configured.
// What a key is needed for is checked when it is used.
func openRepo(ctx context.Context, cfg *Config) (*repo.Repo, error) {
	keys, err := loadKeys(cfg)
	if err != nil {
		return nil, err
	}
	store, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, store, keys, hostName())
}

// openRepoWithin is openRepo on a store that is given up as by openStoreWithin.
func openRepoWithin(ctx context.Context, cfg *Config, limit time.Duration) (*repo.Repo, error) {
	return openWithin(ctx, cfg, limit, repo.Open)
}

// openToArchive is openRepoWithin for who stores WAL and nothing else.
func openToArchive(ctx context.Context, cfg *Config) (*repo.Repo, error) {
	return openWithin(ctx, cfg, cfg.StoreTimeout, repo.OpenToArchive)
}

func openWithin(ctx context.Context, cfg *Config, limit time.Duration,
	open func(context.Context, storage.Store, repo.Keys, string) (*repo.Repo, error)) (*repo.Repo, error) {
	keys, err := loadKeys(cfg)
	if err != nil {
		return nil, err
	}
	store, err := openStoreWithin(ctx, cfg, limit)
	if err != nil {
		return nil, err
	}
	return open(ctx, store, keys, hostName())
}

// openOne is openRepo for what is done with each of several repositories: one
// that is silent for store_timeout is given up, and keeps nobody from the others.
func openOne(ctx context.Context, cfg *Config) (*repo.Repo, error) {
	if cfg.Name == "" || cfg.Chosen {
		return openRepo(ctx, cfg)
	}
	return openRepoWithin(ctx, cfg, cfg.StoreTimeout)
}

// loadKeys reads the key files and parses the public keys of the configuration.
func loadKeys(cfg *Config) (repo.Keys, error) {
	var k repo.Keys
	if cfg.ClusterKey != "" {
		f, err := readKeyFile(cfg.ClusterKey, "cluster_key")
		if err != nil {
			return k, err
		}
		if f.Signing == nil {
			return k, usage("cluster_key: %s is not a cluster key", cfg.ClusterKey).hinted("\"lifeboat init\" makes one; the recovery key is another file")
		}
		k.Cluster = f
	}
	if cfg.Identity != "" {
		f, err := readKeyFile(cfg.Identity, "identity")
		if err != nil {
			return k, err
		}
		k.Identities, k.Trusted, k.IdentityFile = f.Identities, f.Signers, f
	}
	for _, s := range cfg.Signers {
		p, err := repo.ParsePublicKey(s)
		if err != nil {
			return k, usage("signer: %v", err)
		}
		k.Trusted = append(k.Trusted, p)
	}
	var err error
	k.Recipients, err = parseRecipients(cfg.Recipients)
	return k, err
}

func parseRecipients(texts []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for _, s := range texts {
		r, err := repo.ParseRecipient(s)
		if err != nil {
			return nil, usage("recipients: %v", err)
		}
		out = append(out, r)
	}
	return out, nil
}

// readKeyFile reads a key file; what names the key of the configuration that
// pointed to it.
func readKeyFile(path, what string) (*repo.KeyFile, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("%s: there is no file %s", what, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	defer f.Close()
	k, err := repo.ParseKeyFile(f)
	if err != nil {
		return nil, usage("%s: %s: %v", what, path, err)
	}
	return k, nil
}

// hostName names this host in what is stored.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

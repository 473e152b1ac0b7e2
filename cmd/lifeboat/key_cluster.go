package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// newClusterKey makes a new cluster key. First it is on disk, beside the old one;
// then the old one vouches for it in every repository; then it takes its place. So
// a run that ends anywhere is completed by the next one. Where it fails before anybody
// has vouched for it, it is removed.
func (r *rotation) newClusterKey(ctx context.Context) error {
	path := r.cfg.ClusterKey
	old, err := readKeyFile(path, "cluster_key")
	if err != nil {
		return err
	}
	next, err := r.nextClusterKey(path, old)
	if err != nil {
		return err
	}
	vouched := false
	err = r.inEach(ctx, func(ctx context.Context, _ *Config, repository *repo.Repo) error {
		err := repository.AddSigner(ctx, next.Signing.Public(), r.now())
		vouched = vouched || err == nil || mayBelieve(ctx, repository, next.Signing.Public())
		return err
	})
	if err != nil && !vouched {
		return errors.Join(err, removeIfThere(path+nextSuffix)) // a secret that is of no use
	}
	if err != nil {
		return err
	}
	if err := takePlace(path); err != nil {
		return err
	}
	r.report.Done = "The cluster key is new; the old one is still trusted"
	r.report.ClusterKey = next.Signing.Public().String()
	r.report.Next = []string{
		fmt.Sprintf("copy %s to every other host of the cluster, in the place of the old one, and restart \"lifeboat wal stream\" where it runs", path),
		"when the server has archived a segment with it: lifeboat key rotate --retire-cluster-key",
	}
	return nil
}

// mayBelieve says whether a signer is believed in a repository, or whether that
// cannot be known.
func mayBelieve(ctx context.Context, repository *repo.Repo, k repo.PublicKey) bool {
	err := repository.CheckSigning(ctx)
	if _, retired := errors.AsType[*repo.RetiredKeyError](err); err != nil && !retired {
		return true
	}
	signers, _ := repository.Signers()
	return slices.ContainsFunc(signers, func(s repo.SignerState) bool { return s.Key.Equal(k) })
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// nextClusterKey is the one that an earlier run has left, or a new one. The
// identities of the old one stay in it until the metadata is sealed again.
func (r *rotation) nextClusterKey(path string, old *repo.KeyFile) (*repo.KeyFile, error) {
	if old.Signing == nil {
		return nil, usage("cluster_key: %s is not a cluster key", path)
	}
	next, err := readKeyFile(path+nextSuffix, "cluster_key")
	if err == nil {
		if next.Signing == nil || next.Repository != old.Repository || !slices.ContainsFunc(next.Signers, old.Signing.Public().Equal) {
			return nil, failed(exitFailed, "%s%s is not the successor of the cluster key", path, nextSuffix).hinted("move it away, and run it again")
		}
		return next, nil
	}
	if left, readErr := os.ReadFile(path + nextSuffix); readErr == nil && endsHalfWay(left) {
		err = removeIfThere(path + nextSuffix) // nobody vouches for it before all of it is there
	} else if errors.Is(readErr, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if next, err = repo.NewClusterKey(old.Cluster, old.Repository); err != nil {
		return nil, err
	}
	next.Signers = append(next.Signers, old.Signers...)
	next.Identities = append(next.Identities, old.Identities...)
	return next, writeLike(path+nextSuffix, path, next.Marshal(clusterComment(next.Cluster)))
}

// endsHalfWay says whether a run was killed while it wrote this key file: every
// line of one ends.
func endsHalfWay(file []byte) bool {
	return len(file) == 0 || file[len(file)-1] != '\n'
}

func clusterComment(cluster string) string {
	return "Lifeboat cluster key of the cluster " + cluster + ".\n" +
		"It stays on the cluster's database hosts. It signs what they store and opens\n" +
		"metadata; it opens no data. A standby that may become primary needs a copy."
}

// retireClusterKeys retires all signers of the cluster key file but its own.
func (r *rotation) retireClusterKeys(ctx context.Context) error {
	path := r.cfg.ClusterKey
	key, err := readKeyFile(path, "cluster_key")
	if err != nil {
		return err
	}
	own := key.Signing.Public()
	var old []repo.PublicKey
	for _, s := range key.Signers {
		if !s.Equal(own) {
			old = append(old, s)
			r.report.Retired = append(r.report.Retired, s.String())
		}
	}
	if len(old) == 0 {
		return usage("the cluster key has no predecessor").hinted("\"lifeboat key rotate --new-cluster-key\" makes a new one first")
	}
	err = r.inEach(ctx, func(ctx context.Context, _ *Config, repository *repo.Repo) error {
		// Its identities too are of no use after this: what they open is sealed again.
		return r.resealAll(ctx, repository, old)
	})
	if err != nil {
		return err
	}
	// In every repository nobody needs them any more.
	key.Signers = []repo.PublicKey{own}
	key.Identities = key.Identities[:min(2, len(key.Identities))]
	if err := removeIfThere(path + nextSuffix); err != nil {
		return fmt.Errorf("write the cluster key: %w", err)
	}
	if err := writeLike(path+nextSuffix, path, key.Marshal(clusterComment(key.Cluster))); err != nil {
		return err
	}
	if err := takePlace(path); err != nil {
		return err
	}
	r.report.Done, r.report.ClusterKey = "The older cluster keys are retired", own.String()
	r.report.Next = []string{
		fmt.Sprintf("copy %s to the other hosts of the cluster once more: it holds nothing of the old key now", path),
		"put this signer into the recovery key files (# lifeboat-signer: …) and into signer: of configurations, and take the old one out, if the old key may be in wrong hands: docs/keys.md says why",
		"destroy the old key wherever it is, in backups of the hosts too",
	}
	return nil
}

// nextSuffix is behind the name of a file that is to take another's place.
const nextSuffix = ".next"

// writeLike writes a file that must not be there, mode 0600, and gives it to the
// owner of another one.
func writeLike(path, like string, data []byte) error {
	if err := writeNew(path, data); err != nil {
		return err
	}
	fi, err := os.Stat(like)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// takePlace puts path.next in the place of path, durably.
func takePlace(path string) error {
	if err := os.Rename(path+nextSuffix, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// keyCheck looks whether a repository is there, is ours, and opens with the
// configured keys.
type keyCheck struct {
	store     storage.Store
	keys      repo.Keys
	marker    repo.Marker
	markerErr error
	report    *checkReport
}

// What these checks are called and are for.
const (
	markerCheck     = "repository"
	markerMeaning   = "there is one, it is this cluster's, and the signer that is trusted signed it"
	recipientsCheck = "recipients"
	recipientsSense = "the identity opens what this host will write"
	metadataCheck   = "newest backup"
	metadataMeaning = "the keys open what a backup is"
	dataCheck       = "data"
	dataMeaning     = "the identity opens what is restored"
)

func (k *keyCheck) run(ctx context.Context) {
	r, ok := k.openRepository(ctx)
	k.checkRecipients()
	if !ok {
		return
	}
	label := k.checkMetadata(ctx, r)
	k.checkData(ctx, r, label)
}

// openRepository checks the marker. Without a repository and without keys
// that are for one there is nothing wrong: init comes next.
func (k *keyCheck) openRepository(ctx context.Context) (*repo.Repo, bool) {
	if errors.Is(k.markerErr, repo.ErrNoRepository) && k.keys.Cluster == nil && len(k.keys.Identities) == 0 {
		k.unknown(markerCheck, markerMeaning, "there is no repository yet: \"lifeboat init\" creates it")
		return nil, false
	}
	var r *repo.Repo
	err := k.timed(markerCheck, markerMeaning, func() (err error) {
		r, err = repo.Open(ctx, k.store, k.keys, hostName())
		return err
	})
	return r, err == nil
}

// checkRecipients compares the identity with the configured recipients: a
// recovery key that is none of them opens nothing that is written from now on.
func (k *keyCheck) checkRecipients() {
	if len(k.keys.Recipients) == 0 || len(k.keys.Identities) == 0 {
		return
	}
	_ = k.timed(recipientsCheck, recipientsSense, func() error {
		own := (&repo.KeyFile{Identities: k.keys.Identities}).Recipients()
		fits := func(r age.Recipient) bool {
			s, ok := r.(fmt.Stringer)
			return ok && slices.Contains(own, s.String())
		}
		if slices.ContainsFunc(k.keys.Recipients, fits) {
			return nil
		}
		return fmt.Errorf("none of the %d recipients belongs to the identity: %w", len(k.keys.Recipients), repo.ErrWrongIdentity)
	})
}

// checkMetadata reads what the newest backup is and returns its label.
func (k *keyCheck) checkMetadata(ctx context.Context, r *repo.Repo) (label string) {
	if k.keys.Cluster == nil && !r.CanOpenData() {
		k.unknown(metadataCheck, metadataMeaning, "neither cluster_key nor identity is configured")
		return ""
	}
	began := time.Now()
	labels, err := r.Backups(ctx)
	if err == nil && len(labels) == 0 {
		k.unknown(metadataCheck, metadataMeaning, "there is no backup yet: \"lifeboat backup\" takes one")
		return ""
	}
	if err == nil {
		label = labels[len(labels)-1]
		_, err = r.Info(ctx, label)
	}
	k.add(metadataCheck, metadataMeaning, err, time.Since(began))
	return label
}

// checkData opens one frame of the newest backup, or a file of the WAL archive
// as long as there is no backup.
func (k *keyCheck) checkData(ctx context.Context, r *repo.Repo, label string) {
	if !r.CanOpenData() {
		k.unknown(dataCheck, dataMeaning, "no identity is configured, as it should be on a database host")
		return
	}
	began := time.Now()
	found, err := openFrame(ctx, r, label)
	if !found && err == nil {
		found, err = openWAL(ctx, r)
	}
	if !found && err == nil {
		k.unknown(dataCheck, dataMeaning, "nothing is stored yet")
		return
	}
	k.add(dataCheck, dataMeaning, err, time.Since(began))
}

// openFrame opens the first frame of a backup.
func openFrame(ctx context.Context, r *repo.Repo, label string) (found bool, err error) {
	if label == "" {
		return false, nil
	}
	m, err := r.OpenManifest(ctx, label)
	if err != nil {
		return false, err
	}
	defer m.Close()
	reader, err := r.NewPackReader()
	if err != nil {
		return false, err
	}
	defer reader.Close()
	for p, err := range m.Packs() {
		if err != nil {
			return false, err
		}
		frame := p.Frames[0].FrameRef
		pack, err := r.FetchPack(ctx, p.PackRef, []repo.FrameRef{frame})
		if err == nil {
			_, err = reader.Frame(pack, frame)
		}
		return true, err
	}
	return false, nil
}

// openWAL opens the first file of the archive.
func openWAL(ctx context.Context, r *repo.Repo) (found bool, err error) {
	for info, err := range r.Store().List(ctx, "wal/") {
		if err != nil {
			return false, fmt.Errorf("list the archive: %w", err)
		}
		if strings.Count(info.Key, "/") != 3 {
			continue // not one of ours
		}
		_, body, err := r.OpenEnvelope(ctx, info.Key, repo.KindWAL)
		if err != nil {
			return true, err
		}
		return true, body.Close()
	}
	return false, nil
}

func (k *keyCheck) timed(name, meaning string, check func() error) error {
	began := time.Now()
	err := check()
	k.add(name, meaning, err, time.Since(began))
	return err
}

func (k *keyCheck) add(name, meaning string, err error, took time.Duration) {
	outcome := checkOK
	if err != nil {
		outcome = checkFailed
	}
	k.report.add(name, meaning, outcome, err, took)
}

func (k *keyCheck) unknown(name, meaning, why string) {
	k.report.add(name, meaning, checkUnknown, errors.New(why), 0)
}

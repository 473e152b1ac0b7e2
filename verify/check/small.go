package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// checkBeside looks at the objects beside a manifest.
func (w *work) checkBeside(ctx context.Context, f repo.Directory, want repo.Info) error {
	for _, o := range f.Objects {
		switch o.Key {
		case repo.InfoKey(f.Label):
			have, err := w.repo.InfoObject(ctx, f.Label)
			if err == nil && !reflect.DeepEqual(have, want) {
				err = &repo.CorruptError{Object: o.Key, Reason: "it says otherwise than the manifest"}
			}
			if err := w.small(err, InfoDamaged, o.Key); err != nil {
				return err
			}
		case repo.FingerprintsKey(f.Label):
			_, _, err := w.repo.CheckEnvelope(ctx, o.Key, repo.KindFingerprints)
			if err := w.small(err, NotesDamaged, o.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkSmall looks at systems and pins.
func (w *work) checkSmall(ctx context.Context) error {
	for o := range w.list.List(ctx, repo.SystemsPrefix) {
		if !strings.Contains(o.Key[len(repo.SystemsPrefix):], "/") {
			_, _, err := w.repo.CheckEnvelope(ctx, o.Key, repo.KindSystem)
			if err := w.small(err, SystemDamaged, o.Key); err != nil {
				return err
			}
		}
	}
	pins, err := w.repo.Pins(ctx)
	if errors.Is(err, repo.ErrNoIdentity) {
		w.unproven("pins cannot be read: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range pins {
		if p.Err != nil {
			w.find(PinDamaged, repo.PinsPrefix+p.Label+"/", p.Err)
		}
	}
	return nil
}

// small is a finding that spoils no backup, or the error of a store that failed.
func (w *work) small(err error, code Code, key string) error {
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist): // removed since the listing
		return nil
	case errors.Is(err, repo.ErrNoIdentity), errors.Is(err, repo.ErrWrongIdentity):
		w.unproven("%s cannot be opened: %v", key, err)
		return nil
	case repo.LaterFormat(err):
		w.unproven("%s is not known to this version of Lifeboat: %v", key, err)
		return nil
	case !repo.AboutObject(err):
		return fmt.Errorf("check %s: %w", key, err)
	}
	w.find(code, key, err).Points = "none: backups and WAL do not depend on it"
	return nil
}

package check

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// snapshot is a store that answers listings from one listing of everything. So
// each prefix is listed once, and all that is compared is of one moment, or
// nearly. Of a pack it keeps 48 bytes.
type snapshot struct {
	storage.Store
	packs   repo.PackList
	objects []storage.Info // all but the packs, ascending
	strange []string       // keys that are none of ours
	bytes   int64
}

func listAll(ctx context.Context, r *repo.Repo) (*snapshot, error) {
	s := &snapshot{Store: r.Store()}
	for info, err := range r.Store().List(ctx, "") {
		if err != nil {
			return nil, err
		}
		s.bytes += info.Size
		if strings.HasPrefix(info.Key, repo.PacksPrefix) {
			if p, ok := repo.PackOf(info); ok {
				s.packs = append(s.packs, p)
			} else {
				s.strange = append(s.strange, info.Key)
			}
			continue
		}
		if !known(info.Key) {
			s.strange = append(s.strange, info.Key)
		}
		s.objects = append(s.objects, info)
	}
	return s, nil
}

// known says whether a key is of a form that the format knows, as far as its
// directory tells; what lies in the directory is looked at by who reads it.
func known(key string) bool {
	if key == repo.MarkerKey {
		return true
	}
	directory, _, ok := strings.Cut(key, "/")
	return ok && slices.Contains([]string{"backups", "wal", "systems", "leases", "pins", "blocks", "drills", "check", "checks", "keys"}, directory)
}

// List implements storage.Store.
func (s *snapshot) List(_ context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		i, _ := slices.BinarySearchFunc(s.objects, prefix, func(o storage.Info, key string) int { return strings.Compare(o.Key, key) })
		for ; i < len(s.objects) && strings.HasPrefix(s.objects[i].Key, prefix); i++ {
			if !yield(s.objects[i], nil) {
				return
			}
		}
	}
}

// hide takes objects out of the listing.
func (s *snapshot) hide(keys map[string]bool) {
	if len(keys) > 0 {
		s.objects = slices.DeleteFunc(s.objects, func(o storage.Info) bool { return keys[o.Key] })
	}
}

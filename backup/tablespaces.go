package backup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// LostTablespaceError says that the files of a tablespace are not where the server
// has them: its disk is not mounted, mostly. A server runs without, as long as nobody
// reads there.
type LostTablespaceError struct {
	OID  uint32
	Path string // as the server knows it; "" for one in place
}

func (e *LostTablespaceError) Error() string {
	where := e.Path
	if where == "" {
		where = fmt.Sprintf("pg_tblspc/%d", e.OID)
	}
	return fmt.Sprintf("the files of tablespace %d are not in %s", e.OID, where)
}

// A tablespace that is being dropped is gone from the disk a moment before it is from
// the catalogue.
const (
	dropTries = 50
	dropPause = 100 * time.Millisecond
)

// checkTablespaces makes sure that each tablespace was found but those that have been
// dropped meanwhile, which is in the WAL. *LostTablespaceError else.
func (s *server) checkTablespaces(ctx context.Context, listed []repo.Tablespace, found map[uint32]bool) error {
	missing := slices.Clone(listed)
	for range dropTries {
		missing = slices.DeleteFunc(missing, func(t repo.Tablespace) bool { return found[t.OID] })
		if len(missing) == 0 {
			return nil
		}
		now, err := s.readTablespaces(ctx)
		if err != nil {
			return err
		}
		missing = slices.DeleteFunc(missing, func(t repo.Tablespace) bool {
			return !slices.ContainsFunc(now, func(n repo.Tablespace) bool { return n.OID == t.OID })
		})
		if len(missing) == 0 {
			return nil
		}
		if err := sleep(ctx, dropPause); err != nil {
			return err
		}
	}
	return &LostTablespaceError{missing[0].OID, missing[0].Path}
}

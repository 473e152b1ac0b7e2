package repo

import (
	"context"
	"time"
)

// The leases that the program takes.
const (
	BackupLease = "backup" // of who adds backups
	ExpireLease = "expire" // of who removes and pins them
	DrillLease  = "drill"  // of who rehearses a restore
)

// HoldBoth takes the leases of backups and of expiry, for work that rests on
// objects that are there and that no running backup has said to need: an expiry
// that read the repository before would remove them behind its back. Otherwise as
// HoldLease; *LeasedError when either is held.
func (r *Repo) HoldBoth(ctx context.Context, by Claim, now func() time.Time, warn func(error)) (held context.Context, release func(), err error) {
	held, giveBackups, err := r.HoldLease(ctx, BackupLease, by, now, warn)
	if err != nil {
		return nil, nil, err
	}
	held, giveExpiry, err := r.HoldLease(held, ExpireLease, by, now, warn)
	if err != nil {
		giveBackups()
		return nil, nil, err
	}
	return held, func() { giveExpiry(); giveBackups() }, nil
}

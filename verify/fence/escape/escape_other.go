//go:build !linux

package escape

import (
	"context"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

// Enter has nothing to do here.
func Enter([]string) error { return fence.ErrUnsupported }

// Try cannot try here.
func Try(context.Context, *fence.Fence, string, int, int) ([]Attempt, error) {
	return nil, fence.ErrUnsupported
}

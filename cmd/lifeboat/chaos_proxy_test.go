package main

import (
	"math/rand/v2"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// badNetwork is a proxy between Lifeboat and the store that does what
// networks do to people: it cuts, delays, truncates and throttles.
type badNetwork struct{ proxy *s3test.Proxy }

func newBadNetwork(t *testing.T, target string) *badNetwork {
	t.Helper()
	proxy, err := s3test.StartProxy(target, s3test.ProxyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	return &badNetwork{proxy}
}

// faults are those that are drawn from, with how much of each.
var faults = []struct {
	kind     s3test.FaultKind
	from, to int64
}{
	{s3test.Delays, 5, 200},
	{s3test.Throttles, 20_000, 2_000_000},
	{s3test.Truncates, 1, 200_000},
	{s3test.Resets, 0, 50},
	{s3test.Swallows, 50, 400},
	{s3test.Dribbles, 50, 500},
}

// cuts is one more: all connections end, new ones are refused.
const cuts = "cuts"

// worsen begins a fault and says which.
func (n *badNetwork) worsen(t *testing.T, random *rand.Rand) string {
	t.Helper()
	i := random.IntN(len(faults) + 1)
	if i == len(faults) {
		if err := n.proxy.Refuse(); err != nil {
			t.Fatal(err)
		}
		return cuts
	}
	f := faults[i]
	n.proxy.SetFault(&s3test.Fault{Kind: f.kind, Up: random.IntN(2) == 0, N: f.from + random.Int64N(f.to-f.from+1)})
	return f.kind.String()
}

// heal ends all faults.
func (n *badNetwork) heal(t *testing.T) {
	t.Helper()
	n.proxy.SetFault(nil)
	if err := n.proxy.Accept(); err != nil {
		t.Fatal(err)
	}
}

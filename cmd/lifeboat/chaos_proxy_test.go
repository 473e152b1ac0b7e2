package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// badNetwork is a proxy between Lifeboat and the store that does what
// networks do to people: it cuts, delays, truncates and throttles.
type badNetwork struct{ proxy *toxiproxy.Proxy }

func newBadNetwork(t *testing.T, target string) *badNetwork {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics have a logger of their own
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	n := &badNetwork{toxiproxy.NewProxy(api, "store", "127.0.0.1:0", target)}
	if err := n.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.proxy.Stop)
	return n
}

// faults are the toxics that are drawn from, as toxiproxy's API takes them;
// %d is replaced by a number drawn from the range.
var faults = []struct {
	name     string
	toxic    string
	from, to int
}{
	{"delays", `"type":"latency","attributes":{"latency":%d,"jitter":20}`, 5, 200},       // milliseconds
	{"throttles", `"type":"bandwidth","attributes":{"rate":%d}`, 20, 2000},               // KB/s
	{"truncates", `"type":"limit_data","attributes":{"bytes":%d}`, 1, 200_000},           // then closes
	{"resets", `"type":"reset_peer","attributes":{"timeout":%d}`, 0, 50},                 // milliseconds
	{"swallows", `"type":"timeout","attributes":{"timeout":%d}`, 50, 400},                // milliseconds, then closes
	{"dribbles", `"type":"slicer","attributes":{"average_size":%d,"delay":50}`, 50, 500}, // bytes
}

// cuts is the fault that no toxic is: all connections end, new ones are
// refused.
const cuts = "cuts"

// worsen begins a fault and says which.
func (n *badNetwork) worsen(t *testing.T, random *rand.Rand) string {
	t.Helper()
	i := random.IntN(len(faults) + 1)
	if i == len(faults) {
		n.proxy.Stop()
		return cuts
	}
	f := faults[i]
	stream := []string{"upstream", "downstream"}[random.IntN(2)]
	toxic := fmt.Sprintf(f.toxic, f.from+random.IntN(f.to-f.from+1))
	_, err := n.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":"fault","stream":%q,%s}`, stream, toxic)))
	if err != nil {
		t.Fatal(err)
	}
	return f.name
}

// heal ends all faults.
func (n *badNetwork) heal(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	n.proxy.Toxics.ResetToxics(ctx)
	if !n.proxy.Enabled {
		if err := n.proxy.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

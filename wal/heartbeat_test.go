package wal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	c := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{"synchronous_standby_names": "nobody"}})
	ctx := context.Background()
	before, err := postgres.ParseLSN(c.QueryString(t, "select pg_current_wal_insert_lsn()"))
	check(t, err)
	// It must not wait for a standby that is not there.
	lsn, written, err := Heartbeat(ctx, c.ConnString(), time.Unix(1800000000, 0))
	if err != nil || !written || lsn <= before {
		t.Fatalf("%s, %t, %v", lsn, written, err)
	}
	if flushed := c.QueryString(t, "select pg_current_wal_flush_lsn() >= '"+lsn.String()+"'"); flushed != "t" {
		t.Error("it is not on the server's disk")
	}
	if _, _, err := Heartbeat(ctx, "host=/nowhere", time.Unix(1800000000, 0)); err == nil {
		t.Error("a heartbeat without a server")
	}
}

// The warning comes while there is still time, and afterwards says that it is
// too late.
func TestSlotAtRisk(t *testing.T) {
	t.Parallel()
	c := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{
		"max_slot_wal_keep_size": "8MB", "max_wal_size": "2MB", "min_wal_size": "2MB"}})
	ctx := context.Background()
	c.Exec(t, "select pg_create_physical_replication_slot('lifeboat', true)")
	var warned []error
	s := &streamer{o: StreamOptions{Slot: "lifeboat", Notify: func(e StreamEvent) { warned = append(warned, e.Err) }}}
	look := func() *SlotAtRiskError {
		t.Helper()
		warned = nil
		check(t, s.look(ctx, c.Conn(t)))
		if len(warned) == 0 {
			return nil
		}
		risk, ok := errors.AsType[*SlotAtRiskError](warned[0])
		if !ok {
			t.Fatalf("warned of %v", warned)
		}
		return risk
	}
	if risk := look(); risk != nil {
		t.Errorf("warned of %v when nothing was written", risk)
	}
	fill := func() {
		c.Exec(t, "select pg_logical_emit_message(false, 'test', repeat('x', 1000000)), pg_switch_wal()")
	}
	for range 20 {
		fill()
		if risk := look(); risk != nil {
			if risk.Status != "extended" && risk.Status != "reserved" {
				t.Errorf("the first warning comes when the slot is %s already", risk.Status)
			}
			if risk.Left <= 0 || risk.Left > 2<<20 || !strings.Contains(risk.Error(), "away from being cut off") {
				t.Errorf("warned of %v", risk)
			}
			for range 4 {
				fill()
			}
			c.Exec(t, "checkpoint")
			c.Exec(t, "checkpoint")
			if risk := look(); risk == nil || risk.Status != "lost" {
				t.Errorf("after it was cut off: %v", risk)
			}
			return
		}
	}
	t.Error("no warning came")
}

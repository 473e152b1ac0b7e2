package postgres_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// item builds the header of a block: its number, the fork and flags, the
// length of its data, and with rel the relation and the page.
func item(id, flags byte, dataLen byte, rel bool) []byte {
	b := []byte{id, flags, dataLen, 0}
	if rel {
		b = append(b, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0)
	}
	return append(b, 9, 0, 0, 0)
}

func TestDecodeRefuses(t *testing.T) {
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	const sameRel, hasData = 0x80, 0x20
	for what, body := range map[string][]byte{
		"a block twice":                join(item(3, 0, 0, true), item(3, sameRel, 0, false)),
		"blocks that descend":          join(item(3, 0, 0, true), item(2, sameRel, 0, false)),
		"no relation before":           item(0, sameRel, 0, false),
		"an unknown fork":              item(0, 4, 0, true),
		"data without its flag":        join(item(0, 0, 1, true), []byte{7}),
		"a flag without data":          item(0, hasData, 0, true),
		"data that is not there":       item(0, hasData, 1, true),
		"bytes that belong to nothing": join(item(0, 0, 0, true), []byte{255, 1, 7, 7}),
		"main data cut off":            {255, 2, 7},
		"huge main data":               {254, 255, 255, 255, 255, 7},
		"an item after the main data":  {255, 0, 253, 1, 0},
		"an unknown item":              {200, 0},
		"half an item":                 {253, 1},
		"block number 33":              item(33, 0, 0, true),
	} {
		var c postgres.Contents
		if err := postgres.MakeRecord(15, postgres.RmgrHeap, 0, body).Decode(&c); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
		samePages(t, postgres.MakeRecord(15, postgres.RmgrHeap, 0, body))
	}
}

// samePages holds AppendPages to what Decode finds.
func samePages(t *testing.T, rec postgres.Record) {
	t.Helper()
	var c postgres.Contents
	err := rec.Decode(&c)
	kept := postgres.PageRef{Block: 77}
	got, pagesErr := rec.AppendPages([]postgres.PageRef{kept})
	want := []postgres.PageRef{kept}
	if err == nil {
		for _, b := range c.Blocks {
			want = append(want, postgres.PageRef{Rel: b.Rel, Fork: b.Fork, Block: b.Block})
		}
	}
	if !slices.Equal(got, want) || (err == nil) != (pagesErr == nil) || pagesErr != nil && !errors.Is(pagesErr, postgres.ErrFormat) {
		t.Errorf("pages %v and %v; decoded %v and %v", got, pagesErr, want, err)
	}
}

func TestDecode(t *testing.T) {
	body := slices.Concat(item(0, 0x20, 2, true), item(2, 0x80|0x40|1, 0, false), []byte{253, 5, 0}, []byte{252, 6, 0, 0, 0},
		[]byte{255, 3}, []byte{21, 22}, []byte{31, 32, 33})
	var c postgres.Contents
	if err := postgres.MakeRecord(15, postgres.RmgrHeap, 0, body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	rel := postgres.RelFile{Tablespace: 1, Database: 2, Number: 3}
	if len(c.Blocks) != 2 || c.Blocks[0].Rel != rel || c.Blocks[1].Rel != rel || c.Blocks[1].Fork != postgres.ForkFSM ||
		c.Blocks[1].ID != 2 || !c.Blocks[1].WillInit || c.Blocks[0].Block != 9 || !slices.Equal(c.Blocks[0].Data, []byte{21, 22}) ||
		!slices.Equal(c.Data, []byte{31, 32, 33}) || c.Origin != 5 || c.TopXID != 6 {
		t.Errorf("%+v", c)
	}
	samePages(t, postgres.MakeRecord(15, postgres.RmgrHeap, 0, body))
	samePages(t, postgres.MakeRecord(13, postgres.RmgrHeap, 0, body))
	// PostgreSQL 13 has no top-level transaction in its records.
	if err := postgres.MakeRecord(13, postgres.RmgrHeap, 0, body).Decode(&c); err == nil {
		t.Error("an item of PostgreSQL 14 was read in a record of 13")
	}
}

func TestEventRefuses(t *testing.T) {
	short := func(main ...byte) []byte { return append([]byte{255, byte(len(main))}, main...) }
	for what, r := range map[string]postgres.Record{
		"checkpoint":      postgres.MakeRecord(15, postgres.RmgrXLOG, 0x10, short(make([]byte, 80)...)),
		"restore point":   postgres.MakeRecord(15, postgres.RmgrXLOG, 0x70, short(make([]byte, 60)...)),
		"commit":          postgres.MakeRecord(15, postgres.RmgrTransaction, 0, short(1, 2, 3)),
		"subtransactions": postgres.MakeRecord(15, postgres.RmgrTransaction, 0x80, short(0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 127)),
		"negative count":  postgres.MakeRecord(15, postgres.RmgrTransaction, 0x80, short(0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255)),
		"path":            postgres.MakeRecord(15, postgres.RmgrTablespace, 0, short(1, 0, 0, 0, '/', 'x')),
		"message":         postgres.MakeRecord(15, postgres.RmgrLogicalMessage, 0, short(make([]byte, 24)...)),
		"fork":            postgres.MakeRecord(15, postgres.RmgrStorage, 0x10, short(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0)),
	} {
		if ev, err := r.Event(); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%s: %+v, %v", what, ev, err)
		}
	}
}

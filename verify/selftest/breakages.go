package selftest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	checks "github.com/lifeboat-dr/lifeboat/verify/probe"
)

// breakages are all of them. Those that change the server's data come last:
// what follows has these changes too.
func breakages() []breakage {
	return []breakage{
		{name: "nothing (the drill must pass)", level: evidence.Deep},
		{name: "a pack is missing", apply: onPack((*overlay).removed), says: "packs/"},
		{name: "a bit of a pack is flipped", apply: onPack(flipBit), says: "packs/"},
		{name: "a pack is truncated", apply: onPack(truncate), says: "packs/"},
		{name: "the manifest is forged", apply: forgeManifest, says: "signed"},
		{name: "WAL is missing before the consistent point", apply: removeWAL(func(i repo.Info) postgres.LSN { return i.StartLSN }), says: "gap in the WAL"},
		{name: "WAL is missing after the consistent point", apply: removeWAL(func(i repo.Info) postgres.LSN { return i.StopLSN + postgres.LSN(i.SegSize) }), says: "gap in the WAL"},
		{name: "WAL of a wrong timeline", apply: wrongTimeline, says: "timeline"},
		{name: "an identity that does not fit", apply: otherIdentity, says: "identit"},
		{name: "a disk that is too small", apply: smallDisk, says: "too little disk"},
		{name: "a server of the wrong version", apply: otherVersion, says: "PostgreSQL"},
		{name: "data older than the freshness check allows", apply: check(checks.Check{
			SQL: "select max(at) from lifeboat_selftest", NewerThan: time.Hour}), says: "before the disaster"},
		{name: "a check that hangs", apply: check(checks.Check{SQL: "select pg_sleep(3600)", Timeout: time.Second}), says: "did not end within"},
		{name: "a recovery that hangs", apply: hangingRecovery, says: "recovery hangs"},
		{name: "a table that is not as it was at the backup", apply: otherTables, says: "rows, not 999999"},
		{name: "a table that lost rows", apply: loseRows, says: "at least"},
		{name: "an index that does not match its table", level: evidence.Deep, apply: breakIndex, says: "pg_amcheck"},
	}
}

// removed is remove as a change of an object.
func (o *overlay) removed(_ context.Context, key string) error {
	o.remove(key)
	return nil
}

// onPack changes the largest pack of the backup.
func onPack(change func(*overlay, context.Context, string) error) func(context.Context, *bench) error {
	return func(ctx context.Context, w *bench) error {
		var largest string
		var size int64
		for info, err := range w.store.List(ctx, "packs/") {
			if err != nil {
				return err
			}
			if info.Size > size {
				largest, size = info.Key, info.Size
			}
		}
		if largest == "" {
			return errNothing
		}
		return change(w.store, ctx, largest)
	}
}

func flipBit(o *overlay, ctx context.Context, key string) error {
	data, err := o.read(ctx, key)
	if err != nil {
		return err
	}
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	o.replace(key, data)
	return nil
}

func truncate(o *overlay, ctx context.Context, key string) error {
	data, err := o.read(ctx, key)
	if err != nil {
		return err
	}
	o.replace(key, data[:len(data)-1])
	return nil
}

// forgeManifest writes the manifest again, whole and well-formed, signed by a
// key that somebody made for it.
func forgeManifest(ctx context.Context, w *bench) error {
	key := repo.ManifestKey(w.info.Label)
	forger, err := repo.NewClusterKey(w.keys.Cluster.Cluster, w.keys.Cluster.Repository)
	if err != nil {
		return err
	}
	keys := w.keys
	keys.Trusted = append(keys.Trusted, w.keys.Cluster.Signers...)
	keys.Cluster = forger
	return w.rewrite(ctx, keys, key, key, repo.KindManifest)
}

// rewrite stores the content of one object under a key, with the signature of
// the given keys.
func (w *bench) rewrite(ctx context.Context, keys repo.Keys, from, to string, kind repo.Kind) error {
	genuine, err := repo.Open(ctx, w.store, w.keys, "selftest")
	if err != nil {
		return err
	}
	_, rc, err := genuine.OpenEnvelope(ctx, from, kind)
	if err != nil {
		return err
	}
	defer rc.Close()
	plain, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	other, err := repo.Open(ctx, w.store, keys, "selftest")
	if err != nil {
		return err
	}
	w.store.remove(to)
	_, err = other.CreateEnvelope(ctx, to, kind, bytes.NewReader(plain), int64(len(plain)))
	return err
}

func (w *bench) segment(at postgres.LSN) postgres.WALName {
	name, _ := postgres.ParseWALName(postgres.SegmentAt(w.info.Timeline, at, w.info.SegSize).Name())
	return name
}

// removeWAL takes the segment away that holds a position.
func removeWAL(at func(repo.Info) postgres.LSN) func(context.Context, *bench) error {
	return func(ctx context.Context, w *bench) error {
		key := repo.WALKey(w.info.System, w.segment(at(w.info)))
		if _, err := w.store.Stat(ctx, key); err != nil {
			return err
		}
		w.store.remove(key)
		return nil
	}
}

// wrongTimeline makes the archive lead to a timeline 2 whose WAL is that of
// timeline 1: named, sealed and signed like the true one.
func wrongTimeline(ctx context.Context, w *bench) error {
	at := w.info.StopLSN + postgres.LSN(w.info.SegSize)
	from := w.segment(at)
	to, err := postgres.ParseWALName(postgres.SegmentAt(2, at, w.info.SegSize).Name())
	if err != nil {
		return err
	}
	if err := w.rewrite(ctx, w.keys, repo.WALKey(w.info.System, from), repo.WALKey(w.info.System, to), repo.KindWAL); err != nil {
		return err
	}
	history := fmt.Sprintf("1\t%s\tno reason\n", postgres.SegmentAt(1, at, w.info.SegSize).Start())
	name, err := postgres.ParseWALName(postgres.Timeline(2).HistoryName())
	if err != nil {
		return err
	}
	r, err := repo.Open(ctx, w.store, w.keys, "selftest")
	if err != nil {
		return err
	}
	_, err = r.CreateEnvelope(ctx, repo.WALKey(w.info.System, name), repo.KindWAL, strings.NewReader(history), int64(len(history)))
	return err
}

// otherIdentity is a recovery key that the backup was not sealed to.
func otherIdentity(_ context.Context, w *bench) error {
	key, err := repo.NewRecoveryKey(nil)
	if err != nil {
		return err
	}
	w.keys.Identities = key.Identities
	return nil
}

func smallDisk(_ context.Context, w *bench) error {
	w.drill.Reserve = math.MaxInt64 / 2
	return nil
}

func otherVersion(_ context.Context, w *bench) error {
	find := w.drill.Find
	w.drill.Find = func(major int) (server.Install, error) { return find(major + 70) }
	return nil
}

// check adds one check of a user.
func check(c checks.Check) func(context.Context, *bench) error {
	return func(_ context.Context, w *bench) error {
		c.Name, c.Required = "selftest", true
		w.drill.Checks = append(w.drill.Checks, c)
		return nil
	}
}

// hangingRecovery has each commit wait for an hour.
func hangingRecovery(_ context.Context, w *bench) error {
	w.drill.Settings = map[string]string{"recovery_min_apply_delay": "1d"}
	w.drill.Stall = 2 * time.Second
	return nil
}

// otherTables has the backup say of a table that it had other rows than it has.
func otherTables(ctx context.Context, w *bench) error {
	r, err := repo.Open(ctx, w.store, w.keys, "selftest")
	if err != nil {
		return err
	}
	key := repo.FingerprintsKey(w.info.Label)
	text, _, err := r.ReadEnvelope(ctx, key, repo.KindFingerprints, 1<<20)
	if err != nil {
		return err
	}
	changed := regexp.MustCompile(`"rows":\d+`).ReplaceAll(text, []byte(`"rows":999999`))
	if bytes.Equal(changed, text) {
		return errNothing
	}
	w.store.remove(key)
	_, err = r.CreateEnvelope(ctx, key, repo.KindFingerprints, bytes.NewReader(changed), int64(len(changed)))
	return err
}

func loseRows(ctx context.Context, w *bench) error {
	if err := w.scratch.Change(ctx, "delete from lifeboat_selftest where id = 1"); err != nil {
		return err
	}
	rows := float64(w.scratch.Rows)
	return check(checks.Check{SQL: "select count(*) from lifeboat_selftest", Min: &rows})(ctx, w)
}

// breakIndex adds a row that the index does not learn of.
func breakIndex(ctx context.Context, w *bench) error {
	return w.scratch.Change(ctx, `create index lifeboat_broken on lifeboat_selftest (at);
		update pg_index set indisready = false, indisvalid = false where indexrelid = 'lifeboat_broken'::regclass;
		insert into lifeboat_selftest values (0, now());
		update pg_index set indisready = true, indisvalid = true where indexrelid = 'lifeboat_broken'::regclass`)
}

package drill

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// wanted are the settings that keep the server to itself, as it must say of
// them. A setting that this version does not have is none.
var wanted = map[string]string{
	"listen_addresses": "", "archive_mode": "off", "archive_command": "(disabled)", "archive_library": "",
	"archive_cleanup_command": "", "recovery_end_command": "", "primary_conninfo": "", "primary_slot_name": "",
	"synchronous_standby_names": "", "max_logical_replication_workers": "0", "cron.launch_active_jobs": "off",
}

// proveFence looks at the running server for what keeps it from the world.
func (r *run) proveFence(ctx context.Context) (evidence.Verdict, string) {
	f := r.doc.Fence
	f.User = r.serverUser()
	if err := r.lookAtNamespaces(f); err != nil {
		return evidence.Unknown, err.Error()
	}
	if err := r.lookAtSettings(ctx, f); err != nil {
		return evidence.Unknown, err.Error()
	}
	if err := r.lookAtWorkers(ctx, f); err != nil {
		return evidence.Unknown, err.Error()
	}
	if len(f.Missing) > 0 {
		return evidence.Failed, strings.Join(f.Missing, "; ")
	}
	detail := fmt.Sprintf("%d things hold", len(f.Proven))
	if !r.fenced() {
		detail += "; network and files are not isolated: " + r.unfenced
	}
	return evidence.Passed, detail
}

func (r *run) lookAtSettings(ctx context.Context, f *evidence.Fence) error {
	conn, err := r.conn().Open(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "select name, setting from pg_settings where name = any($1) order by name", slices.Sorted(maps.Keys(wanted)))
	if err != nil {
		return probe.Shortened(err)
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if value == wanted[name] {
			f.Proven = append(f.Proven, name+" is "+shownSetting(value))
		} else {
			f.Missing = append(f.Missing, name+" is "+shownSetting(value))
		}
		return nil
	})
	return err
}

func shownSetting(v string) string {
	if v == "" {
		return "empty"
	}
	return v
}

// lookAtWorkers makes sure that no process of the server reaches out.
func (r *run) lookAtWorkers(ctx context.Context, f *evidence.Fence) error {
	value, err := r.conn().Value(ctx, "", `select coalesce(string_agg(distinct backend_type, ', '), '') from pg_stat_activity
		where backend_type ~ 'logical replication|walreceiver|walsender|archiver|pg_cron'`)
	if err != nil {
		return err
	}
	if value != nil && *value != "" {
		f.Missing = append(f.Missing, "these processes run: "+*value)
		return nil
	}
	f.Proven = append(f.Proven, "no archiver, walsender, walreceiver, logical replication or cron process runs")
	return nil
}

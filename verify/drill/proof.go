package drill

import (
	"context"
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// wanted are the settings that keep the server to itself, as it must say of
// them. A setting that this version does not have is none.
var wanted = map[string]string{
	"listen_addresses": "", "archive_mode": "off", "archive_command": "(disabled)", "archive_library": "",
	"archive_cleanup_command": "", "recovery_end_command": "", "primary_conninfo": "", "primary_slot_name": "",
	"synchronous_standby_names": "", "max_logical_replication_workers": "0", "cron.launch_active_jobs": "off",
}

// proveFence puts together what the kernel keeps away from the running server, as
// this process sees it, and what the server says of itself.
func (r *run) proveFence(ctx context.Context) (evidence.Verdict, string) {
	f := r.doc.Fence
	f.User = r.serverUser()
	if err := r.lookAtNamespaces(f); err != nil {
		return evidence.Unknown, err.Error()
	}
	s, err := r.look(ctx, lookRequest{Check: "fence", Limit: checkLimit})
	if err != nil {
		return evidence.Unknown, err.Error()
	}
	f.Proven, f.Missing = append(f.Proven, s.Proven...), append(f.Missing, s.Missing...)
	switch {
	case s.Verdict != evidence.Passed:
		return s.Verdict, s.Detail
	case len(f.Missing) > 0:
		return evidence.Failed, strings.Join(f.Missing, "; ")
	case r.untried != "":
		return evidence.Unknown, "nobody tried to get out of the fence: " + r.untried
	}
	detail := fmt.Sprintf("%d things hold", len(f.Proven))
	if !r.fenced() {
		detail += "; network and files are not isolated: " + r.unfenced
	}
	return evidence.Passed, detail
}

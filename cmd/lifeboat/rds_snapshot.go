package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// rdsSnapshotReport is the JSON document of a snapshot.
type rdsSnapshotReport struct {
	Source   string          `json:"source"`
	Snapshot string          `json:"snapshot"`
	Region   string          `json:"region"`
	State    string          `json:"state"`
	Resumed  bool            `json:"resumed"`  // an interrupted run had begun it
	Verified bool            `json:"verified"` // it, and its copies, were compared with the source
	Copies   []rdsCopyReport `json:"copies"`
}

// rdsCopyReport is a copy.
type rdsCopyReport struct {
	Region   string `json:"region"`
	Snapshot string `json:"snapshot"`
	Resumed  bool   `json:"resumed"`
	KMSKey   string `json:"kms_key,omitempty"`
}

func rdsSnapshot(a *app) *cli.Command {
	return &cli.Command{
		Name:  "snapshot",
		Usage: "take a snapshot and copy it to other regions",
		Description: `
Takes a snapshot, tagged as Lifeboat's, and leaves when RDS has begun it. --wait
waits until it is available and compares it with the source; --copy-to waits too,
copies it from the other region, and compares the copy. --copy-to all is every
region of dr:.

Interrupted, it goes on at RDS; run again, Lifeboat takes up that snapshot and
makes no second one. An encrypted copy needs a KMS key in the other region, and
is refused before anything is made when there is none.`,
		Flags: append(rdsFlags(
			&cli.StringSliceFlag{Name: "copy-to", Usage: "copy it to `REGION`; can be repeated; all: to every region of dr"},
			&cli.StringFlag{Name: "kms-key", Usage: "`ARN` of the KMS key in that region, instead of the configured one"},
			&cli.BoolFlag{Name: "wait", Usage: "wait until it is available, and compared with the source"},
		), configFlags("rds.timeout")...),
		Action: func(c *cli.Context) error {
			r, err := a.newRDS(c)
			if err != nil {
				return err
			}
			names := c.StringSlice("copy-to")
			if len(names) == 1 && names[0] == "all" {
				names = nil
				for _, d := range r.source.DR {
					names = append(names, d.Name)
				}
				if len(names) == 0 {
					return usage("--copy-to all: source %s has no other regions", r.source.Name).hinted("name them below dr: in the configuration")
				}
			}
			if c.IsSet("kms-key") && len(names) != 1 {
				return usage("--kms-key goes with one --copy-to").hinted("keys of several regions stand in the configuration, below dr:")
			}
			to, err := r.regions(names, c.String("kms-key"))
			if err != nil {
				return err
			}
			r.progress = r.newProgress("asking RDS")
			defer r.progress.close()
			taken, err := rds.TakeSnapshot(c.Context, r.cloud.RDS, rds.SnapshotOptions{Source: r.source, CopyTo: to, Wait: c.Bool("wait"),
				Attempt: rds.Attempt(evidence.NewID(r.now())), Waiting: r.waiting()})
			r.progress.close()
			if err != nil {
				if taken != nil {
					r.note("snapshot %s goes on at RDS; run the command again, and it is taken up", taken.Snapshot.ID)
				}
				return err
			}
			report := newRDSSnapshot(r.source, taken)
			return a.outcome(report, func(w io.Writer) { report.write(w) })
		},
	}
}

func newRDSSnapshot(s rds.Source, t *rds.Taken) rdsSnapshotReport {
	r := rdsSnapshotReport{Source: s.Name, Snapshot: t.Snapshot.ID, Region: s.Region, State: t.Snapshot.Status, Resumed: t.Resumed, Verified: t.Verified, Copies: []rdsCopyReport{}}
	for _, c := range t.Copies {
		r.Copies = append(r.Copies, rdsCopyReport{Region: c.Region, Snapshot: c.Snapshot.ID, Resumed: c.Resumed, KMSKey: c.Snapshot.KMSKey})
	}
	return r
}

func (r rdsSnapshotReport) write(w io.Writer) {
	how := "begun"
	switch {
	case r.Verified && r.Resumed:
		how = "taken up, available, and compared with the source"
	case r.Verified:
		how = "available, and compared with the source"
	case r.Resumed:
		how = "in the making already"
	}
	_, _ = fmt.Fprintf(w, "Snapshot %s of %s in %s: %s\n", r.Snapshot, r.Source, r.Region, how)
	for _, c := range r.Copies {
		_, _ = fmt.Fprintf(w, "Copy in %s: available, and compared with the source\n", c.Region)
	}
}

// rdsHeartbeatReport is the JSON document of a heartbeat.
type rdsHeartbeatReport struct {
	Source string    `json:"source"`
	At     time.Time `json:"at"`
	Number int64     `json:"number"`
}

func rdsHeartbeat(a *app) *cli.Command {
	return &cli.Command{
		Name:  "heartbeat",
		Usage: "write the row that tells a drill how far a copy goes",
		Description: `
Updates the one row of the table lifeboat.heartbeat on the source. On RDS nobody
can read the WAL, so the loss is measured by the newest heartbeat that a restored
copy has. Run it from a timer, and say how often by heartbeat: in the
configuration. --create makes the table, in a schema of its own.`,
		Flags: append(rdsFlags(&cli.BoolFlag{Name: "create", Usage: "make schema and table first if they are not there"}), configFlags()...),
		Action: func(c *cli.Context) error {
			r, err := a.newRDS(c)
			if err != nil {
				return err
			}
			api, err := r.cloud.RDS(r.source.Region)
			if err != nil {
				return err
			}
			d, err := api.Database(c.Context, r.source.Kind, r.source.ID)
			if err != nil {
				return err
			}
			conn, err := r.dialer().Connect(d, r.source.Region)
			if err != nil {
				return err
			}
			at, n, err := rds.Beat(c.Context, conn, r.source.Login.Database, c.Bool("create"))
			if err != nil {
				return err
			}
			return a.outcome(rdsHeartbeatReport{r.source.Name, at, n}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "Heartbeat %d of %s at %s\n", n, r.source.Name, at.Format(time.RFC3339Nano))
			})
		},
	}
}

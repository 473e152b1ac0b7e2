package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// rdsStatusReport is the JSON document of one source.
type rdsStatusReport struct {
	Source     string            `json:"source"`
	Kind       rds.Kind          `json:"kind"`
	Identifier string            `json:"identifier"`
	Region     string            `json:"region"`
	State      string            `json:"state"` // of RDS; "missing" when it is not there, "unknown" when it could not be asked
	Error      string            `json:"error,omitempty"`
	Engine     string            `json:"engine,omitempty"`
	Class      string            `json:"class,omitempty"`
	MultiAZ    bool              `json:"multi_az"`
	Encrypted  bool              `json:"encrypted"`
	Public     bool              `json:"publicly_accessible"`
	Protected  bool              `json:"deletion_protection"`
	Restorable *time.Time        `json:"latest_restorable_time,omitempty"`
	Exposure   *float64          `json:"exposure_seconds,omitempty"` // now less the latest restorable time
	Regions    []rdsRegionReport `json:"regions"`
	Leftovers  []string          `json:"leftovers"`
	Warnings   []string          `json:"warnings"`
}

// rdsRegionReport is what lies in a region.
type rdsRegionReport struct {
	Region    string     `json:"region"`
	Snapshots int        `json:"snapshots"`
	Ours      int        `json:"ours"`
	Newest    string     `json:"newest,omitempty"`
	Taken     *time.Time `json:"taken,omitempty"`
	Age       *float64   `json:"age_seconds,omitempty"`
	Pending   string     `json:"pending,omitempty"`
	Error     string     `json:"error,omitempty"` // why not everything of this is known
}

func rdsStatus(a *app) *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "what there is of each source, and what would be lost now",
		Description: `
Asks RDS for state, snapshots, copies, latest restorable time and Multi-AZ, and
changes nothing. Exposure is what a restore to a point in time would
lose now: the time since LatestRestorableTime. That of a region that holds only
copies is the age of the newest one. All sources, or the one of --source.`,
		Flags: append(rdsFlags(), configFlags()...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c)
			if err != nil {
				return err
			}
			sources := cfg.RDS.Sources
			if name := c.String("source"); name != "" || len(sources) == 0 {
				one, err := rds.Find(sources, name)
				if err != nil {
					return err
				}
				sources = []rds.Source{one}
			}
			cloud, reports := a.newCloud(cfg), []rdsStatusReport{}
			var unanswered error // the first; the report has all
			for _, s := range sources {
				now := a.now()
				status, err := rds.Look(c.Context, cloud.RDS, s, now)
				if c.Context.Err() != nil {
					return context.Cause(c.Context)
				}
				if err != nil && unanswered == nil {
					unanswered = fmt.Errorf("source %s: not everything is known: %w", s.Name, firstOf(err))
				}
				reports = append(reports, newRDSStatus(status, now))
			}
			if err := a.result(reports, func(w io.Writer) {
				for i, r := range reports {
					if i > 0 {
						_, _ = fmt.Fprintln(w)
					}
					r.write(w)
				}
			}); err != nil {
				return err
			}
			if unanswered != nil {
				return unanswered
			}
			for _, r := range reports {
				if r.State == "missing" {
					return failed(exitFailed, "source %s: there is no %s %s in %s", r.Source, r.Kind, r.Identifier, r.Region).
						hinted("check identifier, region and account; \"lifeboat rds drill\" restores from the snapshots that are left")
				}
			}
			return nil
		},
	}
}

func newRDSStatus(s *rds.Status, now time.Time) rdsStatusReport {
	r := rdsStatusReport{Source: s.Source.Name, Kind: s.Source.Kind, Identifier: s.Source.ID, Region: s.Source.Region, State: "missing", Leftovers: append([]string{}, s.Leftovers...), Warnings: []string{}}
	if s.Err != nil {
		r.State, r.Error = "unknown", oneLine(s.Err.Error())
	}
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if d := s.Database; d != nil {
		r.State, r.Engine, r.Class, r.Encrypted, r.Public, r.Protected = d.Status, d.Engine+" "+d.EngineVersion, d.Class, d.Encrypted, d.Public, d.Protected
		r.MultiAZ = d.MultiAZ || len(d.Members) > 1
		if !d.Restorable.IsZero() {
			at, exposure := d.Restorable.UTC(), s.Exposure.Seconds()
			r.Restorable, r.Exposure = &at, &exposure
		} else {
			warn("no automated backups: no point in time can be restored")
		}
		if d.Public {
			warn("it is publicly accessible")
		}
		if !r.MultiAZ {
			warn("no standby: a failover is a restore")
		}
		if !d.Protected {
			warn("no deletion protection")
		}
	}
	for _, x := range s.Regions {
		y := rdsRegionReport{Region: x.Region, Snapshots: x.Count, Ours: x.Ours}
		if x.Err != nil {
			y.Error = oneLine(x.Err.Error())
		} else if x.Newest == nil {
			warn("no snapshot in %s", x.Region)
		}
		if x.Newest != nil {
			at := x.Newest.Taken().UTC()
			age := max(0, now.Sub(at).Seconds())
			y.Newest, y.Taken, y.Age = x.Newest.ID, &at, &age
		}
		if x.Pending != nil {
			y.Pending = x.Pending.ID
		}
		if x.Region != s.Source.Region && r.Encrypted && !x.Key {
			warn("no KMS key for %s: an encrypted snapshot cannot be copied there", x.Region)
		}
		r.Regions = append(r.Regions, y)
	}
	if len(s.Source.DR) == 0 {
		warn("no other region is configured: all copies are lost with %s", s.Source.Region)
	}
	return r
}

func (r rdsStatusReport) write(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	p("Source %s: %s %s in %s", r.Source, r.Kind, r.Identifier, r.Region)
	var facts []string
	for _, f := range []struct {
		is  bool
		yes string
	}{{r.MultiAZ, "Multi-AZ"}, {r.Encrypted, "encrypted"}, {r.Protected, "deletion protection"}} {
		if f.is {
			facts = append(facts, f.yes)
		}
	}
	if r.Error != "" {
		p("  state         unknown: %s", r.Error)
	} else {
		p("  state         %s", strings.Join(append([]string{r.State}, facts...), ", "))
	}
	if r.Engine != "" {
		p("  engine        %s %s", r.Engine, r.Class)
	}
	if r.Restorable != nil {
		p("  exposure      %s: restorable to %s", evidence.Seconds(*r.Exposure), r.Restorable.Format(time.RFC3339))
	} else if r.Error == "" {
		p("  exposure      unknown: RDS names no latest restorable time")
	}
	for _, x := range r.Regions {
		s := "no snapshot"
		if x.Newest != "" {
			s = fmt.Sprintf("%s, %d by Lifeboat; newest %s old: %s", countOf(x.Snapshots, "snapshot", "snapshots"), x.Ours, evidence.Seconds(*x.Age), x.Newest)
		}
		if x.Pending != "" {
			s += "; in the making: " + x.Pending
		}
		switch {
		case x.Error != "" && x.Newest != "":
			s += "; and unknown: " + x.Error
		case x.Error != "":
			s = "unknown: " + x.Error
		}
		p("  %-13s %s", x.Region, s)
	}
	for _, l := range r.Leftovers {
		p("  drill         %s is there", l)
	}
	for _, x := range r.Warnings {
		p("  warning       %s", x)
	}
}

// firstOf is the first of errors that were joined: one line says what failed.
func firstOf(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()[0]
	}
	return err
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

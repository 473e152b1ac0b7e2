package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
)

func leaseCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:        "lease",
		Usage:       "see who does what now, and end what nobody ends",
		Subcommands: []*cli.Command{a.leaseStatus(), a.leaseBreak()},
	}
}

// leaseReport is the JSON document of lease status.
type leaseReport struct {
	StoreTime string        `json:"store_time"` // by which ends are judged
	Leases    []leaseListed `json:"leases"`
	More      bool          `json:"more,omitempty"` // names beyond the first hundred
}

type leaseListed struct {
	Name    string `json:"name"`
	Held    bool   `json:"held"`
	Holder  string `json:"holder,omitempty"`
	Since   string `json:"since,omitempty"`   // by the holder's clock
	Renewed string `json:"renewed,omitempty"` // by the store's
	Ends    string `json:"ends,omitempty"`    // by the store's, unless it is renewed
	Signed  bool   `json:"signed"`
	Objects int    `json:"objects"`
	Junk    int    `json:"junk"`
}

func (a *app) leaseStatus() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "list the leases, who holds them and until when",
		Description: `
A lease keeps two backups, or two expiries, from running at once. Its end counts
by the store's clock, four minutes after its holder has last renewed it. To know
that clock an object is stored under leases/ and removed. A lease that no key
signed that is believed was taken by a host without a cluster key, or by whoever
can write to the repository: a host with the cluster key waits for it four
minutes at most. Objects that are no leases are counted as junk: they hold
nothing.`,
		Flags: configFlags("repository", "cluster_key", "identity", "signer"),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			r, err := openRepo(c.Context, cfg)
			if err != nil {
				return err
			}
			now, err := r.StoreTime(c.Context, repo.BackupLease)
			if err != nil {
				return err
			}
			views, more, err := r.Leases(c.Context, now)
			if err != nil {
				return err
			}
			report := &leaseReport{StoreTime: now.UTC().Format(timeForm), Leases: []leaseListed{}, More: more}
			for _, v := range views {
				report.take(v)
			}
			return a.result(report, report.write)
		},
	}
}

func (r *leaseReport) take(v repo.LeaseView) {
	l := leaseListed{Name: v.Name, Held: v.Held, Holder: v.Holder, Signed: v.Signed, Objects: v.Objects, Junk: v.Junk}
	if v.Holder != "" {
		l.Since, l.Renewed, l.Ends = v.Since.UTC().Format(timeForm), v.Renewed.UTC().Format(timeForm), v.Ends.UTC().Format(timeForm)
	}
	r.Leases = append(r.Leases, l)
}

func (r *leaseReport) write(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	p("By the store's clock it is %s", r.StoreTime)
	for _, l := range r.Leases {
		line := "free  "
		if l.Held {
			line = "held  "
		}
		line += l.Name
		if l.Holder != "" {
			line += "  " + l.Holder + " since " + l.Since
		}
		if l.Held {
			line += ", ends " + l.Ends + " unless it is renewed"
		}
		if l.Holder != "" && !l.Signed {
			line += "  (not signed by a key that is believed)"
		}
		if l.Junk > 0 {
			line += fmt.Sprintf("  (%d objects are junk and hold nothing)", l.Junk)
		}
		p("%s", line)
	}
	if r.More {
		p("there are more names than these")
	}
}

// brokenReport is the JSON document of lease break.
type brokenReport struct {
	Name    string `json:"name"`
	Removed int    `json:"removed"` // objects
}

func (a *app) leaseBreak() *cli.Command {
	return &cli.Command{
		Name:      "break",
		Usage:     "end a lease, whoever holds it",
		ArgsUsage: "NAME",
		Description: `
Rarely needed: a lease whose holder has died ends by itself within four minutes.
If its holder lives, it is told at its next renewal, within 45 seconds, and
stops: a backup that was running fails. Until then two may be at work at once.
Also removes what else lies under the name of the lease, which takes the right to
delete. See "lifeboat lease status" first.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "yes", Usage: "break it: what its holder is doing is lost"},
		}, configFlags("repository", "cluster_key", "identity", "signer")...),
		Action: func(c *cli.Context) error {
			names, err := operands(c, "NAME")
			if err != nil {
				return err
			}
			if !c.Bool("yes") {
				return usage("breaking the lease %s stops whoever holds it", strings.TrimSpace(names[0])).
					hinted("see who that is with \"lifeboat lease status\"; --yes breaks it all the same")
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			r, err := openRepo(c.Context, cfg)
			if err != nil {
				return err
			}
			n, err := r.BreakLease(c.Context, names[0], claim("lease break"), a.now())
			if err != nil {
				return err
			}
			report := brokenReport{names[0], n}
			return a.outcome(report, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "The lease %s is free; %d objects were removed\n", report.Name, report.Removed)
			})
		},
	}
}

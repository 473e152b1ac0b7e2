package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// rdsPolicyReport is the JSON document of policy, one for each role.
type rdsPolicyReport struct {
	Role   string     `json:"role"`
	For    string     `json:"for"`
	Policy rds.Policy `json:"policy"`
}

func rdsPolicy(a *app) *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "print the least-privilege IAM policies for these sources",
		Description: `
Prints an IAM policy for each of three roles, for the configured sources and no
others: snapshots (the timer), drills (the drill host), failover (on-call people).
Only the last can interrupt production, and none can delete it. They were written
after Amazon's service authorization reference and not tried on an account; look
at them with IAM Access Analyzer.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "account", Usage: "`NUMBER` of the AWS account; any, if it is left out", Value: "*"},
			&cli.StringFlag{Name: "role", Usage: "print that of one `ROLE` alone: snapshots, drills or failover"},
		}, configFlags()...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c)
			if err != nil {
				return err
			}
			if len(cfg.RDS.Sources) == 0 {
				return rds.ErrNoSources
			}
			reports := []rdsPolicyReport{}
			for _, p := range rds.Policies(cfg.RDS.Sources, c.String("account")) {
				if role := c.String("role"); role == "" || role == p.Role {
					reports = append(reports, rdsPolicyReport{p.Role, p.Why, p})
				}
			}
			if len(reports) == 0 {
				return usage("--role: %q is none of snapshots, drills, failover", c.String("role"))
			}
			return a.result(reports, func(w io.Writer) {
				for i, r := range reports {
					if len(reports) > 1 {
						if i > 0 {
							_, _ = fmt.Fprintln(w)
						}
						_, _ = fmt.Fprintf(w, "# Role %s: %s\n", r.Role, r.For)
					}
					_, _ = fmt.Fprintf(w, "%s\n", r.Policy.JSON())
				}
			})
		},
	}
}

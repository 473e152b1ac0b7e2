package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lifeboat-dr/lifeboat/rds"
)

func rdsFailover(a *app) *cli.Command {
	return &cli.Command{
		Name:  "failover",
		Usage: "fail a Multi-AZ database over, and measure how long no write succeeds",
		Description: `
Shows what will happen and what it interrupts, and does it when the name of the
source is given: by --confirm, or typed when asked on a terminal. An instance is
rebooted with failover, an Aurora cluster failed over. Meanwhile a write is tried
every 200 ms, through DNS and on a new connection; the writes are messages in the
WAL and touch no table. It waits until another zone, or of Aurora another
instance, has taken over and writes succeed, and stores the downtime as signed
evidence. rto: is the objective.`,
		Flags: append(rdsFlags(
			&cli.StringFlag{Name: "confirm", Usage: "`NAME` of the source: yes, do it"},
		), configFlags("repository", "rds.resolver")...),
		Action: func(c *cli.Context) error {
			r, err := a.newRDS(c, "repository")
			if err != nil {
				return err
			}
			return r.failover(c.Context, c.String("confirm"), c.IsSet("confirm"))
		},
	}
}

func (r *rdsRun) failover(ctx context.Context, confirm string, given bool) error {
	if given && confirm != r.source.Name {
		return usage("--confirm %s is not the name of the source, %s", confirm, r.source.Name).hinted("nothing was done")
	}
	o := rds.FailoverOptions{Source: r.source, Connect: r.dialer().Connect, Lookup: r.lookup(), Waiting: r.waiting(), Program: "lifeboat " + version, By: performer(), Now: r.now}
	plan, err := rds.PlanFailover(ctx, r.cloud.RDS, o)
	if err != nil {
		return err
	}
	r.writePlan(plan)
	if !given {
		if err := r.askName(ctx); err != nil {
			return err
		}
	}
	repository, key, release, held, err := r.openForEvidence(ctx)
	if err != nil {
		return r.byHand(err)
	}
	defer release()
	o.Key = key
	r.progress = r.newProgress("failing over")
	defer r.progress.close()
	result, err := rds.Failover(held, r.cloud.RDS, repository, o, plan)
	r.progress.close()
	if err != nil {
		return r.tellUnstored(result.Document, err)
	}
	return r.tell(ctx, result.Document, result.Err, nil, "failover")
}

// byHand is for the night when the evidence cannot be stored: nothing was done, and
// how it is done without us.
func (r *rdsRun) byHand(err error) error {
	code, _ := classify(err)
	command := "aws rds reboot-db-instance --force-failover --db-instance-identifier "
	if r.source.Kind == rds.Cluster {
		command = "aws rds failover-db-cluster --db-cluster-identifier "
	}
	return failed(code, "nothing was failed over, since the evidence cannot be stored: %w", err).
		hinted("if it cannot wait: %s%s --region %s", command, r.source.ID, r.source.Region)
}

// writePlan goes to stderr: the result is the report.
func (r *rdsRun) writePlan(p *rds.FailoverPlan) {
	target := p.Target
	if target == "" {
		target = "another zone, which RDS does not name"
	}
	r.line(fmt.Sprintf("Failover of %s: %s", r.source.Name, r.source))
	r.line(fmt.Sprintf("  from        %s", p.Zone))
	r.line(fmt.Sprintf("  to          %s", target))
	if p.SameZone {
		r.line("  warning     that is in the same zone: whether the loss of a zone is survived is not tried")
	}
	if p.Sessions < 0 {
		r.line(fmt.Sprintf("  interrupts  an unknown number of sessions: role %s may not see them without pg_monitor", r.source.Login.Role))
	} else {
		r.line(fmt.Sprintf("  interrupts  %d sessions, %d of them in a transaction that has written: it is rolled back", p.Sessions, p.Writing))
	}
	r.line("  meanwhile   no write succeeds; Amazon names 60 to 120 s for an instance")
}

// askName asks for the name on a terminal.
func (r *rdsRun) askName(ctx context.Context) error {
	again := usage("nothing was done: --confirm %s is missing", r.source.Name).hinted("the plan is above; the same command with --confirm %s does it", r.source.Name)
	if !term.IsTerminal(int(os.Stdin.Fd())) || !r.terminal {
		return again
	}
	_, _ = io.WriteString(r.stderr, "Type the name of the source to do it: ")
	typed := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		typed <- strings.TrimSpace(text)
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case text := <-typed:
		if text != r.source.Name {
			return failed(exitFailed, "that is not %s: nothing was done", r.source.Name).hinted("the name of the source, as in the configuration")
		}
	}
	return nil
}

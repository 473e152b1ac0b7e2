package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

func reportCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "report",
		Usage: "show past drills: RPO and RTO achieved, what is proven and what is not",
		Description: `
Reads the evidence of drills from the repository. Only documents that are
signed by a trusted key count: drill.trust, or this host's own drill key. No
identity is needed.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "leave out drills that are older than `TIME`, such as 90d", Value: "90d"},
			&cli.StringFlag{Name: "html", Usage: "write the report as one page to `FILE`"},
			&cli.StringFlag{Name: "prometheus", Usage: "write metrics for node_exporter's textfile collector to `FILE` (*.prom)"},
			&cli.BoolFlag{Name: "csv", Usage: "print one line of comma-separated values a drill"},
		}, configFlags("repository", "signer", "drill.trust", "drill.key")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			since, err := parseDuration(c.String("since"))
			if err != nil {
				return usage("--since: %w", err)
			}
			o, err := a.newOutputs(c)
			if err != nil {
				return err
			}
			return a.report(c.Context, cfg, since, o, c.Bool("csv"))
		},
	}
}

func (a *app) report(ctx context.Context, cfg *Config, since time.Duration, o outputs, csv bool) error {
	r, err := openRepo(ctx, cfg)
	if err != nil {
		return err
	}
	trusted, err := cfg.trustedHosts(r.Marker().Cluster)
	if err != nil {
		return err
	}
	from := time.Time{}
	if since > 0 {
		from = a.now().Add(-since)
	}
	h, err := a.history(ctx, r, trusted, from)
	if err != nil {
		return err
	}
	gone, err := a.lookBack(ctx, cfg, r, drillsSeen(h))
	if err != nil {
		return err
	}
	if !h.Trusted {
		a.warn("no key is trusted here, so the signatures prove nothing: set drill.trust to the public keys of the drill hosts")
	}
	for path, write := range map[string]func(io.Writer) error{
		o.html:       func(w io.Writer) error { return h.HTML(w, nil) },
		o.prometheus: h.Prometheus,
	} {
		if path == "" {
			continue
		}
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		if err := report.WriteFile(path, b.Bytes()); err != nil {
			return err
		}
	}
	if csv {
		err = h.CSV(a.stdout)
	} else {
		err = a.result(h.Summary(), func(w io.Writer) { _ = h.Text(w, a.painter()) })
	}
	if err != nil {
		return err
	}
	return goneError(gone)
}

// history reads the evidence of the repository.
func (a *app) history(ctx context.Context, r *repo.Repo, trusted []repo.PublicKey, since time.Time) (*report.History, error) {
	entries, err := evidence.History(ctx, r.Store(), r.Marker().Repository, since, trusted)
	if err != nil {
		return nil, err
	}
	return report.NewHistory(r.Marker().Cluster, entries, trusted, since, a.now()), nil
}

// trustedHosts are the keys whose evidence counts: those that are configured
// and, if it has one, this host's own.
func (c *Config) trustedHosts(cluster string) ([]repo.PublicKey, error) {
	var out []repo.PublicKey
	for _, s := range c.Drill.Trust {
		k, err := repo.ParsePublicKey(s)
		if err != nil {
			return nil, usage("drill.trust: %v", err)
		}
		out = append(out, k)
	}
	path := c.drillKeyPath(cluster)
	if !fileExists(path) {
		return out, nil
	}
	f, err := readKeyFile(path, "drill.key")
	if err != nil {
		return nil, fmt.Errorf("this host's drill key: %w", err)
	}
	if f.Signing != nil {
		out = append(out, f.Signing.Public())
	}
	return out, nil
}

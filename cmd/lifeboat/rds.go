package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
)

func rdsCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "rds",
		Usage: "databases on Amazon RDS and Aurora: snapshots, drills, failover",
		Subcommands: []*cli.Command{rdsStatus(a), rdsSnapshot(a), rdsDrill(a), rdsExpire(a), rdsFailover(a),
			rdsHeartbeat(a), rdsPolicy(a)},
	}
}

// rdsFlags are those that all commands of RDS take.
func rdsFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "source", Usage: "`NAME` of the source in the configuration; needed when there are several"},
	}, more...)
}

// rdsRun is one run of a command about one source.
type rdsRun struct {
	*app
	cfg      *Config
	source   rds.Source
	cloud    *aws.Cloud
	progress *progress
}

func (a *app) newRDS(c *cli.Context, required ...string) (*rdsRun, error) {
	if _, err := operands(c); err != nil {
		return nil, err
	}
	cfg, err := a.config(c, required...)
	if err != nil {
		return nil, err
	}
	s, err := rds.Find(cfg.RDS.Sources, c.String("source"))
	if err != nil {
		return nil, err
	}
	return &rdsRun{app: a, cfg: cfg, source: s, cloud: a.newCloud(cfg)}, nil
}

// newCloud is Amazon. Where RDS is asked often, as in tests, pauses between tries
// are short as well.
func (a *app) newCloud(cfg *Config) *aws.Cloud {
	return aws.New(aws.Options{Endpoint: cfg.RDS.Endpoint, MostBackoff: min(20*time.Second, 2*cfg.RDS.Poll), Now: a.now})
}

func (r *rdsRun) dialer() *aws.Dialer {
	return &aws.Dialer{Cloud: r.cloud, Login: r.source.Login, Getenv: r.getenv, Env: r.environ, Resolver: r.cfg.RDS.Resolver, Now: r.now}
}

// lookup asks the configured name server; nil is the system's.
func (r *rdsRun) lookup() func(ctx context.Context, host string) ([]string, error) {
	if r.cfg.RDS.Resolver == "" {
		return nil
	}
	return aws.Resolver(r.cfg.RDS.Resolver)
}

// waiting shows what is waited for.
func (r *rdsRun) waiting() rds.Waiting {
	return rds.Waiting{Poll: r.cfg.RDS.Poll, Limit: r.cfg.RDS.Timeout, Now: r.now, Observe: func(p rds.Progress) {
		if r.progress == nil {
			return
		}
		text := p.What + " is " + p.State
		if p.Percent >= 0 {
			text += fmt.Sprintf(", %d%%", p.Percent)
		}
		r.progress.setPhase(text)
	}}
}

// regions are those of the names given, all of the source's by default.
func (r *rdsRun) regions(names []string, key string) ([]rds.Region, error) {
	var out []rds.Region
	for _, name := range names {
		region, err := r.source.In(name)
		if err != nil && key == "" {
			return nil, err
		}
		if err != nil {
			region = rds.Region{Name: name}
			r.warn("copies in %s are never expired, and no drill restores them: %s is not below dr: of source %s", name, name, r.source.Name)
		}
		if region.Name == r.source.Region {
			return nil, usage("--copy-to: %s is the source's own region", name).hinted("a copy there would be lost with it; name another region")
		}
		if key != "" {
			region.KMSKey = key
		}
		out = append(out, region)
	}
	return out, nil
}

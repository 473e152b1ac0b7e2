package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/copier"
	"github.com/lifeboat-dr/lifeboat/repo"
)

func copyCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:      "copy",
		Usage:     "bring a backup and its WAL to another place",
		ArgsUsage: "[LABEL]",
		Description: `
Copies the backup LABEL, else the newest, with the WAL that it needs to become
consistent, to --to: a URL or one of repositories: in the configuration. An
empty place becomes another place of the same repository; one that holds
another repository is refused. Objects go as they are, each verified on the
way: no data is opened, and the copy opens with the keys that the original
opens with. What the backup consists of is metadata, so it takes the cluster
key or an identity; any host that has one and can reach both places will do.

The manifest goes last: a copy that was broken off is no backup, and running
it again goes on where it ended.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "where to: `URL`, with what it needs as parameters, or the name of one of repositories:"},
			&cli.BoolFlag{Name: "all-wal", Usage: "copy also all WAL that comes after the backup, up to now"},
		}, configFlags("repository", "cluster_key", "identity", "signer", "jobs")...),
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return usage("copy: unexpected %q", c.Args().Get(1))
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			dest, err := a.copyDest(cfg, c.String("to"))
			if err != nil {
				return err
			}
			o := copier.Options{Label: c.Args().First(), Through: c.Bool("all-wal")}
			if o.Label != "" {
				if err := repo.CheckLabel(o.Label); err != nil {
					return usage("%v", err).hinted("\"lifeboat backups\" lists them")
				}
			}
			return a.copyBackup(c.Context, cfg, dest, o)
		},
	}
}

// copyDest is the configuration of where to copy to.
func (a *app) copyDest(cfg *Config, to string) (*Config, error) {
	if to == "" {
		return nil, usage("--to is missing: where to copy to").hinted("--to s3://bucket/prefix, file:///path, or the name of one of repositories:")
	}
	var dest *Config
	if i := slices.IndexFunc(cfg.listed, func(c *Config) bool { return c.Name == to }); i >= 0 {
		dest = cfg.listed[i]
	} else {
		k := keys()[slices.IndexFunc(keys(), func(k *key) bool { return k.name == "repository" })]
		dir, err := a.getwd()
		if err != nil {
			return nil, fmt.Errorf("find the current directory: %w", err)
		}
		var defaults []setting
		for _, s := range defaultSettings() {
			if placed(s.key) {
				defaults = append(defaults, s)
			}
		}
		if dest, err = assemble("", append(defaults, setting{k, []string{to}, origin{kind: originFlag, name: "to"}, dir})); err != nil {
			return nil, err
		}
	}
	if dest.samePlace(cfg) {
		return nil, usage("--to %s is where the backup is", to).hinted("--repository says where to copy from")
	}
	return dest, nil
}

// copyReport is the JSON document of a copy.
type copyReport struct {
	Label    string  `json:"label"`
	From     string  `json:"from"`
	To       string  `json:"to"`
	Objects  int64   `json:"objects"`
	Existed  int64   `json:"existed"` // of these, there already
	Bytes    int64   `json:"bytes"`   // written
	Packs    int64   `json:"packs"`
	Segments int64   `json:"wal_segments"`
	First    string  `json:"first_segment"`
	Last     string  `json:"last_segment"`
	AllWAL   bool    `json:"all_wal"`
	Others   bool    `json:"other_recipients"` // not all recipients of now can open it
	Seconds  float64 `json:"seconds"`
}

func (a *app) copyBackup(ctx context.Context, cfg, dest *Config, o copier.Options) error {
	debug.SetGCPercent(25) // as for a backup: nearly all memory is buffers
	began := a.now()
	from, err := openRepo(ctx, cfg)
	if err != nil {
		return err
	}
	store, err := createStore(ctx, dest)
	if err != nil {
		return err
	}
	to, err := from.OpenCopy(ctx, store)
	if foreign, ok := errors.AsType[*repo.ForeignError](err); ok {
		return failed(exitFailed, "%s holds another repository: %w", dest.Repository, foreign).
			hinted("copy into an empty place, or into a place that copy or init with this cluster key has made")
	}
	if err != nil {
		return err
	}
	p := a.newProgress("copying")
	defer p.close()
	o.Jobs, o.Now = workers(cfg.Jobs), a.now
	o.Claim = repo.Claim{Holder: hostName() + " (copy)", Process: processName(), Gone: processGone}
	o.Observe = func(e copier.Progress) { p.update(e.Done, e.Total) }
	o.Warn = func(err error) { a.warn("%v", err) }
	r, err := copier.Run(ctx, from, to, o)
	if err != nil {
		return err
	}
	report := copyReport{Label: r.Info.Label, From: cfg.Repository, To: dest.Repository, Objects: r.Objects, Existed: r.Existed, Bytes: r.Bytes,
		Packs: r.Packs, Segments: r.Segments, First: r.First, Last: r.Last, AllWAL: o.Through, Others: othersOpen(r.Info.Recipients, from.RecipientIDs()), Seconds: a.now().Sub(began).Seconds()}
	return a.outcome(report, func(w io.Writer) { report.write(w) })
}

// othersOpen says whether one of the recipients of now is none of those that the
// backup is sealed to, as far as both are known.
func othersOpen(backup, now []string) bool {
	return len(backup) > 0 && slices.ContainsFunc(now, func(r string) bool { return !slices.Contains(backup, r) })
}

func (r copyReport) write(w io.Writer) {
	segments := "the WAL segment " + r.First
	if r.Segments != 1 {
		segments = fmt.Sprintf("%d WAL segments (%s to %s)", r.Segments, r.First, r.Last)
	}
	_, _ = fmt.Fprintf(w, "backup %s is in %s: %d packs and %s; %d objects, %s, in %s",
		r.Label, r.To, r.Packs, segments, r.Objects-r.Existed, sizeText(r.Bytes), span(time.Duration(r.Seconds*float64(time.Second))))
	if r.Existed > 0 {
		_, _ = fmt.Fprintf(w, ", and %d that were there", r.Existed)
	}
	_, _ = fmt.Fprintln(w)
	_, _ = fmt.Fprintln(w, "it opens with the keys that the original opens with")
	if r.Others {
		_, _ = fmt.Fprintln(w, "the recipients in the configuration are others: not all of them can open it, only a new backup is sealed to them")
	}
	if !r.AllWAL {
		_, _ = fmt.Fprintln(w, "it can be restored up to its end; --all-wal brings what came after")
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
)

func keyCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:        "key",
		Usage:       "see and change who can open and who signs",
		Subcommands: []*cli.Command{a.keyStatus(), a.keyRotate()},
	}
}

// keyReport is the JSON document of key status.
type keyReport struct {
	ClusterKey   string          `json:"cluster_key,omitempty"` // the signer of this host
	Recipients   []string        `json:"recipients"`            // of what is stored from now on
	Repositories []keyRepository `json:"repositories"`
}

// keyRepository is who is believed in one repository.
type keyRepository struct {
	Name       string      `json:"name,omitempty"`
	Repository string      `json:"repository"`
	Signers    []keySigner `json:"signers"`
	Ignored    []keySaid   `json:"ignored,omitempty"` // statements that count for nothing
	Error      string      `json:"error,omitempty"`
}

type keySigner struct {
	Key     string        `json:"key"`
	ID      string        `json:"id"` // as header lines have it
	Known   bool          `json:"known"`
	State   string        `json:"state"`             // trusted or retired
	Added   string        `json:"added,omitempty"`   // when
	Retired string        `json:"retired,omitempty"` // when
	WAL     []repo.WALCut `json:"wal,omitempty"`     // up to where a retired one is believed
}

// keySaid is a statement that is not believed.
type keySaid struct {
	Number int    `json:"number"`
	Signer string `json:"signer"`
}

func (a *app) keyStatus() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show who signs, who is believed, and to whom is sealed",
		Description: `
Shows for each repository the signers that are believed, and up to where a
retired one is; and the recipients of what is stored from now on. A signer that
nobody here has added is a reason to worry: docs/keys.md.`,
		Flags: configFlags("repository", "cluster_key", "identity", "signer", "recipients"),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			report, failures, err := a.whoSigns(c.Context, cfg)
			if err != nil {
				return err
			}
			if err := a.result(report, report.write); err != nil {
				return err
			}
			if !cfg.several() && len(failures) > 0 {
				return failures[0].err
			}
			return failedPlaces("status:", len(cfg.each()), failures)
		},
	}
}

func (a *app) whoSigns(ctx context.Context, cfg *Config) (*keyReport, []placeFailure, error) {
	keys, err := loadKeys(cfg)
	if err != nil {
		return nil, nil, err
	}
	report := &keyReport{Recipients: cfg.Recipients, Repositories: []keyRepository{}}
	if keys.Cluster != nil {
		report.ClusterKey = keys.Cluster.Signing.Public().String()
	}
	var failures []placeFailure
	for _, one := range cfg.each() {
		k := keyRepository{Name: one.Name, Repository: one.Repository, Signers: []keySigner{}}
		r, err := openOne(ctx, one)
		if err != nil {
			k.Error = oneLine(err.Error())
			failures = append(failures, placeFailure{one.where(), err})
		} else {
			k.take(r)
		}
		report.Repositories = append(report.Repositories, k)
	}
	return report, failures, nil
}

func (k *keyRepository) take(r *repo.Repo) {
	signers, ignored := r.Signers()
	for _, s := range signers {
		one := keySigner{Key: s.Key.String(), ID: s.Key.ID(), Known: s.Anchor, State: "trusted"}
		if !s.Since.IsZero() {
			one.Added = s.Since.Format(timeForm)
		}
		if s.Retired != nil {
			one.State, one.WAL = "retired", s.Retired.WAL
			one.Retired = s.Until.Format(timeForm)
		}
		k.Signers = append(k.Signers, one)
	}
	for _, s := range ignored {
		k.Ignored = append(k.Ignored, keySaid{s.Number, s.Signer})
	}
}

func (r *keyReport) write(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if r.ClusterKey != "" {
		p("This host signs with %s", r.ClusterKey)
	}
	p("What is stored from now on is sealed to %d recipients", len(r.Recipients))
	for _, s := range r.Recipients {
		p("  %s", shorten(s))
	}
	for _, k := range r.Repositories {
		p("\nRepository %s", strings.TrimSpace(k.Name+" "+k.Repository))
		if k.Error != "" {
			p("  unknown: %s", k.Error)
		}
		for _, s := range k.Signers {
			line := "  " + s.State + "  " + s.Key
			if s.Added != "" {
				line += "  added " + s.Added
			}
			if s.Retired != "" {
				line += "  retired " + s.Retired
			}
			if !s.Known {
				line += "  (known by the repository alone)"
			}
			p("%s", line)
			for _, c := range s.WAL {
				p("             for WAL of system %s, timeline %s up to %s", c.System, c.Timeline, orHistory(c.Last))
			}
		}
		for _, s := range k.Ignored {
			p("  not believed: statement %d by %s", s.Number, s.Signer)
		}
	}
}

func orHistory(last string) string {
	if last == "" {
		return "its history file"
	}
	return last
}

func (a *app) keyRotate() *cli.Command {
	return &cli.Command{
		Name:  "rotate",
		Usage: "add or retire a recipient or the cluster key",
		Description: `
One step at a time, on a database host. What it changes counts at once for what
is stored from then on; what is stored already is another matter, and
docs/keys.md says exactly what a retired key still opens and signs.

  --add-recipient, --retire-recipient change recipients: in the configuration.
  --new-cluster-key makes a new cluster key and has the old one vouch for it.
    Copy the file to the cluster's other hosts, restart "wal stream" there, wait
    until the server has archived a segment, and only then
  --retire-cluster-key seals all metadata again, and has the old key believed for
    nothing but the WAL that it has signed up to then.
  --reseal seals all metadata again: to the recipients of now. It takes the right
    to delete. Packs and WAL stay sealed as they are until they expire.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "add-recipient", Usage: "seal what comes to `AGE` as well"},
			&cli.StringFlag{Name: "retire-recipient", Usage: "seal nothing more to `AGE`"},
			&cli.BoolFlag{Name: "new-cluster-key", Usage: "make a new cluster key, trusted beside the old one"},
			&cli.BoolFlag{Name: "retire-cluster-key", Usage: "retire the cluster keys before this host's"},
			&cli.BoolFlag{Name: "reseal", Usage: "seal metadata again; alone or after a change of recipients"},
		}, configFlags("repository", "cluster_key", "recipients")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			rotation, err := a.newRotation(c)
			if err != nil {
				return err
			}
			if err := rotation.run(c.Context); err != nil {
				return err
			}
			return a.outcome(rotation.report, rotation.report.write)
		},
	}
}

// rotateReport is the JSON document of key rotate.
type rotateReport struct {
	Done       string   `json:"done"`                  // which step
	ClusterKey string   `json:"cluster_key,omitempty"` // the signer of this host, after a step with cluster keys
	Retired    []string `json:"retired,omitempty"`     // signers or recipients
	Recipients []string `json:"recipients"`            // of what is stored from now on
	Resealed   int      `json:"resealed"`              // metadata objects
	Config     string   `json:"config,omitempty"`      // the file that was changed
	Next       []string `json:"next"`                  // what is left to do, in words
}

func (r *rotateReport) write(w io.Writer) {
	_, _ = fmt.Fprintln(w, r.Done)
	if r.Resealed > 0 {
		_, _ = fmt.Fprintf(w, "%d metadata objects were sealed again\n", r.Resealed)
	}
	for i, s := range r.Next {
		if i == 0 {
			_, _ = fmt.Fprintln(w, "\nNext:")
		}
		for j, line := range fold(s, 76) {
			mark := "  "
			if j == 0 {
				mark = "- "
			}
			_, _ = fmt.Fprintln(w, mark+line)
		}
	}
}

// rotation is one run of key rotate.
type rotation struct {
	*app
	cfg    *Config
	add    string
	retire string
	step   string // name of the flag, "" for --reseal alone
	reseal bool
	report *rotateReport
}

func (a *app) newRotation(c *cli.Context) (*rotation, error) {
	r := &rotation{app: a, add: strings.TrimSpace(c.String("add-recipient")), retire: strings.TrimSpace(c.String("retire-recipient")), reseal: c.Bool("reseal"), report: &rotateReport{Next: []string{}}}
	for _, name := range []string{"add-recipient", "retire-recipient", "new-cluster-key", "retire-cluster-key"} {
		if !c.IsSet(name) || c.String(name) == "false" {
			continue
		}
		if r.step != "" {
			return nil, usage("--%s and --%s: one step at a time", r.step, name).hinted("each changes what the next one rests on")
		}
		r.step = name
	}
	if r.step == "" && !r.reseal {
		return nil, usage("nothing to do").hinted("name a step: --add-recipient, --retire-recipient, --new-cluster-key, --retire-cluster-key or --reseal")
	}
	if strings.HasSuffix(r.step, "cluster-key") && r.reseal {
		return nil, usage("--reseal does not go with --%s", r.step).hinted("--retire-cluster-key seals metadata again by itself")
	}
	for _, v := range []string{r.add, r.retire} {
		if v == "" {
			continue
		}
		if err := checkRecipient(v); err != nil {
			return nil, usage("--%s: %w", r.step, err)
		}
	}
	var err error
	r.cfg, err = a.config(c, "repository", "cluster_key", "recipients")
	if err == nil && r.cfg.Chosen && r.step != "" {
		err = usage("--repository: keys are those of all repositories").hinted("leave it out")
	}
	return r, err
}

func (r *rotation) run(ctx context.Context) (err error) {
	switch r.step {
	case "add-recipient", "retire-recipient":
		err = r.changeRecipients()
	case "new-cluster-key":
		err = r.newClusterKey(ctx)
	case "retire-cluster-key":
		err = r.retireClusterKeys(ctx)
	default:
		r.report.Done = "The metadata of all repositories is sealed to the recipients of now"
	}
	if err == nil && r.reseal {
		err = r.inEach(ctx, func(ctx context.Context, one *Config, repository *repo.Repo) error {
			return r.resealAll(ctx, repository, nil)
		})
	}
	r.report.Recipients = r.cfg.Recipients
	return err
}

// inEach does something in each repository; one that fails does not stop the others.
func (r *rotation) inEach(ctx context.Context, do func(context.Context, *Config, *repo.Repo) error) error {
	var failures []placeFailure
	for _, one := range r.cfg.each() {
		one.Recipients = r.cfg.Recipients
		repository, err := openOne(ctx, one)
		if err == nil {
			err = do(ctx, one, repository)
		}
		if err != nil && !r.cfg.several() {
			return err
		}
		if err != nil {
			failures = append(failures, placeFailure{one.Name, err})
		}
	}
	return failedPlaces("rotate:", len(r.cfg.each()), failures)
}

// resealAll seals metadata and pins again, and then retires the keys, if any.
func (r *rotation) resealAll(ctx context.Context, repository *repo.Repo, retire []repo.PublicKey) error {
	p := r.newProgress("sealing metadata again")
	defer p.close()
	n, err := repository.ResealAll(ctx, repo.ResealOptions{Retire: retire, Claim: claim("key rotate"), Now: r.now, Warn: r.warnLease})
	r.report.Resealed += n
	return err
}

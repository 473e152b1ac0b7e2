package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

func (a *app) backupPin() *cli.Command {
	return &cli.Command{
		Name:      "pin",
		Usage:     "keep a backup whatever the policy says",
		ArgsUsage: "LABEL",
		Description: `
Keeps the backup, and the WAL from its start to its stop, until the date or until
it is unpinned. Pinning again replaces the pin. Needs the cluster key, which signs
the pin. Exits with 75 while "lifeboat expire" is at work.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "until", Usage: "end of the pin, `DATE` such as 2027-01-31 (00:00 UTC) or a time such as 2027-01-31T12:00:00Z; without it the pin has no end"},
			&cli.StringFlag{Name: "reason", Usage: "why it is kept, `TEXT` for those who come after you"},
		}, configFlags("repository", "cluster_key", "recipients")...),
		Action: func(c *cli.Context) error {
			names, err := operands(c, "LABEL")
			if err != nil {
				return err
			}
			p := repo.Pin{Label: names[0], Reason: strings.TrimSpace(c.String("reason"))}
			if p.Until, err = a.pinEnd(c.String("until")); err != nil {
				return err
			}
			if len(p.Reason) > repo.MaxPinReason {
				return usage("--reason: it has %d bytes, at most %d are allowed", len(p.Reason), repo.MaxPinReason)
			}
			return a.setPin(c, p)
		},
	}
}

func (a *app) backupUnpin() *cli.Command {
	return &cli.Command{
		Name:      "unpin",
		Usage:     "take the pin off a backup",
		ArgsUsage: "LABEL",
		Description: `
The policy decides about the backup again. Removes nothing by itself.`,
		Flags: configFlags("repository", "cluster_key", "recipients"),
		Action: func(c *cli.Context) error {
			names, err := operands(c, "LABEL")
			if err != nil {
				return err
			}
			return a.setPin(c, repo.Pin{Label: names[0], Off: true})
		},
	}
}

// pinEnd reads --until.
func (a *app) pinEnd(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		t, err := time.Parse(form, text)
		if err != nil {
			continue
		}
		if !t.After(a.now()) {
			return t, usage("--until: %s is over already", text)
		}
		return t.UTC(), nil
	}
	return time.Time{}, usage("--until: %q is neither a date such as 2027-01-31 nor a time such as 2027-01-31T12:00:00Z", text)
}

// setPin stores the pin under the lease of expire, so that the backup is not
// removed while it is pinned.
func (a *app) setPin(c *cli.Context, p repo.Pin) error {
	if err := repo.CheckLabel(p.Label); err != nil {
		return usage("%w", err).hinted("\"lifeboat backups\" lists them")
	}
	cfg, err := a.config(c, "repository", "cluster_key", "recipients")
	if err != nil {
		return err
	}
	r, err := openRepo(c.Context, cfg)
	if err != nil {
		return err
	}
	ctx, release, err := r.HoldLease(c.Context, expire.LeaseName, claim("pin"), a.now, a.warnLease)
	if err != nil {
		return err
	}
	defer release()
	there, err := r.Exists(ctx, p.Label)
	if err != nil {
		return err
	}
	if !there {
		return failed(exitFailed, "there is no backup %s", p.Label).hinted("\"lifeboat backups\" lists them")
	}
	if p.Off {
		if err := pinned(ctx, r, p.Label); err != nil {
			return err
		}
	}
	p.By, p.Made = hostName(), a.now().UTC().Truncate(time.Second)
	if err := r.SetPin(ctx, p); err != nil {
		return fmt.Errorf("pin backup %s: %w", p.Label, err)
	}
	return a.outcome(newPinReport(p), func(w io.Writer) { _, _ = fmt.Fprintln(w, pinWords(p)) })
}

// pinned is an error unless the backup has a pin.
func pinned(ctx context.Context, r *repo.Repo, label string) error {
	pins, err := r.Pins(ctx)
	if err != nil {
		return err
	}
	for _, p := range pins {
		if p.Label == label {
			return nil
		}
	}
	return failed(exitFailed, "backup %s is not pinned", label).hinted("\"lifeboat backups\" shows pins")
}

// claim is how this process asks for a lease, and for what work.
func claim(work string) repo.Claim {

	return repo.Claim{Holder: hostName() + " (" + work + ")", Process: processName(), Gone: processGone}
}

func (a *app) warnLease(err error) {
	a.warn("%v", err)
}

// pinReport is the JSON document of a pin.
type pinReport struct {
	Label  string `json:"label"`
	Pinned bool   `json:"pinned"`
	Until  string `json:"until,omitempty"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
	Made   string `json:"made,omitempty"`
}

func newPinReport(p repo.Pin) pinReport {
	out := pinReport{Label: p.Label, Pinned: !p.Off, Reason: p.Reason, By: p.By}
	if !p.Until.IsZero() {
		out.Until = p.Until.UTC().Format(timeForm)
	}
	if !p.Made.IsZero() {
		out.Made = p.Made.UTC().Format(timeForm)
	}
	return out
}

func pinWords(p repo.Pin) string {
	switch {
	case p.Off:
		return "backup " + p.Label + " is not pinned any more"
	case p.Until.IsZero():
		return "backup " + p.Label + " is pinned, without an end"
	}
	return "backup " + p.Label + " is pinned until " + p.Until.UTC().Format("2006-01-02 15:04 MST")
}

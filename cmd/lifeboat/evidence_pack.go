package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

func evidencePack(a *app) *cli.Command {
	return &cli.Command{
		Name:  "pack",
		Usage: "put the evidence of a period into one zip file, for auditors",
		Description: `
Writes the signed documents of the period as they lie in the repository, those
that cannot be used too; a page of what they show, which drills failed and which
were missed; what that says of SOC 2, ISO/IEC 27001, DORA and NIST SP 800-53;
and how to check all of it without Lifeboat. Nothing is left out because it
looks bad, and failures inside are no failure of this command.

A date is a day of UTC, and --to includes it: --from 2026-01-01 --to 2026-03-31
is the first quarter. With --every 7d the period is cut into spans of so long,
and each in which no restore was proven counts as missed.

The file is readable for you alone, since details of checks can quote the
database, and is never written over another one. No identity is needed.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "begin of the period: `DATE` (2026-01-01) or a time (RFC 3339)"},
			&cli.StringFlag{Name: "to", Usage: "end of the period: `DATE`, which is included, or a time, which is not"},
			&cli.StringFlag{Name: "every", Usage: "how often a restore was to be proven, a `TIME` such as 7d"},
			&cli.StringFlag{Name: "out", Usage: "write the pack to `FILE`, which must not exist"},
		}, configFlags("repository", "signer", "drill.trust", "drill.key")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			p, err := packPeriod(c)
			if err != nil {
				return err
			}
			out, err := a.newFile(c, "out")
			if err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			return a.packEvidence(c.Context, cfg, p, out)
		},
	}
}

func packPeriod(c *cli.Context) (p report.Period, err error) {
	for _, f := range []struct {
		name string
		into *time.Time
	}{{"from", &p.From}, {"to", &p.To}} {
		text := c.String(f.name)
		if text == "" {
			return p, usage("--%s is missing", f.name).hinted("a period has two ends: --from 2026-01-01 --to 2026-03-31")
		}
		if *f.into, err = parseDay(text, f.name == "to"); err != nil {
			return p, usage("--%s: %v", f.name, err)
		}
	}
	if !p.From.Before(p.To) {
		return p, usage("--to %s does not come after --from %s", c.String("to"), c.String("from"))
	}
	if text := c.String("every"); c.IsSet("every") {
		if p.Every, err = parseDuration(text); err != nil {
			return p, usage("--every: %v", err)
		}
		if p.Every <= 0 {
			return p, usage("--every: %s is no time at all", text)
		}
	}
	return p, nil
}

// parseDay reads a date of UTC, at its begin or its end, or a time.
func parseDay(text string, end bool) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		if end {
			t = t.AddDate(0, 0, 1)
		}
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil {
		return t, fmt.Errorf("%q is neither a date such as 2026-01-31 nor a time such as 2026-01-31T02:00:00Z", text)
	}
	return t, nil
}

// newFile is the path of a file that a flag names and that is not there yet.
func (a *app) newFile(c *cli.Context, flag string) (string, error) {
	path, err := a.abs(c.String(flag))
	switch {
	case err != nil:
		return "", err
	case path == "":
		return "", usage("--%s is missing", flag).hinted("name the file to write: --%s FILE", flag)
	}
	if _, err := os.Lstat(path); err == nil {
		return "", usage("%s exists already, and is not overwritten", path).hinted("name another file, or move it away if it is not needed")
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return "", usage("--%s: there is no directory %s", flag, filepath.Dir(path))
	}
	return path, nil
}

// packReport is the JSON document of "evidence pack".
type packReport struct {
	File    string    `json:"file"`
	Bytes   int       `json:"bytes"`
	SHA256  string    `json:"sha256"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"` // not included
	Drills  int       `json:"drills"`
	Passed  int       `json:"passed"`
	Failed  int       `json:"failed"`
	Unknown int       `json:"unknown"`

	Missed      *int    `json:"missed,omitempty"` // spans; nil without --every
	Gap         float64 `json:"longest_gap_seconds"`
	Unusable    int     `json:"unusable"`
	Breaks      int     `json:"chain_breaks"`
	KeysTrusted bool    `json:"keys_trusted"`
}

func (a *app) packEvidence(ctx context.Context, cfg *Config, p report.Period, out string) error {
	r, err := openRepo(ctx, cfg)
	if err != nil {
		return err
	}
	if p.Keys, err = cfg.trustedHosts(r.Marker().Cluster); err != nil {
		return err
	}
	p.Program = "lifeboat " + version
	// All of it: a break of the chain shows only against what came before.
	h, err := a.history(ctx, r, p.Keys, time.Time{})
	if err != nil {
		return err
	}
	if !h.Trusted {
		a.warn("no key is trusted here, so the signatures prove nothing: set drill.trust to the public keys of the drill hosts")
	}
	var b bytes.Buffer
	m, err := h.Pack(&b, p)
	if err != nil {
		return err
	}
	// 0600, unlike the other reports: those are for collectors and web servers,
	// this is handed over by a person.
	if err := writeNew(out, b.Bytes()); err != nil {
		return err
	}
	s := newPackReport(m, h.Trusted)
	sum := sha256.Sum256(b.Bytes())
	s.File, s.Bytes, s.SHA256 = out, b.Len(), hex.EncodeToString(sum[:])
	return a.result(s, func(w io.Writer) { s.write(w) })
}

func newPackReport(m *report.Manifest, trusted bool) packReport {
	s := packReport{From: m.From, To: m.To, Drills: len(m.Drills), Gap: m.Gap, Unusable: len(m.Unusable), Breaks: len(m.Breaks), KeysTrusted: trusted}
	for _, d := range m.Drills {
		switch d.Verdict {
		case evidence.Passed:
			s.Passed++
		case evidence.Failed:
			s.Failed++
		default:
			s.Unknown++
		}
	}
	if m.Every > 0 {
		n := len(m.Missed)
		s.Missed = &n
	}
	return s
}

func (s packReport) write(w io.Writer) {
	missed := "not asked: --every 7d would say in which spans no restore was proven"
	if s.Missed != nil {
		missed = fmt.Sprint(*s.Missed)
	}
	_, _ = fmt.Fprintf(w, `Pack      %s
SHA-256   %s
Period    %s to %s
Drills    %d: %d passed, %d failed, %d unknown
Missed    %s
Longest   %s without a restore that passed
`, s.File, s.SHA256, s.From.Format(time.RFC3339), s.To.Format(time.RFC3339), s.Drills, s.Passed, s.Failed, s.Unknown, missed, evidence.Seconds(s.Gap))
	if s.Unusable+s.Breaks > 0 {
		_, _ = fmt.Fprintf(w, "Not whole: documents that cannot be used: %d, breaks in the chain: %d\n", s.Unusable, s.Breaks)
	}
}

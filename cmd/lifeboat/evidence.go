package main

import (
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

func evidenceCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:        "evidence",
		Usage:       "the signed documents of drills",
		Subcommands: []*cli.Command{evidenceVerify(a), evidencePack(a)},
	}
}

func evidenceVerify(a *app) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check documents of drills, without a network",
		ArgsUsage: "FILE...",
		Description: `
Checks that each document is as it was signed, that a trusted key signed it,
and, of several, that each is linked to the one before. Trusted are --trust,
drill.trust and this host's own drill key. A document that holds and is signed
by an unknown key exits with 4: nothing is proven by it.`,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "trust", Usage: "public `KEY` of a drill host, ed25519:…; can be repeated"},
		}, configFlags("drill.trust", "drill.key")...),
		Action: func(c *cli.Context) error {
			files := c.Args().Slice()
			if len(files) == 0 {
				return usage("%s: missing FILE", c.Command.HelpName)
			}
			cfg, err := a.config(c)
			if err != nil {
				return err
			}
			trusted, err := cfg.trustedHosts(cfg.Cluster)
			if err != nil {
				return err
			}
			for _, s := range c.StringSlice("trust") {
				k, err := repo.ParsePublicKey(s)
				if err != nil {
					return usage("--trust: %v", err)
				}
				trusted = append(trusted, k)
			}
			return a.verifyEvidence(files, trusted)
		},
	}
}

// verifiedFile is what was found out about one document.
type verifiedFile struct {
	File    string           `json:"file"`
	State   string           `json:"state"` // trusted, unknown signer or bad
	ID      string           `json:"id,omitempty"`
	Verdict evidence.Verdict `json:"verdict,omitempty"`
	Key     string           `json:"key,omitempty"`
	SHA256  string           `json:"sha256,omitempty"`
	Reason  string           `json:"reason,omitempty"`
}

// The states of a document.
const (
	evidenceTrusted = "trusted"
	evidenceUnknown = "unknown signer"
	evidenceBad     = "bad"
)

type verifiedReport struct {
	Files  []verifiedFile   `json:"files"`
	Breaks []evidence.Break `json:"chain_breaks"`
}

func (a *app) verifyEvidence(files []string, trusted []repo.PublicKey) error {
	report := verifiedReport{Files: []verifiedFile{}, Breaks: []evidence.Break{}}
	var docs []*evidence.Document
	count := map[string]int{}
	for _, name := range files {
		f, doc := verifyFile(name, trusted)
		report.Files = append(report.Files, f)
		count[f.State]++
		if doc != nil {
			docs = append(docs, doc)
		}
	}
	report.Breaks = append(report.Breaks, evidence.CheckChain(docs)...)
	if err := a.result(report, func(w io.Writer) { report.write(w) }); err != nil {
		return err
	}
	switch {
	case count[evidenceBad] > 0:
		return failed(exitFailed, "%d of %d files are no documents that hold, see above", count[evidenceBad], len(files)).
			hinted("take them again from the repository, where they lie under drills/")
	case len(report.Breaks) > 0:
		return failed(exitFailed, "the chain of documents is broken in %d places", len(report.Breaks)).
			hinted("a document between those that were given is missing, or was replaced")
	case count[evidenceUnknown] > 0:
		return failed(exitUnknown, "%d of %d documents are signed by a key that nobody here vouches for", count[evidenceUnknown], len(files)).
			hinted("compare the key with the one on the drill host, and give it with --trust KEY")
	}
	return nil
}

func verifyFile(name string, trusted []repo.PublicKey) (verifiedFile, *evidence.Document) {
	f := verifiedFile{File: name, State: evidenceBad}
	raw, err := readBounded(name, evidence.MaxDocument)
	if err != nil {
		f.Reason = err.Error()
		return f, nil
	}
	doc, err := evidence.Parse(raw)
	if err != nil {
		f.Reason = err.Error()
		return f, nil
	}
	f.ID, f.Verdict, f.Key, f.SHA256 = doc.Drill.ID, doc.Drill.Verdict, doc.Key.String(), doc.SHA256
	f.State = evidenceUnknown
	if doc.TrustedBy(trusted) {
		f.State = evidenceTrusted
	}
	return f, doc
}

func (r verifiedReport) write(w io.Writer) {
	for _, f := range r.Files {
		switch f.State {
		case evidenceBad:
			_, _ = fmt.Fprintf(w, "BAD      %s: %s\n", f.File, f.Reason)
		case evidenceUnknown:
			_, _ = fmt.Fprintf(w, "UNKNOWN  %s: drill %s, %s, as it was signed by %s, which is not trusted here\n", f.File, f.ID, f.Verdict, f.Key)
		default:
			_, _ = fmt.Fprintf(w, "OK       %s: drill %s, %s, signed by %s\n", f.File, f.ID, f.Verdict, f.Key)
		}
	}
	for _, b := range r.Breaks {
		_, _ = fmt.Fprintf(w, "BROKEN   drill %s: %s\n", b.ID, b.Reason)
	}
}

// readBounded reads a file of at most so many bytes.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return raw, err
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

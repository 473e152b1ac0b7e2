package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

// tell prints the report, writes the files, and turns the verdict into an exit
// code. A file that cannot be written fails a drill that passed, and no other.
func (d *drillRun) tell(ctx context.Context, r *repo.Repo, key repo.SigningKey, result *drill.Result) error {
	d.progress.close()
	doc := result.Document
	wrote := d.writeOutputs(ctx, r, key, doc)
	if err := d.result(doc.Drill, func(w io.Writer) {
		_ = report.Text(w, &doc.Drill, d.painter())
		writeKept(w, result.Kept)
	}); err != nil {
		return err
	}
	// A signal that came when all was proven has stopped nothing.
	if err := interruption(ctx); err != nil && doc.Drill.Verdict != evidence.Passed {
		return err
	}
	switch doc.Drill.Verdict {
	case evidence.Passed:
		return wrote
	case evidence.Failed:
		return verdictError(exitMissed, "the drill failed", &doc.Drill, result.Err)
	}
	return verdictError(exitUnknown, "the drill proved nothing either way", &doc.Drill, result.Err)
}

// verdictError is the error of a drill that did not pass; the hint is that of
// what ended it.
func verdictError(code exitCode, what string, d *evidence.Drill, cause error) error {
	reason := ""
	if len(d.Reasons) > 0 {
		reason = ": " + d.Reasons[0]
	}
	err := failed(code, "%s%s", what, reason)
	if cause != nil {
		if _, hint := classify(cause); hint != "" {
			return err.hinted("%s", hint)
		}
	}
	return err.hinted("the report above names every reason; \"lifeboat drill --keep\" leaves the server for a look")
}

// writeKept says how to reach a server that was left running.
func writeKept(w io.Writer, k *drill.Kept) {
	if k == nil {
		return
	}
	as := ""
	if k.Account != "" {
		as = "runuser -u " + postgres.ShellWord(k.Account) + " -- "
	}
	_, _ = fmt.Fprintf(w, "\nThe server was kept. It is writable, and it is a copy.\nConnect:  %spsql %s\nStop:     %s%s -D %s stop -m immediate\nRemove:   rm -rf %s\n",
		as, postgres.ShellWord(k.Conn), as, postgres.ShellWord(k.PGCtl), postgres.ShellWord(k.DataDir), postgres.ShellWord(k.Directory))
}

// painter colours a report where colours are shown: on a terminal.
func (u *ui) painter() report.Paint {
	if !u.colourOut {
		return nil
	}
	return func(s, sgr string) string { return "\x1b[" + sgr + "m" + s + "\x1b[0m" }
}

// writeOutputs writes the files that were asked for.
func (d *drillRun) writeOutputs(ctx context.Context, r *repo.Repo, key repo.SigningKey, doc *evidence.Document) error {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	o := d.outputs
	if o == (outputs{}) {
		return nil
	}
	h, err := d.pastDrills(after, r, key)
	if err != nil {
		return err
	}
	var first error
	for path, write := range map[string]func(io.Writer) error{
		o.junit:      func(w io.Writer) error { return report.JUnit(w, &doc.Drill) },
		o.html:       func(w io.Writer) error { return h.HTML(w, doc) },
		o.prometheus: h.Prometheus,
	} {
		if path == "" {
			continue
		}
		var b bytes.Buffer
		err := write(&b)
		if err == nil {
			err = report.WriteFile(path, b.Bytes())
		}
		if err != nil {
			d.warn("%v", err)
			first = err
		}
	}
	return first
}

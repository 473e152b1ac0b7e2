package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// demoDrill is what the drill before the disaster said.
type demoDrill struct {
	Verdict    evidence.Verdict `json:"verdict"`
	RPOSeconds *float64         `json:"rpo_seconds,omitempty"` // at most so much would be lost
	RTOSeconds *float64         `json:"rto_seconds,omitempty"`
	Page       string           `json:"page,omitempty"` // its report, where it is kept
}

// rehearse runs a drill while orders are written: what it says, the disaster
// then shows. Its page stays where the directory of the demo does.
func (s *story) rehearse(ctx context.Context) error {
	s.step("5. A drill, while orders are written: would a restore work, and what would it cost?")
	staging := filepath.Join(s.dir, "staging")
	if err := os.Mkdir(staging, 0o700); err != nil {
		return fmt.Errorf("make a staging directory: %w", err)
	}
	args := []string{"drill", "--identity", filepath.Join(s.dir, "demo-recovery.key"), "--staging", staging, "--rpo", "1m", "--rto", "5m"}
	if s.kept {
		s.report.Drill.Page = filepath.Join(s.dir, "drill.html")
		args = append(args, "--html", s.report.Drill.Page)
	}
	s.step("  $ lifeboat %s", strings.Join(args, " "))
	cmd, err := s.program(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var d evidence.Drill
	// A drill that fails, or proves nothing on this host, has a document too.
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || json.Unmarshal(stdout.Bytes(), &d) != nil || d.ID == "" {
		_, _ = s.stderr.Write(stderr.Bytes())
		return fmt.Errorf("lifeboat drill: %w", errors.Join(err, ctx.Err()))
	}
	s.report.Drill.Verdict, s.report.Drill.RPOSeconds, s.report.Drill.RTOSeconds = d.Verdict, d.RPO.Upper, d.RTO.Achieved
	s.step("    %s", told(&d))
	if d.Verdict == evidence.Failed {
		return failed(exitFailed, "the drill failed: %s", strings.Join(d.Reasons, "; ")).
			hinted("run the demo again with --dir DIR and look at DIR/drill.html")
	}
	return nil
}

// told is what a drill came to, in one line.
func told(d *evidence.Drill) string {
	line := string(d.Verdict)
	if d.Verdict != evidence.Passed {
		return line + ": " + strings.Join(d.Reasons, "; ")
	}
	required := 0
	for _, c := range d.Checks {
		if c.Required {
			required++
		}
	}
	line += fmt.Sprintf(": %s would be lost", d.RPO.Loss())
	if d.RTO.Achieved != nil {
		line += fmt.Sprintf(", %s to get all else back", evidence.Seconds(*d.RTO.Achieved))
	}
	return line + fmt.Sprintf("; all %d required checks passed, signed evidence stored, all else removed", required)
}

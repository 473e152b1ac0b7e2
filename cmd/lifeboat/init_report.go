package main

import (
	"fmt"
	"io"
	"strings"
)

// setupReport is the JSON document of init.
type setupReport struct {
	Cluster        string   `json:"cluster"`
	Repository     string   `json:"repository"`
	RepositoryID   string   `json:"repository_id"`
	Config         string   `json:"config"`
	ClusterKey     string   `json:"cluster_key"`
	RecoveryKey    string   `json:"recovery_key,omitempty"` // "" when the recipients were given
	Recipients     []string `json:"recipients"`
	Signer         string   `json:"signer"`
	ArchiveCommand string   `json:"archive_command"`
	Created        []string `json:"created"` // what this run made

	rds bool
}

func (r setupReport) write(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if len(r.Created) == 0 {
		p("Cluster %s is set up already; nothing was changed.", r.Cluster)
	} else {
		p("Cluster %s is set up:", r.Cluster)
		for _, c := range r.Created {
			p("  made %s", c)
		}
	}
	if r.rds {
		p("\nNext:\n\n1. Name your databases below \"rds:\" in %s; docs/rds.md shows how.", r.Config)
		p("\n2. Look at them: lifeboat --config %s rds status", r.Config)
		return
	}
	p("\nNext:\n\n1. In postgresql.conf, then restart PostgreSQL (archive_mode needs it):\n")
	p("     archive_mode = on")
	p("     archive_command = '%s'", strings.ReplaceAll(r.ArchiveCommand, "'", "''"))
	p("\n2. Take the first backup: lifeboat --config %s backup", r.Config)
	if r.RecoveryKey != "" {
		p("\n3. Take the recovery key off this host:\n\n     %s\n", r.RecoveryKey)
		p("   Copy it to where your on-call team finds it when this host is gone, check the")
		p("   copy, then delete it here. Without it no backup can be opened; with it anybody")
		p("   can. Backups and WAL archiving do not need it.")
	} else {
		p("\n3. Make sure that the identities of the recipients are kept off this host.")
	}
}

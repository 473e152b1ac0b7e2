package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/urfave/cli/v2"
)

// repositoryFormat is the version of the repository format that this binary
// writes; repo/FORMAT.md describes it.
const repositoryFormat = 1

// versionReport is the document of "lifeboat version --json".
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Format  int    `json:"format"`
}

func versionCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version of Lifeboat and of the repository format",
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			v := versionReport{version, runtime.Version(), runtime.GOOS, runtime.GOARCH, repositoryFormat}
			return a.result(v, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "lifeboat %s (format %d, %s, %s/%s)\n", v.Version, v.Format, v.Go, v.OS, v.Arch)
			})
		},
	}
}

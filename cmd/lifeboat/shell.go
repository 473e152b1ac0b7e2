package main

import (
	"fmt"
	"os"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// archiveCommand is the archive_command for a configuration.
func archiveCommand(config string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's own path: %w", err)
	}
	return postgres.CommandLine([]string{exe, "--config", config, "wal", "push"}, "%p")
}

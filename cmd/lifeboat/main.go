// Lifeboat takes encrypted backups and a WAL archive of a PostgreSQL cluster,
// restores them, and rehearses the restore.
//
// This package is the command line alone: flags, configuration, printing and
// exit codes, one file a command. What a command does lives in the packages it
// calls; they know nothing of flags, environment, clock or exit codes.
package main

import "os"

// version is the released version; the linker sets it (-X main.version=1.2.3).
var version = "dev"

func main() {
	os.Exit(newApp().run(os.Args[1:]))
}

package drill

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/restore"
)

// settings are what the restored server is told on its command line, which
// beats every file and what ALTER SYSTEM has set. They take from the copy what
// would reach out of it, and what would make it wait for something that it does
// not have.
//
// What recovery needs at least as large as on the primary is in
// postgresql.auto.conf, as in every restore.
func (r *run) settings(install server.Install, preload []string) map[string]string {
	set := map[string]string{
		"config_file": filepath.Join(r.stage.conf(), "postgresql.conf"),
		"hba_file":    filepath.Join(r.stage.conf(), "pg_hba.conf"),
		"ident_file":  filepath.Join(r.stage.conf(), "pg_ident.conf"),

		"archive_mode": "off", "archive_command": "", "archive_cleanup_command": "", "recovery_end_command": "",
		"primary_slot_name": "", "synchronous_standby_names": "",
		"max_logical_replication_workers": "0",
		"cron.launch_active_jobs":         "off", // pg_cron; without it the name means nothing

		"shared_preload_libraries": strings.Join(preload, ","), "session_preload_libraries": "", "local_preload_libraries": "",

		"ssl": "off", "unix_socket_permissions": "0700",
		"logging_collector": "off", "log_destination": "stderr", "log_line_prefix": "%m [%p] ", "log_timezone": "UTC", "lc_messages": "C",
		"shared_buffers": "128MB", "huge_pages": "off", "dynamic_shared_memory_type": "mmap",
		"autovacuum": "off", "restart_after_crash": "off", "hot_standby": "on",
	}
	if install.Major >= 15 {
		set["archive_library"] = ""
		set["log_startup_progress_interval"] = "1s" // how a recovery that hangs is told from a long one
	}
	for name, value := range r.o.Settings {
		set[name] = value
	}
	return set
}

// writeConf writes the server's own configuration files, beside the data
// directory: what production has in its files names production's paths. They, and
// the directory of the log, stay ours: the server's account can read them.
func (r *run) writeConf() error {
	for _, dir := range []string{r.stage.conf(), r.stage.logs()} {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = os.Chmod(dir, 0o755) // whatever the umask is
		}
		if err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	files := map[string]string{
		"postgresql.conf": "# A drill's: all that counts stands on the command line.\n",
		"pg_hba.conf":     "# The directory of the socket lets in one account only.\nlocal all all trust\n",
		"pg_ident.conf":   "",
	}
	for name, text := range files {
		path := filepath.Join(r.stage.conf(), name)
		err := os.WriteFile(path, []byte(text), 0o644)
		if err == nil {
			err = os.Chmod(path, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}

// autoConf leaves in postgresql.auto.conf what the restore has put there and
// nothing that production's administrators had: a server reads that file
// whatever its command line says.
func (r *run) autoConf(settings []restore.Setting) error {
	root, err := os.OpenRoot(r.plan.DataDir)
	if err != nil {
		return err
	}
	defer root.Close()
	// It is there: the restore has just written it, for the right account.
	f, err := root.OpenFile("postgresql.auto.conf", os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(restore.AutoConf(slices.DeleteFunc(slices.Clone(settings), func(s restore.Setting) bool { return isTarget(s.Name) })))
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// preload decides which of production's shared_preload_libraries are loaded,
// and which are wanted and not installed here.
func (r *run) preload(install server.Install, production string) (load, missing, left []string) {
	for _, name := range libraryNames(production) {
		switch {
		case r.o.Libraries.Listed && !slices.Contains(r.o.Libraries.Names, name):
			left = append(left, name)
		case !libraryThere(install, name):
			missing = append(missing, name)
		default:
			load = append(load, name)
		}
	}
	return load, missing, left
}

// libraryNames splits a list as PostgreSQL does (SplitDirectoriesString in
// utils/adt/varlena.c): by commas, with optional double quotes.
func libraryNames(list string) []string {
	var out []string
	for _, name := range strings.Split(list, ",") {
		if name = strings.Trim(strings.TrimSpace(name), `"`); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// libraryThere says whether the library can be loaded: by its path, or from
// the installation's own directory (dynamic_library_path is $libdir).
func libraryThere(install server.Install, name string) bool {
	name = strings.TrimPrefix(name, "$libdir/")
	if !strings.HasSuffix(name, ".so") {
		name += ".so"
	}
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return err == nil
	}
	for _, dir := range []string{"../lib", "../lib/postgresql", "../lib64/pgsql", "../lib64"} {
		if _, err := os.Stat(filepath.Join(install.BinDir, dir, name)); err == nil {
			return true
		}
	}
	return false
}

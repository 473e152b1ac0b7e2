package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

const (
	mainConf = "postgresql.conf"
	autoConf = "postgresql.auto.conf"
	hbaConf  = "pg_hba.conf"

	// recoverySignal makes a server recover from the archive.
	recoverySignal = "recovery.signal"
)

// writeRecovery writes what turns the copy of a data directory into one that
// recovers: where recovery starts, where the tablespaces are, the settings.
func (d *dirs) writeRecovery(p *Plan, l *layout, o Options) error {
	if err := d.writeNew(l, postgres.BackupLabelFile, p.Backup.BackupLabel); err != nil {
		return err
	}
	if err := d.linkTablespaces(p, l); err != nil {
		return err
	}
	if err := d.writeSettings(p, l, o); err != nil {
		return err
	}
	return d.writeNew(l, recoverySignal, "")
}

// linkTablespaces makes the links of the tablespaces, and the file from which
// PostgreSQL makes them again when it begins to recover. In-place tablespaces
// are in neither: PostgreSQL would put a link where their directory is.
func (d *dirs) linkTablespaces(p *Plan, l *layout) error {
	var links []postgres.TablespaceLink
	for _, s := range p.Tablespaces {
		if s.InPlace {
			continue
		}
		links = append(links, postgres.TablespaceLink{OID: s.OID, Path: s.To})
		name := path.Join("pg_tblspc", strconv.FormatUint(uint64(s.OID), 10))
		if err := d.roots[0].root.Symlink(s.To, name); err != nil {
			return fmt.Errorf("link tablespace: %w", err)
		}
		if err := d.own(d.roots[0].root, name); err != nil {
			return err
		}
	}
	if len(links) == 0 {
		return nil
	}
	return d.writeNew(l, postgres.TablespaceMapFile, string(postgres.MarshalTablespaceMap(links)))
}

// writeSettings puts the plan's settings into postgresql.auto.conf and makes
// the configuration files that lay outside of the data directory.
func (d *dirs) writeSettings(p *Plan, l *layout, o Options) error {
	if !l.has(mainConf) {
		if err := d.writeNew(l, mainConf, minimalConf(p.Backup)); err != nil {
			return err
		}
		o.note("the backup holds no %s in the data directory; a minimal one was written", mainConf)
	}
	if !l.has(hbaConf) {
		if err := d.writeNew(l, hbaConf, minimalHBA); err != nil {
			return err
		}
		o.note("the backup holds no %s in the data directory; one that lets in local users under their own names was written", hbaConf)
	}
	text, err := d.readConf(mainConf)
	if err != nil {
		return err
	}
	if setsDataDirectory(text) {
		o.note("%s names a data_directory of its own: take that line out, or a server started with -D %s works elsewhere", mainConf, p.DataDir)
	}
	old, err := d.readConf(autoConf)
	if err != nil {
		return err
	}
	if err := d.roots[0].root.Remove(autoConf); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", autoConf, err)
	}
	return d.writeNew(l, autoConf, rewriteAutoConf(old, p.Settings))
}

// maxConf bounds what is read of a configuration file.
const maxConf = 16 << 20

// readConf reads a configuration file that was restored; "" when there is none.
func (d *dirs) readConf(name string) (string, error) {
	root := d.roots[0].root
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if info.Size() > maxConf {
		return "", fmt.Errorf("read %s: %d bytes are too many for a configuration file", name, info.Size())
	}
	text, err := root.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(text), nil
}

// writeNew makes a file in the data directory that is not in the backup.
func (d *dirs) writeNew(l *layout, name, text string) error {
	mode := os.FileMode(0o600)
	if l.group {
		mode = 0o640
	}
	return d.writeWhole(&target{place: place{0, name}, path: name, mode: mode}, []byte(text))
}

// minimalConf is a postgresql.conf for a data directory whose own lay
// elsewhere. What recovery needs at least as large as on the primary is in
// postgresql.auto.conf.
func minimalConf(info repo.Info) string {
	var b strings.Builder
	b.WriteString(`# Written by Lifeboat's restore. The server that was backed up had its
# configuration outside of the data directory, so none came with it.
# What lifeboat-config/ holds, if it is there, is a copy of that configuration;
# take from it what this server shall have (memory, network, logging), but
# mind that it may name files and directories of the other server.
#
# Only this host can connect: listen_addresses is localhost by default, and
# pg_hba.conf decides who may.
`)
	for _, name := range []string{"shared_preload_libraries", "wal_level"} {
		if v := info.Settings[name]; v != "" {
			fmt.Fprintf(&b, "\n# As on the server that was backed up.\n%s = %s\n", name, quoteSetting(v))
		}
	}
	return b.String()
}

const minimalHBA = `# Written by Lifeboat's restore, which found none in the backup: users of this
# host may connect through the Unix socket under their own names, nobody else.
# TYPE  DATABASE        USER            ADDRESS                 METHOD
local   all             all                                     peer
local   replication     all                                     peer
`

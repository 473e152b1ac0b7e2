package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/hoststate"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

func initCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "set up a cluster: configuration, keys, repository",
		Description: `
Writes a commented configuration (to --config, else ./lifeboat.yaml) and beside
it the cluster key; makes a recovery key unless --recipient names existing
recipients; creates the repository; and says what to do next. Run again it
changes nothing and prints the same. A repository of another cluster is
refused before anything is written.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "recovery-key", Usage: "write the recovery key to `FILE`; else to NAME-recovery.key beside the configuration"},
			&cli.BoolFlag{Name: "rds", Usage: "for databases on Amazon RDS: there is no data directory"},
		}, configFlags("cluster", "pgdata", "repository", "conn", "recipients", "s3.endpoint", "s3.region", "s3.path_style", "s3.ca_file")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			s, err := a.newSetup(c)
			if err != nil {
				return err
			}
			if err := s.run(c.Context); err != nil {
				return err
			}
			return a.result(s.report, func(w io.Writer) { s.report.write(w) })
		},
	}
}

// setup is one run of init.
type setup struct {
	app    *app
	cfg    *Config
	exists bool   // the configuration file does
	dir    string // of the configuration file
	given  map[string][]string
	report setupReport
}

func (a *app) newSetup(c *cli.Context) (*setup, error) {
	dir, err := a.getwd()
	if err != nil {
		return nil, fmt.Errorf("find the current directory: %w", err)
	}
	file := c.String("config")
	if file == "" {
		file = a.getenv("LIFEBOAT_CONFIG")
	}
	if file == "" {
		file = "lifeboat.yaml"
	}
	file = inDir(dir, file)
	settings, err := readConfig(file)
	exists := !errors.Is(err, fs.ErrNotExist)
	if err != nil && exists {
		return nil, err
	}
	cfg, err := a.combine(c, dir, file, settings)
	if err != nil {
		return nil, err
	}
	need := []string{"cluster", "pgdata", "repository"}
	if c.Bool("rds") {
		need = []string{"cluster", "repository"} // there is no data directory
	}
	if err := cfg.require(need...); err != nil {
		return nil, err
	}
	s := &setup{app: a, cfg: cfg, exists: exists, dir: filepath.Dir(file), given: cfg.given()}
	s.report = setupReport{Cluster: cfg.Cluster, Repository: cfg.Repository, Config: file, RecoveryKey: c.String("recovery-key"), Created: []string{}}
	s.report.rds = c.Bool("rds")
	if s.report.RecoveryKey == "" {
		s.report.RecoveryKey = filepath.Join(s.dir, cfg.Cluster+"-recovery.key")
	}
	s.report.RecoveryKey = inDir(dir, s.report.RecoveryKey)
	if cfg.ClusterKey == "" {
		cfg.ClusterKey = filepath.Join(s.dir, cfg.Cluster+"-cluster.key")
	}
	s.report.ClusterKey = cfg.ClusterKey
	return s, s.check(settings.settings)
}

// check refuses what would surprise later, before anything is written.
func (s *setup) check(fromFile []setting) error {
	if _, err := os.Stat(filepath.Join(s.cfg.PGData, "PG_VERSION")); err != nil && s.cfg.PGData != "" {
		if errors.Is(err, fs.ErrNotExist) {
			return usage("pgdata: %s is not a data directory (no PG_VERSION in it)", s.cfg.PGData).
				hinted("\"show data_directory\" in psql names it")
		}
		return fmt.Errorf("look at the data directory: %w", err)
	}
	if !s.exists {
		return nil
	}
	// The file stays as it is, so a flag that says otherwise would be lost.
	for _, f := range fromFile {
		if values, ok := s.given[f.key.name]; ok && !slices.Equal(values, fileTexts(f)) {
			return usage("%s exists and has another %s than the one given now", s.report.Config, f.key.name).
				hinted("change the file, or name another with --config")
		}
	}
	return nil
}

// fileTexts is what the file says for a key, in the form of Config.
func fileTexts(f setting) []string {
	only := &Config{origins: map[string]origin{}}
	if only.set(f) != nil {
		return nil
	}
	texts := f.key.texts(only)
	if f.key.name == "repository" {
		if l, err := parseRepository(texts[0]); err == nil {
			return []string{l.url()}
		}
	}
	return texts
}

// run makes what is missing. Keys come first, because nothing may be sealed to
// a key that is not on disk; the marker comes last, because it is what makes
// the repository exist.
func (s *setup) run(ctx context.Context) error {
	stores, failures, err := s.openStores(ctx)
	if err != nil {
		return err
	}
	cluster, err := s.clusterKey()
	if err != nil {
		return err
	}
	if err := s.recoveryKey(cluster); err != nil {
		return err
	}
	if err := s.writeConfig(cluster); err != nil {
		return err
	}
	original := s.existing(ctx, stores)
	for _, one := range s.cfg.each() {
		if stores[one] == nil {
			continue
		}
		if err := s.createRepository(ctx, one, stores[one], original); err != nil {
			if !s.cfg.several() {
				return err
			}
			failures = append(failures, placeFailure{one.Name, err})
		}
	}
	if err := failedPlaces("init:", len(s.cfg.each()), failures); err != nil {
		return err
	}
	s.report.RepositoryID = cluster.Repository
	s.report.Signer = cluster.Signing.Public().String()
	s.report.Recipients = s.cfg.Recipients
	s.prepareState()
	s.report.ArchiveCommand, err = archiveCommand(s.report.Config)
	return err
}

// prepareState makes the directory of what this host remembers, for the account that
// will run the commands. Without it everything works, and is not compared with before.
func (s *setup) prepareState() {
	dir := s.app.stateDirectory(s.cfg)
	if account := s.dataOwner(); s.cfg.State == "" && dir == systemState && account != "" {
		dir += "-" + account
	}
	if dir == "" {
		return // told by the first command that misses it
	}
	made, err := hoststate.Prepare(dir)
	if made {
		s.report.Created = append(s.report.Created, dir)
		err = s.ownLike(dir)
	}
	if err != nil {
		s.app.stateLost("%v: a repository that has gone back is not noticed on this host", err)
	}
}

// dataOwner is the name of the account that owns the data directory, "" when that is
// root or not known.
func (s *setup) dataOwner() string {
	fi, err := os.Stat(s.cfg.PGData)
	if err != nil {
		return ""
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return ""
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// openStores opens the store of each repository and refuses what is not ours,
// before anything is written. Of several, one that is down is made by a later run.
func (s *setup) openStores(ctx context.Context) (map[*Config]storage.Store, []placeFailure, error) {
	stores := map[*Config]storage.Store{}
	var failures []placeFailure
	for _, one := range s.cfg.each() {
		store, err := createStore(ctx, one)
		if err == nil {
			err = s.refuseForeign(ctx, store)
		}
		switch {
		case err == nil:
			stores[one] = store
		case s.cfg.several() && storeFails(err):
			failures = append(failures, placeFailure{one.Name, err})
		case s.cfg.several():
			return nil, nil, failedPlaces("init:", len(s.cfg.each()), []placeFailure{{one.Name, err}})
		default:
			return nil, nil, err
		}
	}
	return stores, failures, nil
}

// refuseForeign refuses a repository that is there and not ours.
func (s *setup) refuseForeign(ctx context.Context, store storage.Store) error {
	_, keyErr := os.Stat(s.cfg.ClusterKey)
	newKey := errors.Is(keyErr, fs.ErrNotExist)
	m, err := repo.ReadMarker(ctx, store)
	if errors.Is(err, repo.ErrNoRepository) {
		if newKey {
			return refuseRemains(ctx, store)
		}
		return nil // with the key it is the same repository again
	}
	if err != nil {
		return err
	}
	if m.Cluster != s.cfg.Cluster {
		return &repo.ForeignError{What: "cluster", Want: s.cfg.Cluster, Have: m.Cluster}
	}
	if newKey {
		return failed(exitFailed, "the repository exists already, and its cluster key is not at %s", s.cfg.ClusterKey).
			hinted("copy the cluster key from the host where init was run first, and set cluster_key")
	}
	return nil
}

// refuseRemains refuses a place without a marker where data of a repository lies: a new
// key would make another repository on top of it, for which none of it counts.
func refuseRemains(ctx context.Context, store storage.Store) error {
	key, err := repo.Remains(ctx, store)
	if err != nil || key == "" {
		return err
	}
	return failed(exitFailed, "there is no %s, and yet %s: the marker of a repository is gone", repo.MarkerKey, key).
		hinted("run \"lifeboat init\" on the host that has its cluster key, which makes the marker again; for a new repository name an empty place")
}

func (s *setup) clusterKey() (*repo.KeyFile, error) {
	path := s.cfg.ClusterKey
	if _, err := os.Stat(path); err == nil {
		k, err := readKeyFile(path, "cluster_key")
		if err != nil {
			return nil, err
		}
		if k.Signing == nil || k.Cluster != s.cfg.Cluster {
			return nil, usage("%s is not the cluster key of %s", path, s.cfg.Cluster)
		}
		return k, nil
	}
	k, err := repo.NewClusterKey(s.cfg.Cluster, repo.NewID())
	if err != nil {
		return nil, err
	}
	return k, s.write(path, k.Marshal(clusterComment(s.cfg.Cluster)))
}

// recoveryKey settles the recipients: those given, or a new recovery key.
func (s *setup) recoveryKey(cluster *repo.KeyFile) error {
	if len(s.cfg.Recipients) > 0 {
		if _, err := parseRecipients(s.cfg.Recipients); err != nil {
			return err
		}
		s.report.RecoveryKey = ""
		return nil
	}
	path := s.report.RecoveryKey
	if _, err := os.Stat(path); err == nil { // an earlier run ended right after writing it
		k, err := readKeyFile(path, "recovery-key")
		if err != nil {
			return err
		}
		s.cfg.Recipients = k.Recipients()
		return nil
	}
	k, err := repo.NewRecoveryKey(cluster)
	if err != nil {
		return err
	}
	s.cfg.Recipients = k.Recipients()
	return s.write(path, k.Marshal(recoveryComment(k)))
}

func (s *setup) writeConfig(cluster *repo.KeyFile) error {
	if s.exists {
		return nil
	}
	set := s.given
	set["cluster"] = []string{s.cfg.Cluster}
	if s.cfg.PGData != "" {
		set["pgdata"] = []string{s.cfg.PGData}
	}
	set["repository"] = []string{s.cfg.Repository}
	set["cluster_key"] = []string{relativeTo(s.dir, s.cfg.ClusterKey)}
	set["recipients"] = s.cfg.Recipients
	set["signer"] = []string{cluster.Signing.Public().String()}
	return s.write(s.report.Config, configText(set))
}

// existing is a repository of several that is there already, nil when none is.
func (s *setup) existing(ctx context.Context, stores map[*Config]storage.Store) *repo.Repo {
	keys, err := loadKeys(s.cfg)
	if err != nil {
		return nil
	}
	for _, one := range s.cfg.each() {
		if stores[one] == nil {
			continue
		}
		if r, err := repo.Open(ctx, stores[one], keys, hostName()); err == nil {
			return r
		}
	}
	return nil
}

// createRepository makes a repository, or opens the one that is there. Where another
// place of it exists, this becomes a further one, with what was said there of who
// signs: a recovery key of the first day must believe it too.
func (s *setup) createRepository(ctx context.Context, cfg *Config, store storage.Store, original *repo.Repo) error {
	keys, err := loadKeys(s.cfg)
	if err != nil {
		return err
	}
	_, err = repo.ReadMarker(ctx, store)
	switch {
	case err == nil:
		_, err = repo.Open(ctx, store, keys, hostName())
		return err
	case !errors.Is(err, repo.ErrNoRepository):
		return err
	}
	if original != nil {
		var further *repo.Repo
		if further, err = original.OpenCopy(ctx, store); err == nil {
			err = original.CopySigners(ctx, further)
		}
	} else {
		_, err = repo.Create(ctx, store, keys, hostName(), s.app.now())
	}
	if err != nil {
		return err
	}
	s.report.Created = append(s.report.Created, cfg.Repository)
	if l, err := parseRepository(cfg.Repository); err == nil && l.scheme == "file" {
		return s.ownLike(l.path)
	}
	return nil
}

// write makes a file that is not there, mode 0600.
func (s *setup) write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	if err := writeNew(path, data); err != nil {
		return err
	}
	s.report.Created = append(s.report.Created, path)
	return s.ownLike(path)
}

// ownLike gives a path that root made to the owner of the data directory,
// who is the one that must read it.
func (s *setup) ownLike(path string) error {
	if os.Geteuid() != 0 || !filepath.IsAbs(path) || s.cfg.PGData == "" {
		return nil
	}
	fi, err := os.Stat(s.cfg.PGData)
	if err != nil {
		return fmt.Errorf("look at the data directory: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(st.Uid), int(st.Gid))
	})
}

func relativeTo(dir, path string) string {
	if filepath.Dir(path) == dir {
		return filepath.Base(path)
	}
	return path
}

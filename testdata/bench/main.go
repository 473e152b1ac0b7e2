// Command bench measures Lifeboat beside pgBackRest on one database, on
// directories and on an S3 server over TLS, and prints tables of what each takes.
// "make bench" runs it; docs/benchmarks.md explains the method and keeps a
// result.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// options are the flags.
type options struct {
	work     string // directory of the database, kept, and of scratch files
	scratch  string // directory of repositories and restored files, removed
	lifeboat string // program
	parts    string // "directory,s3,far,start,backlog,feed,incremental,shapes"

	sizes      sizes  // GB, ascending, of the database that grows
	pgBackRest string // one that knows block incremental backups
	rounds     int
	pushes     int
	strict     bool
}

// sizes is a flag: numbers with commas between them.
type sizes []int

func (s *sizes) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(*s)), " ", ","), "[]")
}

func (s *sizes) Set(text string) error {
	*s = nil
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || len(*s) > 0 && n < (*s)[len(*s)-1] {
			return errors.New("ascending numbers with commas between them")
		}
		*s = append(*s, n)
	}
	return nil
}

// bench is one run of the harness.
type bench struct {
	opt     options
	account *server.Account // runs the server and both tools
	install server.Install
	dir     string // scratch: repositories, sockets, restored files
	lock    *os.File
	db      *database
	s3      *s3test.Server
	begin   time.Time
	results results
}

func main() {
	// Children are told to die with the thread that started them.
	runtime.LockOSThread()
	var o options
	flag.StringVar(&o.work, "work", "bench-work", "`directory` that keeps the database")
	flag.StringVar(&o.scratch, "scratch", "", "`directory` for repositories and restored files, else that of -work")
	flag.StringVar(&o.lifeboat, "lifeboat", "bin/lifeboat", "`program` to measure")
	flag.StringVar(&o.parts, "parts", "directory,s3,far,start,backlog,feed", "what to measure; and \"incremental\" and \"shapes\", which need 40 GB of disk")
	o.sizes = sizes{2, 5, 10}
	flag.Var(&o.sizes, "sizes", "how large the database of \"incremental\" is to be, one after the other, in `GB`")
	flag.StringVar(&o.pgBackRest, "pgbackrest", "pgbackrest", "`program` to measure incremental backups against; see scripts/pgbackrest")
	flag.IntVar(&o.rounds, "rounds", 5, "measured rounds, after one to warm up")
	flag.IntVar(&o.pushes, "pushes", 16, "WAL segments pushed in each round")
	flag.BoolVar(&o.strict, "strict", false, "exit with 3 when a target is missed")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || o.pushes < 1 || o.pushes > segmentsKept {
		fmt.Fprintf(os.Stderr, "bench: no operands; -rounds from 1; -pushes from 1 to %d\n", segmentsKept)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	missed, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case missed > 0 && o.strict:
		os.Exit(3)
	}
}

// run measures, prints and returns how many targets were missed.
func run(ctx context.Context, o options) (missed int, err error) {
	b := &bench{opt: o, begin: time.Now()}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return 0, err
	}
	if slices.ContainsFunc(strings.Split(o.parts, ","), func(p string) bool { return !slices.Contains([]string{"feed", "incremental", "shapes"}, p) }) { // which have databases of their own
		if err := b.openDatabase(ctx); err != nil {
			return 0, err
		}
	}
	if err := b.describe(ctx, os.Stdout); err != nil {
		return 0, err
	}
	if b.wants("directory") {
		p := place{name: "Directories"}
		if err := b.compare(ctx, p); err != nil {
			return 0, err
		}
		b.results.table(os.Stdout, p.name)
	}
	if b.wants("s3") || b.wants("far") || b.wants("backlog") || b.wants("feed") {
		if err := b.startS3(); err != nil {
			return 0, err
		}
	}
	if b.wants("s3") {
		p := b.bucket("S3 over TLS", b.s3.Addr)
		if err := b.compare(ctx, p); err != nil {
			return 0, err
		}
		b.results.table(os.Stdout, p.name)
	}
	if b.wants("far") {
		if err := b.far(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	if b.wants("start") {
		if err := b.start(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	if b.wants("backlog") {
		if err := b.backlog(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	if b.wants("feed") {
		if err := b.feed(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	if b.wants("incremental") {
		if err := b.incremental(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	if b.wants("shapes") {
		if err := b.shapes(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	b.results.verdict(os.Stdout)
	return b.results.missed, nil
}

func (b *bench) wants(part string) bool {
	return slices.Contains(strings.Split(b.opt.parts, ","), part)
}

// open finds the programs and makes the directories.
func (b *bench) open(ctx context.Context) (err error) {
	for _, path := range []*string{&b.opt.work, &b.opt.scratch, &b.opt.lifeboat} {
		if *path == "" {
			*path = b.opt.work
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	for _, program := range []string{b.opt.lifeboat, "pgbackrest"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	if b.install, err = server.Find(15, ""); err != nil {
		return err
	}
	if b.account, err = account(); err != nil {
		return err
	}
	for _, dir := range []string{b.opt.work, b.opt.scratch} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := b.lockWork(); err != nil {
		return err
	}
	b.dir = filepath.Join(b.opt.scratch, "bench-run")
	if err := os.RemoveAll(b.dir); err != nil { // of a run that was killed
		return err
	}
	if err := b.mkdir(b.dir); err != nil {
		return err
	}
	// The account may not reach the checkout of a user.
	copied := filepath.Join(b.dir, "lifeboat")
	program, err := os.ReadFile(b.opt.lifeboat)
	if err != nil {
		return err
	}
	b.opt.lifeboat = copied
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		return err
	}
	if _, err := b.measure(ctx, command{args: []string{copied, "version"}}); err != nil {
		return fmt.Errorf("the account %s must reach the directories of -work and -scratch: %w", b.account, err)
	}
	return nil
}

// account is who runs the server and the tools: neither likes root.
func account() (*server.Account, error) {
	if os.Geteuid() == 0 {
		return server.LookupAccount("postgres")
	}
	return &server.Account{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
}

// lockWork refuses a second run beside this one.
func (b *bench) lockWork() (err error) {
	b.lock, err = os.OpenFile(filepath.Join(b.opt.work, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(b.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another run uses %s: %w", b.opt.work, err)
	}
	return nil
}

func (b *bench) startS3() error {
	b.note("starting the S3 server")
	var err error
	if b.s3, err = s3test.StartServer(filepath.Join(b.dir, "s3"), s3test.Options{Bucket: "bench", TLS: true}); err != nil {
		return err
	}
	ca, err := os.ReadFile(b.s3.CAFile)
	if err != nil {
		return err
	}
	return b.writeFile(b.caFile(), string(ca), 0o600)
}

func (b *bench) caFile() string { return filepath.Join(b.dir, "ca.pem") }

func (b *bench) bucket(name, addr string) place {
	return place{name: name, s3: b.s3, addr: addr, ca: b.caFile()}
}

// close stops all that was started and removes the scratch directory.
func (b *bench) close() error {
	var errs []error
	if b.s3 != nil {
		errs = append(errs, b.s3.Stop())
	}
	errs = append(errs, b.db.stop())
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	if b.lock != nil {
		errs = append(errs, b.lock.Close())
	}
	return errors.Join(errs...)
}

// note says on stderr what is being done.
func (b *bench) note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.0fs  %s\n", time.Since(b.begin).Seconds(), fmt.Sprintf(format, args...))
}

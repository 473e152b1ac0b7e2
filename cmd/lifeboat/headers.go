package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/hoststate"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// archiveLook looks at the archives of a repository, and remembers on this host which
// signed headers it has read: the next look reads what is new or was stored again.
type archiveLook struct {
	app    *app
	repo   *repo.Repo
	name   string         // of the file, before that of the system
	dir    *hoststate.Dir // nil: nothing is remembered
	within time.Duration  // how long the headers of one system may take; 0 is for ever

	mu    sync.Mutex
	known map[postgres.SystemID]*wal.Headers
}

func (a *app) newArchiveLook(cfg *Config, r *repo.Repo, within time.Duration) *archiveLook {
	return &archiveLook{app: a, repo: r, name: cfg.stateName("wal-headers"), dir: a.hostState(cfg, r.Marker().Repository),
		within: within, known: map[postgres.SystemID]*wal.Headers{}}
}

func (l *archiveLook) file(id postgres.SystemID) string { return l.name + "." + id.String() }

// headers are those that this host knows of a system's archive.
func (l *archiveLook) headers(id postgres.SystemID) *wal.Headers {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.known[id]; known != nil {
		return known
	}
	known := wal.NewHeaders(l.repo.TrustID())
	if l.dir != nil {
		raw, err := l.dir.Read(l.file(id), wal.HeadersVersion)
		if err == nil {
			known, err = wal.ParseHeaders(raw, l.repo.TrustID())
		}
		if err != nil {
			l.app.stateLost("%v", err)
		}
	}
	l.known[id] = known
	return known
}

// check is how the headers of a system are read.
func (l *archiveLook) check(id postgres.SystemID) wal.HeaderCheck {
	return wal.HeaderCheck{Known: l.headers(id), Within: l.within}
}

// load is the index of a system's archive, with its headers read.
func (l *archiveLook) load(ctx context.Context, id postgres.SystemID, seen func(storage.Info)) (*wal.Index, error) {
	c := l.check(id)
	p := l.app.newCount("reading WAL headers", "headers")
	defer p.close()
	c.Observe = func(done, total int) { p.update(int64(done), int64(total)) }
	return wal.LoadChecked(ctx, l.repo, id, seen, c)
}

// save keeps what is known now, also when the command was interrupted.
func (l *archiveLook) save(ctx context.Context) {
	if l.dir == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, known := range l.known {
		if !known.Changed() {
			continue
		}
		err := l.dir.Update(ctx, l.file(id), wal.HeadersVersion, func(old []byte) ([]byte, error) { return known.Encode(old), nil })
		if err != nil {
			l.app.stateLost("which WAL headers were read is not remembered: %v", err)
		}
	}
}

// headersReport says how much of a system's archive was looked at.
type headersReport struct {
	Objects   int         `json:"objects"`     // WAL files and slices that are listed
	Checked   int         `json:"checked"`     // of them, those whose signed header holds
	Read      int         `json:"read_now"`    // headers that were read by this run; the others were read before
	Unchecked int         `json:"not_checked"` // that are only listed
	Why       string      `json:"why_not_checked,omitempty"`
	Bad       int         `json:"bad"`
	Objs      []badReport `json:"bad_objects,omitempty"` // at most 100
}

type badReport struct {
	Object  string `json:"object"`
	Problem string `json:"problem"`
}

const mostBad = 100

func newHeadersReport(ix *wal.Index, within time.Duration) headersReport {
	n, bad := ix.Headers(), ix.Bad()
	r := headersReport{Objects: n.Objects, Checked: n.Checked, Read: n.Read, Unchecked: n.Unchecked, Bad: n.Bad}
	for _, b := range bad[:min(len(bad), mostBad)] {
		r.Objs = append(r.Objs, badReport{b.Key, oneLine(b.Err.Error())})
	}
	switch {
	case n.Unchecked == 0:
	case n.Why != nil:
		r.Why = oneLine(n.Why.Error())
	case within > 0:
		r.Why = fmt.Sprintf("there was time for no more within %s; the next run goes on", span(within))
	default:
		r.Why = "they were not read"
	}
	return r
}

// uncheckedError is the error of a claim that rests on names alone.
func uncheckedError(what string, n int, why string) error {
	return failed(exitUnknown, "%s rests on %s of WAL that %s listed, not checked: %s", what, plural(n, "segment"), isAre(n), why).
		hinted("run it again: what was read is remembered; --headers-within TIME gives it more time")
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func itThey(n int) string {
	if n == 1 {
		return "it is"
	}
	return "they are"
}

// strangerHint is what to do about an object that is not what it is called.
const strangerHint = "see that signer and the keys here are the cluster's, and find out who can write to the repository; an older version of the object in the store, or a copy in another repository, may be the WAL: before anything takes its place, keep what is there under another name; then take a backup"

// headersPatience is how long "lifeboat backups" reads headers of a system.
const headersPatience = 30 * time.Second

// headersWithin bounds the reading of headers.
const headersWithin = "headers-within"

func headersFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: headersWithin, Value: "2m", Usage: "read the headers of archived WAL for `TIME` at most, the newest first; what was not read is listed, not checked, and the next run goes on"}
}

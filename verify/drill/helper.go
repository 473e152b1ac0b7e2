package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/fingerprint"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// HelpArgument is the first argument of a process that has to call ServeHelper.
const HelpArgument = "drill-help"

// What the helper is asked. It serves one start of the server.
const (
	doFence = "fence" // make one
	doTry   = "try"   // to get out of it
	doStart = "start"
	doPause = "pause" // until recovery has paused
	doReady = "ready" // until recovery is over
	doLook  = "look"  // one check
	doStop  = "stop"
)

const (
	logName     = "server.log"
	mostLog     = 64 << 20
	mostHistory = 1 << 20
)

// startRequest says how to start the server.
type startRequest struct {
	Install   server.Install    `json:"install"`
	DataDir   string            `json:"data_dir"`
	SocketDir string            `json:"socket_dir"`
	DoorDir   string            `json:"door_dir"` // for the socket that programs connect to
	LogDir    string            `json:"log_dir"`  // that the server's account cannot write to
	Role      string            `json:"role"`
	Settings  map[string]string `json:"settings"`
	Account   *server.Account   `json:"account,omitempty"` // nil: ours
	Env       []string          `json:"env"`
	Keep      bool              `json:"keep,omitempty"`
	Tables    string            `json:"tables,omitempty"` // file of what the backup noted of its tables

	System postgres.SystemID `json:"system"`
	Begin  postgres.LSN      `json:"begin"` // of the WAL, for the progress
	Stop   postgres.LSN      `json:"stop"`
	Stall  time.Duration     `json:"stall"`
}

// raiseRequest says which fence to make.
type raiseRequest struct {
	Account *server.Account `json:"account,omitempty"`
	View    fence.View      `json:"view"`
	Self    string          `json:"self"`
}

// raised is the fence.
type raised struct {
	Layers   []evidence.Layer `json:"layers,omitempty"`
	Unfenced string           `json:"unfenced,omitempty"` // why it keeps the server from files or network not
	Cgroups  []string         `json:"cgroups,omitempty"`  // that were made for it
}

// tried are the ways out of the fence, before the server is there.
type tried struct {
	Tried []evidence.Attempt `json:"tried,omitempty"`
	Why   string             `json:"why,omitempty"` // why nothing was tried
}

// started is the server, its process as the helper sees it.
type started struct {
	PID int `json:"pid"`
}

// recovery is what the restored server left behind of its recovery. All of it is
// the server's own word.
type recovery struct {
	Consistent time.Time         `json:"consistent,omitzero"`
	Replayed   time.Time         `json:"replayed,omitzero"`
	Last       postgres.LSN      `json:"last"`           // of the last record that was replayed
	Ended      time.Time         `json:"ended,omitzero"` // when the newest transaction that was replayed ended
	Timeline   postgres.Timeline `json:"timeline"`       // that it has begun
	End        postgres.LSN      `json:"end"`            // where that leaves the one before; 0 is not known
	Why        string            `json:"why,omitempty"`  // why End is not known
	Failed     *Failure          `json:"failed,omitempty"`
}

// lookRequest asks for one check.
type lookRequest struct {
	Check    string        `json:"check"`
	Own      *probe.Check  `json:"own,omitempty"`
	Limit    time.Duration `json:"limit"`
	Disaster time.Time     `json:"disaster,omitzero"`
}

// seen is what came of it.
type seen struct {
	Verdict evidence.Verdict `json:"verdict"`
	Detail  string           `json:"detail,omitempty"`
	Proven  []string         `json:"proven,omitempty"`
	Missing []string         `json:"missing,omitempty"`
}

// ServeHelper is the helper: a process without keys that starts the restored
// server and has to do with it afterwards, as the server's own account where the
// drill is root's. It answers what stands on in, on out, until in ends. Then it
// ends the server with all below it, unless that is to be kept.
func ServeHelper(ctx context.Context, now func() time.Time, in io.Reader, out io.Writer, explain func(error) (hint string, code int)) error {
	if err := adoptOrphans(); err != nil {
		return err
	}
	h := &helper{w: &replies{out: out}, now: now, explain: explain}
	err := serve(ctx, in, out, map[string]handler{
		doFence: h.answerFence, doTry: h.answerTry, doStart: h.answerStart, doPause: h.answerPause,
		doReady: h.answerReady, doLook: h.answerLook, doStop: h.answerStop,
	}, h.failure)
	if h.server == nil || !h.want.Keep {
		if h.fence != nil {
			err = errors.Join(err, h.fence.Kill())
		}
		err = errors.Join(err, server.KillBelow(os.Getpid()))
	}
	return err
}

// helper is the state of one.
type helper struct {
	w       *replies
	now     func() time.Time
	want    startRequest
	server  *server.Server
	fence   *fence.Fence // nil: none
	view    fence.View   // of it
	self    string
	tables  *fingerprint.Set
	explain func(error) (string, int)
}

func (h *helper) failure(err error) Failure {
	f := Failure{Text: probe.OneLine(err.Error()), Proves: provesFailure(err)}
	if h.explain != nil {
		f.Hint, f.Code = h.explain(err)
	}
	return f
}

func (h *helper) observe(phase string, done, total int64) { h.w.progress(Progress{phase, done, total}) }

func (h *helper) answerFence(ctx context.Context, with json.RawMessage) (any, error) {
	if h.fence != nil || h.server != nil {
		return nil, fmt.Errorf("%w: the fence is made twice", errBadAnswer)
	}
	var q raiseRequest
	if err := strictly(with, &q); err != nil {
		return nil, err
	}
	return h.raise(ctx, q)
}

func (h *helper) answerTry(ctx context.Context, _ json.RawMessage) (any, error) {
	if h.server != nil {
		return nil, fmt.Errorf("%w: the server is there already", errBadAnswer)
	}
	return h.tryOut(ctx)
}

// answerStart starts the server, and gives up root before anything of the
// server's is looked at.
func (h *helper) answerStart(ctx context.Context, with json.RawMessage) (any, error) {
	if h.server != nil {
		return nil, fmt.Errorf("%w: the server is started twice", errBadAnswer)
	}
	if err := strictly(with, &h.want); err != nil {
		return nil, err
	}
	q := h.want
	if q.Tables != "" {
		text, err := os.ReadFile(q.Tables) // nothing hostile has run yet that could reach it
		if err != nil {
			return nil, err
		}
		h.tables = &fingerprint.Set{}
		if err := json.Unmarshal(text, h.tables); err != nil {
			return nil, err
		}
	}
	o := server.Options{
		DataDir: q.DataDir, SocketDir: q.SocketDir, LogFile: filepath.Join(q.LogDir, logName), Settings: q.Settings, Role: q.Role,
		Account: q.Account, DieWithParent: !q.Keep, Env: q.Env,
	}
	if h.fence != nil {
		o.Launch = h.fence.Command
	}
	var err error
	if h.server, err = server.Start(ctx, q.Install, o); err != nil {
		return nil, err
	}
	if err := giveUpRoot(q.Account); err != nil {
		return nil, err
	}
	return started{h.server.PID()}, h.openDoor()
}

func (h *helper) answerPause(ctx context.Context, _ json.RawMessage) (any, error) {
	if h.server == nil {
		return nil, errNotStarted
	}
	return struct{}{}, h.waitPaused(ctx)
}

// answerReady waits for the end of recovery. What was logged until then is part of
// the answer also where it never ended.
func (h *helper) answerReady(ctx context.Context, _ json.RawMessage) (any, error) {
	if h.server == nil {
		return nil, errNotStarted
	}
	failed := h.watched(ctx, h.server.WaitWritable)
	var r recovery
	l, err := h.log()
	if err != nil {
		r.Why = probe.OneLine(err.Error())
	} else {
		r = recovery{Consistent: l.consistent, Replayed: l.replayed, Last: l.last, Ended: l.ended, Timeline: l.timeline}
		if r.End, err = h.recovered(l); err != nil {
			r.Why = probe.OneLine(err.Error())
		}
	}
	if failed != nil {
		f := h.failure(failed)
		r.Failed = &f
	}
	return r, nil
}

func (h *helper) answerStop(ctx context.Context, _ json.RawMessage) (any, error) {
	if h.server == nil {
		return nil, errNotStarted
	}
	return struct{}{}, h.server.Stop(ctx, server.Fast)
}

// answerLook runs one check.
func (h *helper) answerLook(ctx context.Context, with json.RawMessage) (any, error) {
	if h.server == nil {
		return nil, errNotStarted
	}
	var q lookRequest
	if err := strictly(with, &q); err != nil {
		return nil, err
	}
	if q.Own != nil {
		c := q.Own.Run(ctx, h.now, h.conn(), q.Disaster)
		return seen{Verdict: c.Verdict, Detail: c.Detail}, nil
	}
	var s seen
	look := h.looks()[q.Check]
	if look == nil {
		return nil, fmt.Errorf("%w: %.40q is to be checked", errBadAnswer, q.Check)
	}
	c := probe.Timed(ctx, h.now, evidence.Check{}, q.Limit, func(ctx context.Context) (evidence.Verdict, string) { return look(ctx, &s) })
	s.Verdict, s.Detail = c.Verdict, c.Detail
	return s, nil
}

func (h *helper) looks() map[string]func(context.Context, *seen) (evidence.Verdict, string) {
	plain := func(look func(context.Context) (evidence.Verdict, string)) func(context.Context, *seen) (evidence.Verdict, string) {
		return func(ctx context.Context, _ *seen) (evidence.Verdict, string) { return look(ctx) }
	}
	return map[string]func(context.Context, *seen) (evidence.Verdict, string){
		"server opens": plain(h.opens), "fence": h.lookAtFence, "catalogue": plain(h.catalogue), "amcheck": plain(h.amcheck),
		"dump": plain(h.dumpAll), "checksum failures": plain(h.checksumFailures), "checksums": plain(h.allChecksums),
		tablesCheck: plain(h.compare),
	}
}

// errNotStarted means that the questions come in a wrong order.
var errNotStarted = errors.New("the server has not been started")

// log is what this start of the server has logged.
func (h *helper) log() (serverLog, error) {
	text, err := server.ReadForeign(h.want.LogDir, logName, mostLog)
	if err != nil {
		return serverLog{}, fmt.Errorf("read the server's log: %w", err)
	}
	return parseServerLog(string(text)), nil
}

func (h *helper) conn() probe.Conn {
	return probe.Conn{Host: h.want.DoorDir, Port: h.server.Port(), Dial: h.dial, Role: h.want.Role, Env: h.want.Env}
}

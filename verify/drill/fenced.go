package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/fence/escape"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// All that the drill knows of package fence stands in this file.

// serverView is what the restored server may see. Of the staging directory it can
// write to what is its own and to nothing else: what a later drill believes, the
// marker and what says that it was to be kept, lies beside that.
// Where there are no namespaces the rest of the fence holds as far as it can.
func (r *run) serverView() *fence.View {
	v := &fence.View{
		Root:     r.stage.path("root"),
		Writable: []string{r.stage.dataDir(), r.socket},
		Readable: []string{filepath.Dir(r.install.BinDir), r.stage.conf()},
		Binds:    map[string]string{},
		Limits:   limits(),
	}
	if _, err := os.Lstat(r.stage.tablespaces()); err == nil {
		v.Writable = append(v.Writable, r.stage.tablespaces())
	}
	for _, t := range r.plan.NewTablespaces {
		v.Binds[t.Path] = t.To
	}
	return v
}

// owner is the account for files and server, "" where it is ours. Under root it is
// one that owns nothing else on this host, unless the drill was told of one.
func (r *run) owner() (string, error) {
	if r.o.Owner != "" || os.Geteuid() != 0 {
		return r.o.Owner, nil
	}
	uid, gid, err := fence.OwnIDs()
	return fmt.Sprintf("%d:%d", uid, gid), err
}

// tryFence runs a program that does nothing behind a fence. The helper does it.
func tryFence(ctx context.Context, q tryRequest) error {
	cmd := exec.Command("/bin/true")
	cmd.Dir, cmd.Env = "/", []string{}
	if a := q.Account; a != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.UID, Gid: a.GID}}
	}
	f, err := fence.Command(ctx, cmd, q.Self, q.View)
	if err != nil {
		return err
	}
	defer f.Kill()
	if !f.Holds(fence.Mounts, fence.Network) {
		return errors.New(f.Why(fence.Mounts, fence.Network))
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, probe.LastLine(string(out)))
	}
	return nil
}

// raise makes the fence, tries to get out of it, and has the server start inside.
func (h *helper) raise(ctx context.Context, o *server.Options, s *started) (err error) {
	q := h.want
	v := *q.View
	if q.Account != nil && os.Geteuid() == 0 {
		v.UID, v.GID = q.Account.UID, q.Account.GID
	}
	if h.fence, err = fence.Start(ctx, q.Self, v); err != nil {
		return err
	}
	o.Launch = h.fence.Command
	for _, l := range h.fence.Layers() {
		s.Layers = append(s.Layers, evidence.Layer{Name: string(l.Layer), Held: l.Held, Reason: l.Reason})
	}
	tried, err := escape.Try(ctx, h.fence, q.Self, int(v.UID), int(v.GID))
	if err != nil {
		s.Why = probe.OneLine(err.Error())
		return ctx.Err()
	}
	for _, a := range tried {
		s.Tried = append(s.Tried, evidence.Attempt{What: a.What, Outcome: string(a.Outcome), Error: a.Error, Outside: a.Outside})
	}
	return nil
}

// noteTried takes over what was tried. Behind the fence nothing may have been
// reached: what was is missing from it.
func (r *run) noteTried(s started) {
	f := r.doc.Fence
	f.Layers, f.Tried, r.untried = s.Layers, s.Tried, s.Why
	if !r.fenced() {
		return
	}
	for _, a := range f.Tried {
		if a.Outcome == string(escape.Reached) {
			f.Missing = append(f.Missing, "from inside the fence this led out of it: "+a.What)
		}
	}
}

// fenced says whether the server is, or will be, behind the fence.
func (r *run) fenced() bool { return r.unfenced == "" }

// whyUnfenced says why there can be no fence; "" when there can. It is tried as the
// server will get it but for the directories that are not there yet.
func (r *run) whyUnfenced(ctx context.Context) (string, error) {
	if err := os.Mkdir(r.stage.path("root"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	v := fence.View{Root: r.stage.path("root"), Writable: []string{r.stage.dir}, Readable: []string{filepath.Dir(r.install.BinDir)}}
	err := r.helper.call(ctx, doFence, tryRequest{Account: r.account(), View: v, Self: r.o.Self}, nil)
	if _, failed := errors.AsType[*Failure](err); failed {
		return "this system does not allow one: " + probe.OneLine(err.Error()), nil
	}
	return "", err
}

func (r *run) serverUser() string {
	if o := r.plan.Owner; o != nil {
		return o.User
	}
	return r.o.By.User
}

// lookAtNamespaces says what the kernel keeps away.
func (r *run) lookAtNamespaces(f *evidence.Fence) error {
	if !r.fenced() {
		f.Network, f.Files = r.unfenced, r.unfenced
		return nil
	}
	seen, err := fence.Look(r.pid)
	if err != nil {
		return fmt.Errorf("the namespaces of the server cannot be seen: %w", err)
	}
	_, reached, _ := f.Ways()
	held := len(f.Tried) > 0 && reached == 0
	if !held {
		f.Network = "not isolated, as far as it was tried"
		f.Files = f.Network
	}
	if seen.Network {
		if held {
			f.Network = "isolated"
		}
		f.Proven = append(f.Proven, "a network of its own, without a way out")
	} else {
		f.Missing = append(f.Missing, "the server is in the network of this host")
	}
	allowed := append(r.serverView().Writable, r.newPaths()...)
	stray := slices.DeleteFunc(slices.Clone(seen.Mounts), func(path string) bool { return slices.Contains(allowed, path) })
	switch {
	case !seen.Files:
		f.Missing = append(f.Missing, "the server sees the files of this host")
	case len(stray) > 0:
		f.Missing = append(f.Missing, "the server can write to "+joined(stray))
	default:
		if held {
			f.Files = "isolated"
		}
		f.Proven = append(f.Proven, "nothing but the data directory, the tablespaces and the directory of the socket can be written to")
	}
	return nil
}

func (r *run) newPaths() []string {
	var out []string
	for _, t := range r.plan.NewTablespaces {
		out = append(out, t.Path)
	}
	return out
}

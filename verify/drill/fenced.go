package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/fence/escape"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Nearly all that the drill knows of package fence stands in this file.

// serverView is what the restored server may see. Of the staging directory it can
// write to what is its own and to nothing else: what a later drill believes, the
// marker and what says that it was to be kept, lies beside that.
// Where there are no namespaces the rest of the fence holds as far as it can.
func (r *run) serverView() *fence.View {
	v := &fence.View{
		Root:     r.stage.path("root"),
		Writable: []string{r.stage.dataDir(), r.socket, r.stage.tablespaces()},
		Readable: []string{filepath.Dir(r.install.BinDir), r.stage.conf()},
		Binds:    map[string]string{},
		Limits:   limits(),
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

// prepare makes what the server may see, before the fence shows it: the restore fills
// the directories.
func (r *run) prepare() error {
	if err := r.writeConf(); err != nil {
		return err
	}
	dirs := []string{r.stage.path("root"), r.stage.dataDir(), r.stage.tablespaces()}
	for _, t := range r.plan.NewTablespaces {
		dirs = append(dirs, t.To)
	}
	for i, dir := range dirs {
		mode := os.FileMode(0o700)
		if dir == r.stage.tablespaces() {
			mode = 0o755 // it stays ours: the server passes through it
		}
		err := os.Mkdir(dir, mode)
		if err == nil {
			err = os.Chmod(dir, mode) // whatever the umask is
		}
		if err != nil && !(errors.Is(err, os.ErrExist) && i > 2) { // two tablespaces may share one
			return fmt.Errorf("make what the server sees: %w", err)
		}
	}
	return r.makeSockets()
}

// raiseFence has a helper make the fence that the server will be in. Where it does
// not keep the server from files and network, that is noted, and told of the drill.
func (r *run) raiseFence(ctx context.Context) error {
	if r.helper == nil {
		if err := r.startHelper(); err != nil {
			return err
		}
	}
	r.raised, r.unfenced = raised{}, ""
	if err := r.helper.call(ctx, doFence, raiseRequest{Account: r.account(), View: *r.serverView(), Self: r.o.Self}, &r.raised); err != nil {
		return err
	}
	if why := r.raised.Unfenced; why != "" {
		r.unfenced = "this system does not allow one: " + probe.OneLine(why)
	}
	if !r.fenced() && len(r.plan.NewTablespaces) > 0 {
		return &UnfencedError{r.plan.NewTablespaces[0].Path, r.unfenced}
	}
	return nil
}

// tryFence has the helper try to get out of the fence, while this process goes on; the
// caller waits for it by the function. Nothing of the server's runs before that has
// returned.
func (r *run) tryFence(ctx context.Context) (wait func() error) {
	var err error
	done := make(chan struct{})
	r.tried = tried{}
	go func() {
		defer close(done)
		err = r.helper.call(ctx, doTry, nil, &r.tried)
	}()
	return func() error {
		<-done
		return err
	}
}

// raise makes the fence: the helper's part of raiseFence.
func (h *helper) raise(ctx context.Context, q raiseRequest) (raised, error) {
	v := q.View
	if q.Account != nil && os.Geteuid() == 0 {
		v.UID, v.GID = q.Account.UID, q.Account.GID
	}
	f, err := fence.Start(ctx, q.Self, v)
	switch {
	case errors.Is(err, fence.ErrUnsupported):
		return raised{Unfenced: err.Error()}, nil
	case err != nil:
		return raised{}, err
	}
	h.fence, h.view, h.self = f, v, q.Self
	out := raised{Unfenced: f.Why(fence.Mounts, fence.Network), Cgroups: f.Cgroups()}
	for _, l := range f.Layers() {
		out.Layers = append(out.Layers, evidence.Layer{Name: string(l.Layer), Held: l.Held, Reason: l.Reason})
	}
	return out, nil
}

// tryOut tries to get out of the fence: the helper's part of tryFence. A fence that no
// program can be run behind is an error.
func (h *helper) tryOut(ctx context.Context) (tried, error) {
	if h.fence == nil {
		return tried{Why: fence.ErrUnsupported.Error()}, nil
	}
	all, err := escape.Try(ctx, h.fence, h.self, int(h.view.UID), int(h.view.GID))
	switch {
	case ctx.Err() != nil:
		return tried{}, context.Cause(ctx)
	case errors.Is(err, escape.ErrNotRun):
		return tried{}, fmt.Errorf("no program can be run behind the fence: %w", err)
	case err != nil:
		return tried{Why: probe.OneLine(err.Error())}, nil
	}
	var t tried
	for _, a := range all {
		t.Tried = append(t.Tried, evidence.Attempt{What: a.What, Outcome: string(a.Outcome), Error: a.Error, Outside: a.Outside})
	}
	return t, nil
}

// noteTried takes over what was tried. Behind the fence nothing may have been
// reached: what was is missing from it.
func (r *run) noteTried() {
	f := r.doc.Fence
	f.Layers, f.Tried, r.untried = r.raised.Layers, r.tried.Tried, r.tried.Why
	if !r.fenced() {
		if slices.ContainsFunc(f.Tried, func(a evidence.Attempt) bool { return a.What == escape.OwnFile && a.Outcome == string(escape.Reached) }) {
			r.doc.Notes = append(r.doc.Notes, "nothing kept the restored server from files that only this account may read: the recovery key is one if it lies in a file")
		}
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

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// deniedHint names the account that may not do something, and the one that owns
// what it is about: "run it as postgres" would mislead where it does.
func deniedHint(err error) (string, bool) {
	if !errors.Is(err, fs.ErrPermission) {
		return "", false
	}
	me := accountName(os.Geteuid())
	e, ok := errors.AsType[*fs.PathError](err)
	if !ok || !filepath.IsAbs(e.Path) {
		return fmt.Sprintf("this runs as %s, which may not do that: run it as the user that owns the files, mostly postgres, or give %s the right", me, me), true
	}
	place, owner := nearestOwned(e.Path)
	if place == e.Path && owner != me {
		return fmt.Sprintf("this runs as %s, and %s belongs to %s: run it as %s, or give %s the right", me, place, owner, owner, me), true
	}
	if owner == me {
		return fmt.Sprintf("this runs as %s, which owns %s and still may not: look at its mode, and at the directories above it", me, place), true
	}
	return fmt.Sprintf("this runs as %s, which may not do that in %s of %s: make the directory for it (install -d -o %s %s), or run it as %s",
		me, place, owner, me, filepath.Dir(e.Path), owner), true
}

// nearestOwned is the path, or the nearest above it that can be looked at, and
// who owns that.
func nearestOwned(path string) (place, owner string) {
	for place = path; ; place = filepath.Dir(place) {
		info, err := os.Stat(place)
		if err != nil && place != filepath.Dir(place) {
			continue
		}
		if err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return place, accountName(int(st.Uid))
			}
		}
		return place, "another account"
	}
}

func accountName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}

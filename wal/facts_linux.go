package wal

import (
	"io/fs"
	"syscall"
)

// factsOf reads what identifies a file. Nobody can set a change time, not even
// its owner, and writing, renaming, linking and restoring all move it.
func factsOf(info fs.FileInfo) fileFacts {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return fileFacts{}
	}
	return fileFacts{
		dev: uint64(st.Dev), inode: uint64(st.Ino), size: info.Size(),
		modified: info.ModTime().UnixNano(), changed: st.Ctim.Nano(),
	}
}

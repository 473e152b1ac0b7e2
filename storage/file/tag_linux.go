package file

import (
	"io/fs"
	"syscall"
)

// tagOf is made of the inode and its change time. Writing moves that, renaming and
// setting the time of the last write too, and nobody can set it back without the
// clock of the machine (inode(7), "st_ctime").
func tagOf(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	const mix = 0x9e3779b97f4a7c15 // odd, so that no two inodes share a product
	return uint64(st.Ctim.Nano()) ^ uint64(st.Ino)*mix
}

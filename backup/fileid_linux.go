package backup

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// fileID tells a file from one that was there before it under the same path:
// its inode, and when that was made. "" where the file system does not say.
func fileID(path string) string {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	made := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	return fmt.Sprintf("%x.%x", st.Ino, made.UnixNano())
}

//go:build unix

package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Room says how many bytes this program may still write to the file system that
// folder lies on, and how large that is.
func Room(folder string) (free, size uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return 0, 0, fmt.Errorf("room for %s: %w", folder, err)
	}
	block := uint64(s.Bsize)
	return s.Bavail * block, s.Blocks * block, nil
}

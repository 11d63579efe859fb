package disk

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// Room says how many bytes this program may still write to the volume that
// folder lies on, and how large that is.
func Room(folder string) (free, size uint64, err error) {
	name, err := windows.UTF16PtrFromString(folder)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(name, &free, &size, nil)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("room for %s: %w", folder, err)
	}
	return free, size, nil
}

package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockOffset is the byte that is locked, far behind the end of any file: Windows
// keeps others from reading what is locked, a backup of the folder for instance.
const lockOffset = 0x7fffffff << 32

// flock takes the exclusive lock at once or not at all, the shared one when it can
// be had. The lock is the open file's, not the process's: of two in one process one waits.
func flock(f *os.File, exclusive bool) error {
	var how uint32
	if exclusive {
		how = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &windows.Overlapped{OffsetHigh: lockOffset >> 32})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	return err
}

package durable

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked: another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// Lock takes the exclusive lock on the file at path, which it makes, and holds
// it until the returned file is closed or the process ends, however it ends.
func Lock(path string) (*os.File, error) { return lock(path, true) }

// LockShared takes a lock that others may share, as Lock does, and waits while
// somebody holds the exclusive one.
func LockShared(path string) (*os.File, error) { return lock(path, false) }

func lock(path string, exclusive bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		if err = flock(f, exclusive); err == nil {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

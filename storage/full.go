package storage

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// ErrFull: there is no room on the disk, or none that this program may take.
// What was to be stored is not; what was acknowledged before stays. Trying
// again helps when somebody has made room.
var ErrFull = errors.New("the disk is full")

// Full puts ErrFull into err's chain where its cause is a full disk, and
// returns any other error as it is.
func Full(err error) error {
	if err == nil || errors.Is(err, ErrFull) {
		return err
	}
	if cause := syscall.Errno(0); errors.As(err, &cause) && slices.Contains(fullCauses, cause) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

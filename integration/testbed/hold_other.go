//go:build !unix

package testbed

import (
	"errors"
	"os"
)

// Hold is not to be had here.
func Hold(*os.Process) error { return errors.ErrUnsupported }

// Release is not to be had here.
func Release(*os.Process) error { return errors.ErrUnsupported }

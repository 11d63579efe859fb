//go:build unix

package storage

import "syscall"

// fullCauses are no space on the device, and no more of it for this user.
var fullCauses = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT}

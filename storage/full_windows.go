package storage

import "syscall"

// fullCauses are ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL.
var fullCauses = []syscall.Errno{39, 112}

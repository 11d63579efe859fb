//go:build unix

package main

import "syscall"

// errAddressInUse is what a busy port is refused with.
const errAddressInUse = syscall.EADDRINUSE

//go:build unix

package client

import "syscall"

// errRefused is what a port says that nobody listens at.
const errRefused = syscall.ECONNREFUSED

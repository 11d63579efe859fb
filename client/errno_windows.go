package client

import "golang.org/x/sys/windows"

// errRefused is what a port says that nobody listens at; syscall.ECONNREFUSED is
// another number that Windows never says.
const errRefused = windows.WSAECONNREFUSED

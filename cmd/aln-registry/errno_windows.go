package main

import "golang.org/x/sys/windows"

// errAddressInUse is what a busy port is refused with; syscall.EADDRINUSE is
// another number that Windows never says.
const errAddressInUse = windows.WSAEADDRINUSE

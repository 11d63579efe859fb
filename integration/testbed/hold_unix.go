//go:build unix

package testbed

import (
	"os"
	"syscall"
)

// Hold keeps a process from running until Release, as a host that sleeps does.
func Hold(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// Release lets a process run again.
func Release(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

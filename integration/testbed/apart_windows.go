package testbed

import "syscall"

func apart() *syscall.SysProcAttr { return nil }

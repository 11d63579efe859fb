package testbed

import (
	"errors"
	"os"
)

var (
	errLocked   = errors.New("locked by another process")
	errNoEngine = errors.New("the engines of the tests do not run on Windows")
)

func tryLock(string) (*os.File, error) { return nil, errNoEngine }

func waitLock(string) (*os.File, error) { return nil, errNoEngine }

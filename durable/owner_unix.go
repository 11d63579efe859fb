//go:build unix

package durable

import (
	"fmt"
	"io/fs"
	"os"
)

func exposed(f *os.File, public bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	const group = fs.FileMode(0o070)
	mode := info.Mode().Perm()
	if private(mode) || public && private(mode&^group) {
		return nil
	}
	mend := "chmod 600 " + f.Name()
	if info.IsDir() {
		mend = "chmod 700 " + f.Name()
	}
	return &ExposedError{How: fmt.Sprintf("its mode is %04o", mode), Mend: mend}
}

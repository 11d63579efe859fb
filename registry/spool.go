package registry

import (
	"fmt"
	"os"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

// spool is the file in which an upload waits while it is checked. It remembers
// that it could not be written: who checks what is copied to it would blame the upload.
type spool struct {
	*os.File
	failed error
}

// openSpool makes one in folder ("" is the system's). It is gone with this
// process, however that ends.
func openSpool(folder string) (*spool, error) {
	f, err := durable.CreateUnnamed(folder)
	if err != nil {
		return nil, fmt.Errorf("spool the upload: %w", storage.Full(err))
	}
	return &spool{File: f}, nil
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	if err != nil {
		s.failed = fmt.Errorf("spool the upload: %w", storage.Full(err))
		return n, s.failed
	}
	return n, nil
}

package disk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"phoenix-lab.org/aln-registry/storage"
)

// Probe implements storage.Blobs. Its file lies where files being written do.
func (s *Store) Probe(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.probe([]byte("can this be written and read?")); err != nil {
		return fmt.Errorf("probe the blob folder: %w", storage.Full(err))
	}
	return nil
}

func (s *Store) probe(data []byte) error {
	f, err := os.CreateTemp(s.incoming(), "probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	read, err := io.ReadAll(io.LimitReader(f, int64(len(data))+1))
	if err == nil && !bytes.Equal(read, data) {
		err = storage.ErrCorrupt
	}
	return err
}

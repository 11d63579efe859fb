package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
)

// Where all is in engines, the room that is told of is that of the uploads under way,
// wherever --data put them.
func TestTheRoomIsThatOfWhatIsWritten(t *testing.T) {
	folder := t.TempDir()
	missing := filepath.Join(folder, "missing") // what cannot be asked for says where it was asked
	for name, c := range map[string]struct {
		node node
		want error
	}{
		"the data folder":   {node{folder: folder, config: registry.Config{Spool: missing}}, nil},
		"the spool":         {node{config: registry.Config{Spool: folder}}, nil},
		"a spool elsewhere": {node{config: registry.Config{Spool: missing}}, fs.ErrNotExist},
		"the system's":      {node{}, nil},
	} {
		if _, size, err := c.node.room(); !errors.Is(err, c.want) || (err == nil) != (size > 0) {
			t.Errorf("%s: %d, %v; want %v", name, size, err, c.want)
		}
	}
}

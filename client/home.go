package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"phoenix-lab.org/aln-registry/durable"
)

// Folders below the home. Everything in it is the user's alone.
const (
	folderKeys       = "keys"
	folderRegistries = "registries"
	folderSessions   = "sessions"
	folderConflicts  = "evidence"

	folderMode = 0o700
	fileMode   = 0o600

	// maxHomeFile bounds pins and cached sessions, in bytes.
	maxHomeFile = 64 << 10
	// lockPoll is how often a lock that another process holds is tried again.
	lockPoll = 20 * time.Millisecond
)

// Home is the folder ALN_HOME: keys/<name>.jwk, registries/<id>.json (pins),
// sessions/<id>.json (read sessions) and evidence/<id>/….json (conflicts). Several processes may use it at once.
type Home struct{ path string }

// DefaultHome returns the folder used when the environment variable ALN_HOME
// (the argument) is empty: aln-registry in the user's configuration folder.
func DefaultHome(alnHome string) (string, error) {
	if alnHome != "" {
		return filepath.Abs(alnHome)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no configuration folder; set ALN_HOME: %w", err)
	}
	return filepath.Join(config, "aln-registry"), nil
}

// OpenHome returns the home at path, which need not exist yet: the first write makes it.
func OpenHome(path string) Home { return Home{path: path} }

// Path returns the home's folder.
func (h Home) Path() string { return h.path }

func (h Home) file(folder, name string) string { return filepath.Join(h.path, folder, name) }

// make makes a folder of the home, and the home, with mode 0700.
func (h Home) make(folder string) error {
	return durable.MkdirAll(filepath.Join(h.path, folder), folderMode)
}

// fileID names the file about a registry: its index URL, shortened and without
// characters that file systems mind.
func fileID(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// readFile reads a file of the home of at most limit bytes; fs.ErrNotExist when there is none.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := durable.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, nil
}

// lock keeps other processes (and goroutines) that lock the same name in folder
// out until unlock is called. It waits as long as ctx allows. The lock dies with
// the process; its empty file stays.
func (h Home) lock(ctx context.Context, folder, name string) (unlock func(), err error) {
	if err := h.make(folder); err != nil {
		return nil, err
	}
	path := h.file(folder, name+".lock")
	for {
		f, err := durable.Lock(path)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, durable.ErrLocked):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another process with %s: %w", path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// names returns the files in folder that end in suffix, without it, sorted.
func (h Home) names(folder, suffix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(h.path, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", folder, err)
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) == suffix && name[0] != '.' {
			names = append(names, name[:len(name)-len(suffix)])
		}
	}
	return names, nil
}

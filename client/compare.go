package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// ErrGrew: the log grew while something was compared with it; compare again.
var ErrGrew = errors.New("the log grew meanwhile; run this again")

// maxIndexFile bounds one index file, in bytes.
const maxIndexFile = 64 << 20

// CompareIndex holds what the hosted index serves against a replayed log: each
// crate's versions in order, their checksums, times and yanks, and no other lines. It
// returns the differences in words. ErrGrew when there are some, but the log
// has grown since it was replayed.
func (r *Registry) CompareIndex(ctx context.Context, replayed verify.Replayed) ([]string, error) {
	crates, err := replayed.Crates()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(crates))
	for name := range crates {
		names = append(names, name)
	}
	sort.Strings(names)
	differences := []string{}
	for _, name := range names {
		file, err := r.indexFile(ctx, name)
		if err != nil {
			return nil, err
		}
		differences = append(differences, compareCrate(name, crates[name], file)...)
	}
	if len(differences) == 0 {
		return differences, nil
	}
	view, err := r.View(ctx)
	if err != nil {
		return nil, err
	}
	if view.Checkpoint().Size > replayed.Size {
		return nil, ErrGrew
	}
	return differences, nil
}

// indexFile is empty where the index has none.
func (r *Registry) indexFile(ctx context.Context, name string) ([]byte, error) {
	file, _, err := r.read(ctx, "/index/"+cargo.IndexPath(name), maxIndexFile)
	var refused *APIError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	return file, err
}

func compareCrate(name string, logged []verify.CrateVersion, file []byte) (differences []string) {
	lines := strings.SplitAfter(string(file), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	for i, want := range logged {
		if i >= len(lines) {
			differences = append(differences, fmt.Sprintf("%s@%s is in the log (entry %d) but not in the index", name, want.Version, want.Index))
			continue
		}
		line, err := cargo.ParseLine([]byte(lines[i]))
		switch {
		case err != nil:
			differences = append(differences, fmt.Sprintf("%s line %d: %v", name, i+1, err))
		case line.Name != want.Name || line.Vers != want.Version:
			differences = append(differences, fmt.Sprintf("%s line %d is about %s@%s, the log has %s@%s there", name, i+1, line.Name, line.Vers, want.Name, want.Version))
		case line.Cksum != want.CID.Hex():
			differences = append(differences, fmt.Sprintf("%s@%s: the index says checksum %s, the log %s", name, want.Version, line.Cksum, want.CID.Hex()))
		case line.Pubtime != want.Time.UTC().Format(time.RFC3339):
			differences = append(differences, fmt.Sprintf("%s@%s: the index says it was published at %s, the log at %s", name, want.Version, line.Pubtime, want.Time.UTC().Format(time.RFC3339)))
		case line.Yanked != want.Yanked:
			differences = append(differences, fmt.Sprintf("%s@%s: the index says yanked %t, the log %t", name, want.Version, line.Yanked, want.Yanked))
		}
	}
	if extra := len(lines) - len(logged); extra > 0 {
		differences = append(differences, fmt.Sprintf("%s: %d lines of the index are not in the log", name, extra))
	}
	return differences
}

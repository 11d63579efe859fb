package registry

import (
	"context"
	"errors"
	"strings"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// listBlobs calls each with every blob that is stored, and stray with whatever else lies there.
func listBlobs(ctx context.Context, of storage.Inventory, each func(storage.Stored) error, stray func(error)) error {
	for b, err := range of.All(ctx, storage.CID{}) {
		if errors.Is(err, storage.ErrStray) {
			stray(err)
			continue
		}
		if err != nil {
			return err
		}
		if err := each(b); err != nil {
			return err
		}
	}
	return nil
}

// hasBlobs reports whether any blob is stored.
func hasBlobs(ctx context.Context, of storage.Inventory) (bool, error) {
	for _, err := range of.All(ctx, storage.CID{}) {
		if !errors.Is(err, storage.ErrStray) {
			return err == nil, err
		}
	}
	return false, nil
}

// suffererOf is what a key of state is about, as people call it; "" where another key of
// the same entry says it.
func suffererOf(key string) string {
	family, rest, _ := strings.Cut(key, "/")
	switch family {
	case "version":
		for _, kind := range record.Kinds() {
			of, ours := strings.CutPrefix(key, versionPrefixes[kind])
			if name, version, ok := strings.Cut(of, "/"); ours && ok {
				return versionName(kind, name, version)
			}
		}
	case "artifact":
		return rest
	case "head":
		return ""
	}
	return key
}

package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// IndexFile is a crate's index file, ready to be sent. It is shared: nobody changes it.
type IndexFile struct {
	// Bytes has a line per version in the order of publication, `yanked` as it is now.
	Bytes []byte
	// Hash is the hex sha256 of Bytes.
	Hash string
	// Packed is Bytes compressed by gzip, nil where that is not worth it.
	Packed []byte
	// name is the crate's in lower case.
	name string
}

// packFrom is the size in bytes from which compressing is worth it.
const packFrom = 1024

// IndexFile returns the index file of the crate whose name, in lower case, is
// lowerName. ErrNotFound when there is none, also for other spellings with - and _.
func (r *Registry) IndexFile(ctx context.Context, lowerName string) (*IndexFile, error) {
	canonical := cargo.CanonicalName(lowerName)
	value, err := r.cache.get(ctx, thing{indexFamily, canonical}, r.Size, func(ctx context.Context, at int64) (found, error) {
		file, err := r.readIndexFile(ctx, canonical, at)
		if err != nil || file == nil {
			return found{}, err
		}
		return found{file, int64(len(file.Bytes) + len(file.Packed) + len(file.Hash))}, nil
	})
	if err != nil {
		return nil, err
	}
	file, ok := value.(*IndexFile)
	if !ok || file.name != lowerName {
		return nil, ErrNotFound
	}
	return file, nil
}

// readIndexFile makes the index file of a crate by its canonical name, nil when it has no version.
func (r *Registry) readIndexFile(ctx context.Context, canonical string, at int64) (*IndexFile, error) {
	lines, err := r.Catalog.CrateLines(ctx, canonical, at)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	yanked, err := r.yankedVersions(ctx, canonical, at)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	var name string
	for _, l := range lines {
		line, err := cargo.ParseLine(l.Line)
		if err != nil {
			return nil, err
		}
		name = strings.ToLower(line.Name)
		line.Yanked = yanked[l.Version]
		text.Write(line.Marshal())
	}
	file := &IndexFile{Bytes: text.Bytes(), name: name}
	sum := sha256.Sum256(file.Bytes)
	file.Hash = hex.EncodeToString(sum[:])
	file.Packed, err = pack(file.Bytes)
	return file, err
}

// pack compresses what is worth it.
func pack(plain []byte) ([]byte, error) {
	if len(plain) < packFrom {
		return nil, nil
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

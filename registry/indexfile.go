package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// IndexFile is a crate's index file, ready to be sent. It is shared: nobody changes it.
type IndexFile struct {
	// Plain has a line per version in the order of publication, `yanked` as it is now.
	Plain Representation
	// Packed is Plain compressed by gzip, without Bytes where that is not worth it.
	Packed Representation
	// name is the crate's in lower case.
	name string
}

// Representation is a body with the values of the headers that tell of it.
type Representation struct {
	Bytes []byte
	// ETag is a strong one (RFC 9110 §8.8.3), made of the hex sha256 of the plain bytes.
	ETag, ContentLength []string
}

// Represent makes the representations of a body; packed is nil where there is none.
func Represent(plain, packed []byte) (Representation, Representation) {
	sum := sha256.Sum256(plain)
	hash := hex.EncodeToString(sum[:])
	return representation(plain, `"`+hash+`"`), representation(packed, `"`+hash+`-gzip"`)
}

func representation(b []byte, etag string) Representation {
	return Representation{Bytes: b, ETag: []string{etag}, ContentLength: []string{strconv.Itoa(len(b))}}
}

const (
	// packFrom is the size in bytes from which compressing is worth it.
	packFrom = 1024
	// headerBytes is about what a file's headers and their tags take.
	headerBytes = 512
)

// IndexFile returns the index file of the crate whose name, in lower case, is
// lowerName. ErrNotFound when there is none, also for other spellings with - and _.
func (r *Registry) IndexFile(ctx context.Context, lowerName string) (*IndexFile, error) {
	canonical := cargo.CanonicalName(lowerName)
	value, err := r.cache.get(ctx, thing{family: indexFamily, name: canonical}, r.Size, func(ctx context.Context, at int64) (found, error) {
		file, err := r.readIndexFile(ctx, canonical, at)
		if err != nil || file == nil {
			return found{}, err
		}
		return found{file, int64(len(file.Plain.Bytes) + len(file.Packed.Bytes) + headerBytes)}, nil
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
	packed, err := pack(text.Bytes())
	if err != nil {
		return nil, err
	}
	file := &IndexFile{name: name}
	file.Plain, file.Packed = Represent(text.Bytes(), packed)
	return file, nil
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

package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
)

// IndexFile is a crate's index file, ready to be sent. It is shared: nobody changes it.
type IndexFile struct {
	// Plain has a line per version in the order of publication, `yanked` as it is now.
	Plain Representation
	// Packed is Plain compressed by gzip, without Bytes where that is not worth it.
	Packed Representation
	// name is the crate's in lower case, what its name for the audit trail.
	name, what string
	// of are the versions, lines where each stands. Views have neither.
	of    *lineage
	lines []indexLine
	// same notes that who reads under no grant sees the file as it is: [0] under
	// nothing, [1] auditors.
	same [2]atomic.Pointer[sameness]
}

// indexLine is where a version stands in a file.
type indexLine struct {
	// end is behind its line feed. From yanked to rest stands what says that it is not
	// yanked, nothing where that is not said at all; 0 where it says that it is.
	end, yanked, rest int
	// version is its place in the lineage.
	version int
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

// indexFile is a crate's index file as it is, by the crate's canonical name; nil
// when there is none. Only views of it are anybody's to see.
func (r *Registry) indexFile(ctx context.Context, canonical string) (*IndexFile, error) {
	value, err := r.cache.get(ctx, thing{family: indexFamily, name: canonical}, r.Size, func(ctx context.Context, at int64) (found, error) {
		file, err := r.readIndexFile(ctx, canonical, at)
		if err != nil || file == nil {
			return found{}, err
		}
		return found{file, file.bytes() + file.of.bytes()}, nil
	})
	if err != nil || value == nil {
		return nil, err
	}
	return value.(*IndexFile), nil
}

func (f *IndexFile) bytes() int64 {
	return int64(len(f.Plain.Bytes) + len(f.Packed.Bytes) + headerBytes)
}

// readIndexFile makes the index file of a crate by its canonical name, nil when it has no version.
func (r *Registry) readIndexFile(ctx context.Context, canonical string, at int64) (*IndexFile, error) {
	lines, err := r.Catalog.CrateLines(ctx, canonical, at)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	of, err := r.readLineage(ctx, record.KindCrate, canonical, at)
	if err != nil {
		return nil, err
	}
	file := &IndexFile{of: of, lines: make([]indexLine, 0, len(lines))}
	var text bytes.Buffer
	for _, l := range lines {
		line, err := cargo.ParseLine(l.Line)
		if err != nil {
			return nil, err
		}
		version := -1
		if of != nil {
			version = of.find(l.Version)
		}
		if version < 0 { // what no record published is nobody's to see
			return nil, fmt.Errorf("the index line of %s %s has no version in the state", canonical, l.Version)
		}
		file.name, file.what = strings.ToLower(line.Name), string(record.KindCrate)+"/"+strings.ToLower(line.Name)
		line.Yanked = of.versions[version].Yanked
		place := indexLine{version: version}
		raw := line.Marshal()
		if !line.Yanked {
			place.rest = text.Len() + bytes.Index(raw, notYanked) + len(notYanked)
			place.yanked = place.rest - len("false")
		}
		text.Write(raw)
		place.end = text.Len()
		file.lines = append(file.lines, place)
	}
	packed, err := pack(text.Bytes())
	if err != nil {
		return nil, err
	}
	file.Plain, file.Packed = Represent(text.Bytes(), packed)
	return file, nil
}

// notYanked stands once in the line of a version that is not yanked: inside of a
// text its quotes would be escaped, and no other member has that name and value.
var notYanked = []byte(`"yanked":false`)

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

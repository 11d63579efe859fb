package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

const (
	// maxAnswer is how many bytes an answer has that is decoded: a list of pageSize
	// keys of 1 KiB, each byte written as three, and what is said of each.
	maxAnswer = 4 << 20
	// maxTags is how many tags: the shortest that makes minio-go remember an object
	// has 11 bytes, and takes half a kilobyte.
	maxTags = 64 * pageSize
)

// errEndless: minio-go decodes all of an answer before it says anything about it.
var errEndless = errors.New("the store's answer is longer than any may be")

// isContent reports whether an answer is an object's bytes, which whoever asked
// for them reads as they come.
func isContent(r *http.Request, status int) bool {
	return r.Method == http.MethodGet && r.URL.RawQuery == "" && (status == http.StatusOK || status == http.StatusPartialContent)
}

// boundedBody is an answer that is to be decoded.
type boundedBody struct {
	io.ReadCloser
	bytes, tags int // that may still come
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.bytes < 0 || b.tags < 0 {
		return 0, errEndless
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.bytes+1)]) // one more tells that there are too many
	b.bytes -= n
	b.tags -= bytes.Count(p[:n], []byte{'<'})
	if b.bytes < 0 || b.tags < 0 {
		return 0, errEndless
	}
	return n, err
}

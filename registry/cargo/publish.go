package cargo

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/go-json-experiment/json"
)

const maxMetadataBytes = 1 << 20

// Publish is what the registry takes from the JSON of a publish request. All
// else that cargo sends there is said again, and signed, inside the tarball.
type Publish struct {
	Name string
	Vers Version
}

// ReadPublish reads the body of PUT /api/v1/crates/new (Cargo reference, web
// API, "Publish"): a length and JSON, a length and the .crate, both lengths
// 32-bit little-endian. It returns when the .crate begins; crate yields its
// size bytes and, instead of io.EOF, an error matching ErrFrame when the body
// is shorter or goes on after them. Errors match ErrFrame, ErrTooLarge, ErrName
// or ErrVersion, or are those of r.
func ReadPublish(r io.Reader, l Limits) (p Publish, crate io.Reader, size int64, err error) {
	l = l.orDefault()
	length, err := readLength(r)
	if err != nil {
		return Publish{}, nil, 0, err
	}
	if length > maxMetadataBytes {
		return Publish{}, nil, 0, problem(ErrTooLarge, CodeTooLarge, "the publish request announces %d bytes of metadata; at most %d are allowed", length, maxMetadataBytes)
	}
	metadata := make([]byte, length)
	if _, err := io.ReadFull(r, metadata); err != nil {
		return Publish{}, nil, 0, truncated(err)
	}
	if p, err = parseMetadata(metadata); err != nil {
		return Publish{}, nil, 0, err
	}
	if size, err = readLength(r); err != nil {
		return Publish{}, nil, 0, err
	}
	if size > l.CrateBytes {
		return Publish{}, nil, 0, problem(ErrTooLarge, CodeTooLarge, "the crate has %d bytes; this registry takes at most %d; leave files out with `exclude` in Cargo.toml", size, l.CrateBytes)
	}
	if size == 0 {
		return Publish{}, nil, 0, problem(ErrFrame, CodeFrame, "the publish request carries an empty crate; send what `cargo package` made")
	}
	return p, &crateReader{from: r, left: size}, size, nil
}

func readLength(r io.Reader) (int64, error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, truncated(err)
	}
	return int64(binary.LittleEndian.Uint32(b[:])), nil
}

// truncated turns an early end into a Problem and lets other errors through.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Problem{Kind: ErrFrame, Code: CodeFrame, Text: "the publish request ends before what it announces; send it again", Cause: err}
	}
	return err
}

func parseMetadata(data []byte) (Publish, error) {
	var raw struct {
		Name *string `json:"name"`
		Vers *string `json:"vers"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Publish{}, &Problem{Kind: ErrFrame, Code: CodeMetadata, Text: "the publish request's metadata is not JSON as cargo sends it: " + short(err), Cause: err}
	}
	if raw.Name == nil || raw.Vers == nil {
		return Publish{}, problem(ErrFrame, CodeMetadata, "the publish request's metadata must hold name and vers")
	}
	if err := ValidateName(*raw.Name); err != nil {
		return Publish{}, err
	}
	vers, err := ParseVersion(*raw.Vers)
	return Publish{Name: *raw.Name, Vers: vers}, err
}

// crateReader yields exactly left bytes and then demands the end of the body.
type crateReader struct {
	from io.Reader
	left int64
	err  error // what every further Read answers
}

// Read implements io.Reader.
func (c *crateReader) Read(p []byte) (int, error) {
	if c.err != nil || len(p) == 0 {
		return 0, c.err
	}
	if c.left == 0 {
		c.err = c.end()
		return 0, c.err
	}
	n, err := c.from.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err == nil || c.left == 0 && errors.Is(err, io.EOF) {
		return n, nil // at zero, the next Read looks for the end
	}
	c.err = truncated(err)
	return n, c.err
}

// end tells the end of the body from bytes that follow the crate.
func (c *crateReader) end() error {
	switch n, err := io.ReadFull(c.from, make([]byte, 1)); {
	case n > 0:
		return problem(ErrFrame, CodeFrame, "the publish request goes on after the crate; its lengths do not fit its content")
	case errors.Is(err, io.EOF):
		return io.EOF
	default:
		return err
	}
}

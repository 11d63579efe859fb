package cargo

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
)

const (
	maxManifestBytes = 1 << 20
	maxReadmeBytes   = 512 << 10
	maxEarlyBytes    = 4 << 20  // of files kept until the manifest says which is the README
	ratioFloor       = 16 << 20 // unpacked bytes below which the compression ratio is not looked at
)

// Crate is what a checked tarball says of itself.
type Crate struct {
	Name    string
	Version Version

	Dependencies []Dependency // normal, dev, build; then the same per target; each by name
	Features     map[string][]string

	Links, RustVersion                  string
	Description, License, LicenseFile   string
	Homepage, Documentation, Repository string
	Keywords, Categories                []string

	ReadmePath string // below <name>-<version>/, "" where there is none
	Readme     []byte // nil where there is none, or more than 512 KiB of it

	CompressedBytes int64 // of the .crate
	UnpackedBytes   int64 // of all files
	Files           int   // regular files

	readmes []string // paths at which the README may be, best first
}

// Inspect reads a .crate and checks it against all rules for tarballs: exactly
// one gzip member around a tar archive of regular files and folders in the
// folder <name>-<version>, with paths that unpack alike on every file system,
// within the limits, and one Cargo.toml that is about exactly this name and
// version. It streams, holding no file but the manifest and README candidates
// (some MiB). It reads r to its end, after a refusal too (up to
// l.CrateBytes), so that a caller can hash what passes.
//
// Errors match ErrName, ErrVersion, ErrTooLarge, ErrTarball or ErrManifest, or
// are those of r.
func Inspect(r io.Reader, name, version string, l Limits) (*Crate, error) {
	l = l.orDefault()
	if err := ValidateName(name); err != nil {
		return nil, err
	}
	if _, err := ParseVersion(version); err != nil {
		return nil, err
	}
	in := &crateInput{r: r, most: l.CrateBytes}
	c, err := inspect(in, name, version, l)
	if err != nil {
		// The refusal is what the caller is told; a failure to drain changes nothing about it.
		_, _ = io.CopyN(io.Discard, r, l.CrateBytes)
		return nil, tarballProblem(err)
	}
	c.CompressedBytes = in.n
	return c, nil
}

func inspect(in *crateInput, name, version string, l Limits) (*Crate, error) {
	buffered := bufio.NewReader(in) // gzip takes from it byte by byte, so what follows the member stays in it
	head, err := buffered.Peek(4)
	if err != nil {
		return nil, err
	}
	flags := head[3] // before the reader moves on
	member, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, err
	}
	if flags&0xe0 != 0 { // RFC 1952 §2.3.1.2: reserved; Go's reader passes over them, cargo's does not
		return nil, problem(ErrTarball, CodeGzip, "the crate's gzip header has reserved flags set; build it with `cargo package`")
	}
	member.Multistream(false)
	c, err := newScan(&unpackMeter{r: member, in: in, l: l}, name, version, l).run()
	if err != nil {
		return nil, err
	}
	switch _, err := buffered.ReadByte(); {
	case err == nil:
		return nil, problem(ErrTarball, CodeGzip, "something follows the gzip stream of the crate; build it with `cargo package`")
	case err != io.EOF:
		return nil, err
	}
	return c, nil
}

// scan is one pass over a tar archive.
type scan struct {
	name, version string
	tar           tarReader
	tree          tree
	crate         *Crate // nil until Cargo.toml was read
	kept          map[string][]byte
	keptBytes     int64
	files         int
	fileBytes     int64
}

func newScan(r io.Reader, name, version string, l Limits) *scan {
	return &scan{
		name: name, version: version, tar: tarReader{r: r},
		tree: tree{root: name + "-" + version, l: l, nodes: map[string]node{}},
		kept: map[string][]byte{},
	}
}

func (s *scan) run() (*Crate, error) {
	for {
		err := s.step()
		if errors.Is(err, io.EOF) {
			return s.finish()
		}
		if err != nil {
			return nil, err
		}
	}
}

// step takes one entry; io.EOF after the last.
func (s *scan) step() error {
	entry, err := s.tar.next()
	if err != nil {
		return err
	}
	below, err := s.tree.add(entry)
	if err != nil || entry.folder {
		return err
	}
	s.files++
	s.fileBytes += entry.size
	return s.file(below, entry.size)
}

// file reads the manifest, and what is or may become the README.
func (s *scan) file(below string, size int64) error {
	if below == "Cargo.toml" {
		if size > maxManifestBytes {
			return problem(ErrTooLarge, CodeTooLarge, "Cargo.toml has %d bytes; at most %d are allowed", size, maxManifestBytes)
		}
		data, err := io.ReadAll(&s.tar)
		if err != nil {
			return err
		}
		s.crate, err = parseManifest(data, s.name, s.version)
		return err
	}
	if s.crate != nil && !slices.Contains(s.crate.readmes, below) {
		return nil
	}
	if size > maxReadmeBytes || s.keptBytes+size > maxEarlyBytes {
		return nil
	}
	data, err := io.ReadAll(&s.tar)
	s.kept[below], s.keptBytes = data, s.keptBytes+size
	return err
}

func (s *scan) finish() (*Crate, error) {
	if s.crate == nil {
		return nil, problem(ErrManifest, CodeManifest, "the crate holds no file %s; build it with `cargo package`", quote(path.Join(s.tree.root, "Cargo.toml")))
	}
	c := s.crate
	c.Files, c.UnpackedBytes = s.files, s.fileBytes
	for _, readme := range c.readmes {
		if n, ok := s.tree.nodes[fold(s.tree.root+"/"+readme)]; ok && !n.folder && n.path == s.tree.root+"/"+readme {
			c.ReadmePath, c.Readme = readme, s.kept[readme]
			break
		}
	}
	return c, nil
}

// crateInput counts the compressed bytes and stops beyond most.
type crateInput struct {
	r       io.Reader
	n, most int64
}

// Read implements io.Reader.
func (in *crateInput) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	in.n += int64(n)
	if in.n > in.most {
		return 0, problem(ErrTooLarge, CodeTooLarge, "the crate is longer than the %d bytes that this registry takes; leave files out with `exclude` in Cargo.toml", in.most)
	}
	return n, err
}

// unpackMeter stops when too much comes out of the gzip stream, or too much for what went in.
type unpackMeter struct {
	r  io.Reader
	in *crateInput
	l  Limits
	n  int64
}

// Read implements io.Reader.
func (m *unpackMeter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n > m.l.UnpackedBytes {
		return 0, problem(ErrTooLarge, CodeTooLarge, "the crate unpacks to more than %d bytes; leave files out with `exclude` in Cargo.toml", m.l.UnpackedBytes)
	}
	if m.n > ratioFloor && m.n/m.l.Ratio > m.in.n {
		return 0, problem(ErrTooLarge, CodeRatio, "the crate unpacks to more than %d times its size; leave large generated files out with `exclude` in Cargo.toml", m.l.Ratio)
	}
	return n, err
}

// tarballProblem gives gzip's and truncation's errors a kind; a Problem and
// errors of the caller's reader pass.
func tarballProblem(err error) error {
	var known *Problem
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &Problem{Kind: ErrTarball, Code: CodeGzip, Text: "the crate is cut short; send it again", Cause: err}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return &Problem{Kind: ErrTarball, Code: CodeGzip, Text: "the crate is not an intact gzip stream (" + short(err) + "); build it with `cargo package`", Cause: err}
	}
	return fmt.Errorf("read crate: %w", err)
}

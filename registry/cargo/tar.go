package cargo

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	blockBytes    = 512
	maxExtraBytes = 64 << 10 // of one long name or set of PAX records
)

// tarReader reads the subset of tar that all readers understand alike: plain
// headers, one GNU long name or one set of PAX records before an entry, and
// nothing that states a name or size twice. archive/tar is not used because it
// accepts more (and differently from the Rust crate that cargo unpacks with):
// what one reader skips, another would unpack.
type tarReader struct {
	r       io.Reader
	left    int64 // bytes of the current entry not read yet
	padding int64 // bytes up to the next block, after left
}

// tarEntry is one regular file or folder.
type tarEntry struct {
	path   string // as stored; a folder's may end in "/"
	folder bool
	size   int64
}

// next skips the rest of the current entry and reads the next header; io.EOF
// after the end-of-archive marker, behind which only zeros may stand.
func (t *tarReader) next() (tarEntry, error) {
	longName, isLong, extended := "", false, false
	for {
		if err := t.skip(); err != nil {
			return tarEntry{}, err
		}
		h, err := t.header()
		if errors.Is(err, io.EOF) && extended {
			err = badTar("ends after an extended header that belongs to no file")
		}
		if err != nil {
			return tarEntry{}, err
		}
		t.left, t.padding = h.size, (blockBytes-h.size%blockBytes)%blockBytes
		if h.kind != 'L' && h.kind != 'x' {
			if isLong {
				h.name = longName
			}
			return h.entry()
		}
		if extended {
			return tarEntry{}, badTar("gives one file two extended headers")
		}
		extended = true
		if longName, isLong, err = t.extra(h); err != nil {
			return tarEntry{}, err
		}
	}
}

// skip moves to the next header.
func (t *tarReader) skip() error {
	_, err := io.CopyN(io.Discard, t.r, t.left+t.padding)
	t.left, t.padding = 0, 0
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // io.EOF is for the end of the archive alone
	}
	return err
}

// Read reads the current entry's content.
func (t *tarReader) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	if err == io.EOF && t.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// tarHeader is a header block; kind is the type flag.
type tarHeader struct {
	name string
	kind byte
	size int64
}

// entry checks that h is one of the two kinds that a crate may hold.
func (h tarHeader) entry() (tarEntry, error) {
	switch h.kind {
	case '0', 0:
		return tarEntry{path: h.name, size: h.size}, nil
	case '5':
		if h.size != 0 {
			return tarEntry{}, badTar("gives the folder %s a size", quote(h.name))
		}
		return tarEntry{path: h.name, folder: true}, nil
	}
	what, known := map[byte]string{
		'1': "a hard link", '2': "a symbolic link", '3': "a character device", '4': "a block device",
		'6': "a FIFO", 'S': "a sparse file", 'g': "a global PAX header",
	}[h.kind]
	if !known {
		what = "an entry of type " + strconv.QuoteRune(rune(h.kind))
	}
	return tarEntry{}, problem(ErrTarball, CodeEntryType, "the crate holds %s, %s; only regular files and folders are allowed", what, quote(h.name))
}

// header reads one block; io.EOF at the end-of-archive marker.
func (t *tarReader) header() (tarHeader, error) {
	var b [blockBytes]byte
	if _, err := io.ReadFull(t.r, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = badTar("ends without the end-of-archive marker")
		}
		return tarHeader{}, err
	}
	if b == [blockBytes]byte{} {
		return tarHeader{}, t.end()
	}
	if sum, ok := octal(b[148:156]); !ok || sum != checksum(&b) {
		return tarHeader{}, badTar("has a header whose checksum is wrong")
	}
	h := tarHeader{name: cutNUL(b[:100]), kind: b[156]}
	var ok bool
	if h.size, ok = octal(b[124:136]); !ok {
		return tarHeader{}, badTar("has a size that is not a plain octal number for %s", quote(h.name))
	}
	prefix, ok := namePrefix(&b)
	if !ok || !numbersReadable(&b) {
		return tarHeader{}, badTar("has a header of an unusual format for %s", quote(h.name))
	}
	if prefix != "" {
		h.name = prefix + "/" + h.name
	}
	return h, nil
}

// namePrefix tells POSIX ustar from GNU and gives ustar's prefix. Fields that
// only some readers look at must be empty. The old format, which has no magic,
// is refused: in it cargo takes an extended header for nothing and unpacks the
// next entry under its own name. cargo and every tar of today write a magic.
func namePrefix(b *[blockBytes]byte) (prefix string, ok bool) {
	switch magic := string(b[257:265]); magic {
	case "ustar\x0000":
		return cutNUL(b[345:500]), isZero(b[500:])
	case "ustar  \x00":
		return "", isZero(b[345:])
	default:
		return "", false
	}
}

// numbersReadable: mode, owner, group, time and device are not looked at here,
// but what one reader cannot read, it refuses or unpacks differently.
func numbersReadable(b *[blockBytes]byte) bool {
	for _, field := range [][]byte{b[100:108], b[108:116], b[116:124], b[136:148], b[329:337], b[337:345]} {
		if _, ok := octal(field); !ok && len(bytes.Trim(field, " \x00")) > 0 {
			return false
		}
	}
	return true
}

// end checks that only zeros follow the first block of the marker.
func (t *tarReader) end() error {
	buf := make([]byte, 32<<10)
	total := 0
	for {
		n, err := t.r.Read(buf)
		if !isZero(buf[:n]) {
			return badTar("goes on after its end")
		}
		total += n
		if err == io.EOF {
			if total < blockBytes || total%blockBytes != 0 {
				return badTar("ends within the end-of-archive marker")
			}
			return io.EOF
		}
		if err != nil {
			return err
		}
	}
}

// extra reads a GNU long name or PAX records; isLong tells whether they name a path.
func (t *tarReader) extra(h tarHeader) (name string, isLong bool, err error) {
	if h.size > maxExtraBytes {
		return "", false, badTar("holds an extended header of %d bytes", h.size)
	}
	data := make([]byte, h.size)
	if _, err := io.ReadFull(t, data); err != nil {
		return "", false, err
	}
	if h.kind == 'x' {
		return paxPath(data)
	}
	data = bytes.TrimSuffix(data, []byte{0})
	if len(data) == 0 || bytes.IndexByte(data, 0) >= 0 {
		return "", false, badTar("holds a long name that is empty or has a NUL in it")
	}
	return string(data), true, nil
}

// paxPath reads PAX records ("LENGTH KEY=VALUE\n") and gives the path, if any.
// Records that change what is unpacked, such as size or linkpath, are refused,
// and so are control characters: cargo ends a record at the first line break,
// whatever its length, and would take the rest of the value for another record.
func paxPath(data []byte) (path string, isLong bool, err error) {
	seen := map[string]bool{}
	for len(data) > 0 {
		digits, _, ok := bytes.Cut(data, []byte(" "))
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !ok || err != nil || digits[0] < '1' || digits[0] > '9' || int(n) > len(data) || int(n) < len(digits)+2 || data[n-1] != '\n' {
			return "", false, badTar("holds a malformed PAX record")
		}
		key, value, ok := strings.Cut(string(data[len(digits)+1:n-1]), "=")
		if !ok || seen[key] {
			return "", false, badTar("holds a malformed or repeated PAX record")
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return "", false, badTar("holds the PAX record %s with a control character in it", quote(key))
		}
		seen[key], data = true, data[n:]
		if err := checkPAX(key, value); err != nil {
			return "", false, err
		}
		if key == "path" {
			path, isLong = value, true
		}
	}
	return path, isLong, nil
}

var (
	paxTime   = regexp.MustCompile(`^-?[0-9]{1,12}(\.[0-9]{1,9})?$`)
	paxNumber = regexp.MustCompile(`^[0-9]{1,10}$`)
)

// checkPAX: of a value that is not looked at here, what one reader passes over,
// another refuses the whole archive for.
func checkPAX(key, value string) error {
	var readable bool
	switch key {
	case "path":
		readable = value != ""
	case "mtime", "atime", "ctime":
		readable = paxTime.MatchString(value)
	case "uid", "gid":
		readable = paxNumber.MatchString(value)
	case "uname", "gname":
		readable = utf8.ValidString(value)
	default:
		return badTar("holds the PAX record %s; only path, times and owners are allowed", quote(key))
	}
	if !readable {
		return badTar("holds the PAX record %s with a value that not all readers take", quote(key))
	}
	return nil
}

func badTar(format string, args ...any) error {
	return problem(ErrTarball, CodeTar, "the crate's tar archive "+format+"; build it with `cargo package`", args...)
}

// checksum sums a header's bytes, its checksum field taken as spaces.
func checksum(b *[blockBytes]byte) int64 {
	sum := int64(8 * ' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	return sum
}

// octal reads a numeric field: leading spaces, digits, then NULs and spaces.
// The base-256 form for huge numbers is not accepted.
func octal(field []byte) (int64, bool) {
	s := strings.TrimLeft(string(field), " ")
	digits := strings.TrimRight(s, " \x00")
	n, err := strconv.ParseUint(digits, 8, 40)
	return int64(n), err == nil
}

func cutNUL(field []byte) string {
	head, _, _ := bytes.Cut(field, []byte{0})
	return string(head)
}

func isZero(b []byte) bool {
	return len(bytes.Trim(b, "\x00")) == 0
}

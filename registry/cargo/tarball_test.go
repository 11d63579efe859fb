package cargo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	root         = "demo-1.0.0/"
	demoManifest = "[package]\nname = \"demo\"\nversion = \"1.0.0\"\n"
)

// file is a regular entry below demo-1.0.0/.
func file(path, body string) []byte { return entry('0', root+path, body) }

// entry is a raw ustar entry of any kind, so that tests can write what no writer would.
func entry(kind byte, name, body string) []byte {
	b := make([]byte, blockBytes)
	copy(b[:100], name)
	copy(b[100:], "0000644\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", len(body)))
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	seal(b)
	b = append(b, body...)
	return append(b, make([]byte, (blockBytes-len(body)%blockBytes)%blockBytes)...)
}

// seal writes the checksum of the header at the front of b.
func seal(b []byte) []byte {
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", checksum((*[blockBytes]byte)(b))))
	return b
}

// with is an entry with bytes of its header replaced.
func with(e []byte, at int, value string) []byte {
	copy(e[at:], value)
	return seal(e)
}

func gz(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(data) // a bytes.Buffer takes all
	_ = w.Close()
	return out.Bytes()
}

func archive(entries ...[]byte) []byte {
	return append(bytes.Join(entries, nil), make([]byte, 2*blockBytes)...)
}

func crateOf(entries ...[]byte) []byte { return gz(archive(entries...)) }

var manifestEntry = file("Cargo.toml", demoManifest)

func inspectBytes(data []byte) (*Crate, error) {
	return Inspect(bytes.NewReader(data), "demo", "1.0.0", Limits{})
}

func record(key, value string) string {
	body := " " + key + "=" + value + "\n"
	n := len(body) + 1
	for len(fmt.Sprint(n))+len(body) != n {
		n++
	}
	return fmt.Sprint(n) + body
}

func TestInspectAccepts(t *testing.T) {
	long := root + strings.Repeat("d/", 15) + strings.Repeat("f", 200)
	gnu := with(entry('0', long[:100], "x"), 257, "ustar  \x00")
	for name, entries := range map[string][][]byte{
		"the manifest alone":      {manifestEntry},
		"folders":                 {entry('5', "demo-1.0.0/", ""), manifestEntry, entry('5', root+"src", ""), file("src/lib.rs", "")},
		"a folder after its file": {manifestEntry, file("src/lib.rs", ""), entry('5', root+"src/", "")},
		"a GNU long name":         {manifestEntry, entry('L', "././@LongLink", long+"\x00"), gnu},
		"a PAX path and times":    {manifestEntry, entry('x', "PaxHeaders", record("path", long)+record("mtime", "1.5")), entry('0', "demo", "x")},
		"a ustar prefix":          {manifestEntry, with(entry('0', "lib.rs", ""), 345, "demo-1.0.0/src")},
		"other languages":         {manifestEntry, file("docs/größe/日本.md", "x")},
		"blocks after the end":    {manifestEntry, make([]byte, 20*blockBytes)},
	} {
		c, err := inspectBytes(crateOf(entries...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Name != "demo" || c.Version.String() != "1.0.0" || c.Files == 0 || c.CompressedBytes == 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestInspectRefusesAttacks(t *testing.T) {
	big := fmt.Sprintf("%011o\x00", 1<<33-1)
	old := func(e []byte) []byte { return with(e, 257, strings.Repeat("\x00", 8)) } // the format before POSIX
	deep := strings.Repeat("a/", maxSegments) + "f"
	for name, c := range map[string]struct {
		entries []byte // after the manifest
		want    error
		code    Code
	}{
		"a symbolic link":          {with(entry('2', root+"l", ""), 157, "/etc/passwd"), ErrTarball, CodeEntryType},
		"a hard link":              {with(entry('1', root+"l", ""), 157, "/etc/passwd"), ErrTarball, CodeEntryType},
		"a character device":       {entry('3', root+"d", ""), ErrTarball, CodeEntryType},
		"a block device":           {entry('4', root+"d", ""), ErrTarball, CodeEntryType},
		"a FIFO":                   {entry('6', root+"p", ""), ErrTarball, CodeEntryType},
		"a contiguous file":        {entry('7', root+"p", ""), ErrTarball, CodeEntryType},
		"a GNU sparse file":        {entry('S', root+"s", ""), ErrTarball, CodeEntryType},
		"a GNU long link":          {entry('K', "././@LongLink", "x\x00"), ErrTarball, CodeEntryType},
		"a global PAX header":      {entry('g', "g", record("path", root+"x")), ErrTarball, CodeEntryType},
		"a PAX size":               {append(entry('x', "x", record("size", "0")), file("a", "body")...), ErrTarball, CodeTar},
		"a PAX sparse file":        {append(entry('x', "x", record("GNU.sparse.major", "1")), file("a", "body")...), ErrTarball, CodeTar},
		"a PAX link path":          {append(entry('x', "x", record("linkpath", "/etc")), file("a", "")...), ErrTarball, CodeTar},
		"a PAX path twice":         {append(entry('x', "x", record("path", root+"a")+record("path", root+"b")), file("a", "")...), ErrTarball, CodeTar},
		"a PAX path with a NUL":    {append(entry('x', "x", record("path", root+"a\x00b")), file("a", "")...), ErrTarball, CodeTar},
		"a PAX record too long":    {append(entry('x', "x", "99 path=a\n"), file("a", "")...), ErrTarball, CodeTar},
		"a PAX record too short":   {append(entry('x', "x", "2 path=a\n"), file("a", "")...), ErrTarball, CodeTar},
		"a PAX length with a sign": {append(entry('x', "x", "+9 path=a\n"), file("a", "")...), ErrTarball, CodeTar},
		"two PAX headers":          {bytes.Join([][]byte{entry('x', "x", record("mtime", "1")), entry('x', "x", record("path", root+"b")), file("a", "")}, nil), ErrTarball, CodeTar},
		"a long name and PAX":      {bytes.Join([][]byte{entry('L', "L", root+"c\x00"), entry('x', "x", record("path", root+"b")), file("a", "")}, nil), ErrTarball, CodeTar},
		"a long name with a NUL":   {append(entry('L', "L", root+"c\x00d\x00"), file("a", "")...), ErrTarball, CodeTar},
		"a long name at the end":   {entry('L', "L", root+"c\x00"), ErrTarball, CodeTar},
		"a huge long name":         {with(entry('L', "L", "x"), 124, big), ErrTarball, CodeTar},
		"a folder with a size":     {with(entry('5', root+"d", ""), 124, "00000001000\x00"), ErrTarball, CodeTar},
		"a base-256 size":          {with(file("a", ""), 124, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"), ErrTarball, CodeTar},
		"a negative size":          {with(file("a", ""), 124, "-0000000001\x00"), ErrTarball, CodeTar},
		"an empty size":            {with(file("a", ""), 124, strings.Repeat("\x00", 12)), ErrTarball, CodeTar},
		"a wrong checksum":         {append([]byte("x"), file("a", "")[1:]...), ErrTarball, CodeTar},
		"a star header":            {with(file("a", ""), 508, "tar\x00"), ErrTarball, CodeTar},
		"a GNU header with offset": {with(with(file("a", ""), 257, "ustar  \x00"), 369, "1"), ErrTarball, CodeTar},
		"an unreadable mode":       {with(file("a", ""), 100, "9"), ErrTarball, CodeTar},
		"a base-256 time":          {with(file("a", ""), 136, "\x80"), ErrTarball, CodeTar},
		"an unreadable device":     {with(file("a", ""), 329, "x"), ErrTarball, CodeTar},
		"an old header":            {old(file("a", "")), ErrTarball, CodeTar},
		"an old header, kind 0":    {old(entry(0, root+"a", "")), ErrTarball, CodeTar},
		"an old long name":         {append(old(entry('L', root+"z", root+"notes.txt\x00")), file("src/lib.rs", "")...), ErrTarball, CodeTar},
		"an old PAX path":          {append(old(entry('x', root+"z", record("path", root+"notes.txt"))), file("src/lib.rs", "")...), ErrTarball, CodeTar},
		"a magic of no version":    {with(file("a", ""), 257, "ustar\x00  "), ErrTarball, CodeTar},
		"a PAX path in a name":     {append(entry('x', "x", record("uname", "x\n"+strings.TrimSuffix(record("path", root+"src/lib.rs"), "\n"))), file("notes.txt", "")...), ErrTarball, CodeTar},
		"a PAX time with a return": {append(entry('x', "x", record("mtime", "1\r")), file("a", "")...), ErrTarball, CodeTar},
		"a PAX path with a break":  {append(entry('x', "x", record("path", root+"a\nb")), file("a", "")...), ErrTarball, CodeTar},
		"a PAX key with a break":   {append(entry('x', "x", record("uid\n9 path", root+"b")), file("a", "")...), ErrTarball, CodeTar},
		"cargo's own mark":         {file(".cargo-ok", "x"), ErrTarball, CodePath},
		"cargo's mark further in":  {file("src/.cargo-ok", "x"), ErrTarball, CodePath},
		"cargo's mark as a folder": {file(".Cargo-OK/x", "x"), ErrTarball, CodePath},
		"an unknown format":        {with(file("a", ""), 257, "sutar\x0000"), ErrTarball, CodeTar},
		"an absolute path":         {entry('0', "/etc/passwd", ""), ErrTarball, CodePath},
		"another folder":           {entry('0', "demo-1.0.1/a", ""), ErrTarball, CodePath},
		"a longer folder":          {entry('0', "demo-1.0.0x/a", ""), ErrTarball, CodePath},
		"no folder":                {entry('0', "a", ""), ErrTarball, CodePath},
		"the folder as a file":     {entry('0', "demo-1.0.0", ""), ErrTarball, CodeCollision},
		"dot dot":                  {file("../demo-1.0.0/x", ""), ErrTarball, CodePath},
		"dot dot at the end":       {entry('5', root+"a/..", ""), ErrTarball, CodePath},
		"a single dot":             {file("./x", ""), ErrTarball, CodePath},
		"a leading dot":            {entry('0', "./demo-1.0.0/x", ""), ErrTarball, CodePath},
		"an empty part":            {file("a//b", ""), ErrTarball, CodePath},
		"a file with a slash":      {file("a/", ""), ErrTarball, CodePath},
		"two slashes":              {entry('5', root+"a//", ""), ErrTarball, CodePath},
		"a backslash":              {file(`..\x`, ""), ErrTarball, CodePath},
		"a stream":                 {file("a:b", ""), ErrTarball, CodePath},
		"a trailing dot":           {file("Cargo.toml.", ""), ErrTarball, CodePath},
		"a trailing space":         {file("src /a", ""), ErrTarball, CodePath},
		"a control character":      {file("a\x1b[2J", ""), ErrTarball, CodePath},
		"a bidi override":          {file("a\u202etxt", ""), ErrTarball, CodePath},
		"not UTF-8":                {file("a\xff", ""), ErrTarball, CodePath},
		"a device":                 {file("nul", ""), ErrTarball, CodePath},
		"a device with extension":  {file("src/CON.rs/x", ""), ErrTarball, CodePath},
		"a superscript device":     {file("com¹.x", ""), ErrTarball, CodePath},
		"a deep path":              {file(deep, ""), ErrTarball, CodePath},
		"a long path":              {append(entry('L', "L", root+strings.Repeat("a", 600)), file("a", "")...), ErrTooLarge, CodeTooLarge},
		"a second manifest":        {manifestEntry, ErrTarball, CodeCollision},
		"a manifest in lower case": {file("cargo.toml", demoManifest), ErrTarball, CodeCollision},
		"the same file twice":      {append(file("a", "1"), file("a", "2")...), ErrTarball, CodeCollision},
		"the same folder twice":    {append(entry('5', root+"a", ""), entry('5', root+"a/", "")...), ErrTarball, CodeCollision},
		"case of a file":           {append(file("a", "1"), file("A", "2")...), ErrTarball, CodeCollision},
		"case of a folder":         {append(file("src/a", "1"), file("SRC/b", "2")...), ErrTarball, CodeCollision},
		"case beyond ASCII":        {append(file("straße", "1"), file("STRAẞE", "2")...), ErrTarball, CodeCollision},
		"the Kelvin sign":          {append(file("k", "1"), file("\u212a", "2")...), ErrTarball, CodeCollision},
		"a file as a folder":       {append(file("a", "1"), file("a/b", "2")...), ErrTarball, CodeCollision},
		"a folder as a file":       {append(file("a/b", "1"), file("a", "2")...), ErrTarball, CodeCollision},
	} {
		_, err := inspectBytes(crateOf(manifestEntry, c.entries))
		var p *Problem
		if !errors.Is(err, c.want) || !errors.As(err, &p) || p.Code != c.code {
			t.Errorf("%s: %v; want %v with code %s", name, err, c.want, c.code)
		}
	}
}

func TestInspectRefusesWhatIsNotOneWholeArchive(t *testing.T) {
	tarBytes := archive(manifestEntry)
	good := gz(tarBytes)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-5]++
	flagged := func(bit byte) []byte { data := bytes.Clone(good); data[3] |= bit; return data }
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":                 {nil, ErrTarball},
		"four bytes":              {[]byte("gzip"), ErrTarball},
		"a bare tar":              {tarBytes, ErrTarball},
		"a wrong CRC":             {flipped, ErrTarball},
		"reserved gzip flag 5":    {flagged(1 << 5), ErrTarball},
		"reserved gzip flag 6":    {flagged(1 << 6), ErrTarball},
		"reserved gzip flag 7":    {flagged(1 << 7), ErrTarball},
		"a byte after gzip":       {append(bytes.Clone(good), 0), ErrTarball},
		"a second gzip member":    {append(bytes.Clone(good), good...), ErrTarball},
		"an archive split in two": {append(gz(tarBytes[:512]), gz(tarBytes[512:])...), ErrTarball},
		"no end of archive":       {gz(manifestEntry), ErrTarball},
		"half an end":             {gz(tarBytes[:len(tarBytes)-512]), ErrTarball},
		"a ragged end":            {gz(append(bytes.Clone(tarBytes), 0)), ErrTarball},
		"data after the end":      {gz(append(bytes.Clone(tarBytes), file("hidden", "x")...)), ErrTarball},
		"half a header":           {gz(append(bytes.Clone(manifestEntry), 'x')), ErrTarball},
		"an empty archive":        {gz(archive()), ErrManifest},
		"no manifest":             {crateOf(file("src/lib.rs", "")), ErrManifest},
		"a manifest further down": {crateOf(file("src/Cargo.toml", demoManifest)), ErrManifest},
		"a manifest as a folder":  {crateOf(entry('5', root+"Cargo.toml", "")), ErrManifest},
	} {
		if _, err := inspectBytes(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for n := range good {
		if _, err := inspectBytes(good[:n]); !errors.Is(err, ErrTarball) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestInspectKeepsItsLimits(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 4096)
	big := crateOf(manifestEntry, file("big", body))
	zeros := crateOf(manifestEntry, file("zeros", strings.Repeat("\x00", ratioFloor+1)))
	many := [][]byte{manifestEntry}
	for i := range 40 {
		many = append(many, file(fmt.Sprintf("d%d/f", i), ""))
	}
	for name, c := range map[string]struct {
		data []byte
		l    Limits
	}{
		"unpacked bytes":   {big, Limits{UnpackedBytes: 60000}},
		"compressed bytes": {big, Limits{CrateBytes: int64(len(big)) - 1}},
		"entries":          {crateOf(many...), Limits{Entries: 81}},
		"manifest":         {crateOf(file("Cargo.toml", demoManifest+strings.Repeat("#", maxManifestBytes))), Limits{}},
		"keys":             {crateOf(file("Cargo.toml", demoManifest+strings.Repeat("[a]\n", maxTOMLKeys))), Limits{}},
		"ratio":            {zeros, Limits{}},
	} {
		if _, err := Inspect(bytes.NewReader(c.data), "demo", "1.0.0", c.l); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	for name, c := range map[string]struct {
		data []byte
		l    Limits
	}{
		"compressed bytes": {big, Limits{CrateBytes: int64(len(big))}},
		"entries":          {crateOf(many...), Limits{Entries: 82}},
		"ratio":            {zeros, Limits{Ratio: 2000}},
	} {
		if _, err := Inspect(bytes.NewReader(c.data), "demo", "1.0.0", c.l); err != nil {
			t.Errorf("%s, just within: %v", name, err)
		}
	}
}

// A size that the header only claims must not make Inspect allocate or wait.
func TestInspectBelievesNoSize(t *testing.T) {
	claim := fmt.Sprintf("%011o\x00", 1<<33-1)
	for name, e := range map[string][]byte{"manifest": file("Cargo.toml", ""), "file": file("a", ""), "README": file("README.md", "")} {
		if _, err := inspectBytes(crateOf(with(e, 124, claim))); !errors.Is(err, ErrTarball) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInspectReadsToTheEndEvenWhenItRefuses(t *testing.T) {
	link := with(entry('2', root+"l", ""), 157, "x")
	for name, data := range map[string][]byte{
		"good": crateOf(manifestEntry, file("a", "x")), "refused": crateOf(manifestEntry, link, file("a", strings.Repeat("xyz", 50000))), "no gzip": bytes.Repeat([]byte("x"), 100000),
	} {
		sum := sha256.New()
		_, _ = inspectFrom(io.TeeReader(iotest.HalfReader(bytes.NewReader(data)), sum))
		if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
			t.Errorf("%s: not all bytes were read", name)
		}
	}
}

func inspectFrom(r io.Reader) (*Crate, error) { return Inspect(r, "demo", "1.0.0", Limits{}) }

func TestInspectPassesTheReadersOwnError(t *testing.T) {
	own := errors.New("connection reset")
	good := crateOf(manifestEntry)
	for n := range len(good) + 1 {
		_, err := inspectFrom(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(own)))
		if !errors.Is(err, own) || errors.Is(err, ErrTarball) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestInspectFindsTheBytesBeyondAPublishFrame(t *testing.T) {
	body := frame(`{"name":"demo","vers":"1.0.0"}`, string(crateOf(manifestEntry)))
	for name, c := range map[string]struct {
		body []byte
		want error
	}{"whole": {body, nil}, "longer": {append(bytes.Clone(body), 'x'), ErrFrame}, "cut": {body[:len(body)-1], ErrFrame}} {
		_, crate, _, err := ReadPublish(bytes.NewReader(c.body), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := inspectFrom(crate); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestInspectFindsTheReadme(t *testing.T) {
	big := strings.Repeat("x", maxReadmeBytes+1)
	for name, c := range map[string]struct {
		readme     string // line of the manifest
		before     []byte
		after      []byte
		path, body string
	}{
		"named":           {`readme = "docs/R.md"`, nil, file("docs/R.md", "hi"), "docs/R.md", "hi"},
		"before manifest": {`readme = "./A.md"`, file("A.md", "hi"), file("README.md", "no"), "A.md", "hi"},
		"not named":       {``, nil, file("README.md", "hi"), "README.md", "hi"},
		"true":            {`readme = true`, nil, file("README.md", "hi"), "README.md", "hi"},
		"false":           {`readme = false`, nil, file("README.md", "hi"), "", ""},
		"missing":         {`readme = "X.md"`, nil, file("README.md", "hi"), "", ""},
		"outside":         {`readme = "../README.md"`, nil, file("README.md", "hi"), "", ""},
		"too long":        {`readme = "README.md"`, nil, file("README.md", big), "README.md", ""},
		"in another case": {`readme = "readme.md"`, nil, file("README.md", "hi"), "", ""},
		"a folder":        {`readme = "d"`, nil, entry('5', root+"d", ""), "", ""},
		"the manifest":    {`readme = "Cargo.toml"`, nil, nil, "Cargo.toml", ""},
	} {
		crate, err := inspectBytes(crateOf(c.before, file("Cargo.toml", demoManifest+c.readme), c.after))
		if err != nil || crate.ReadmePath != c.path || string(crate.Readme) != c.body {
			t.Errorf("%s: %+v, %v", name, crate, err)
		}
	}
}

// What Inspect accepts, the standard library's reader must see the same way:
// the same files with the same sizes, and nothing else.
func FuzzInspect(f *testing.F) {
	f.Add(archive(manifestEntry, file("src/lib.rs", "x")))
	f.Add(archive(manifestEntry, entry('L', "L", root+"long\x00"), with(file("x", "y"), 257, "ustar  \x00")))
	f.Add(archive(manifestEntry, entry('x', "x", record("path", root+"long")+record("mtime", "1")), file("x", "y")))
	f.Add(archive(manifestEntry, with(entry('0', "lib.rs", ""), 345, "demo-1.0.0/src")))
	f.Add(archive(manifestEntry, entry('5', root+"d", "")))
	f.Fuzz(func(t *testing.T, tarBytes []byte) {
		for i := 0; i+blockBytes <= len(tarBytes); i += blockBytes {
			if string(tarBytes[i+257:i+262]) == "ustar" {
				seal(tarBytes[i : i+blockBytes]) // or mutated headers never get past their checksum
			}
		}
		c, err := Inspect(bytes.NewReader(gz(tarBytes)), "demo", "1.0.0", Limits{UnpackedBytes: 1 << 20, Entries: 100})
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) {
				t.Errorf("not a Problem: %v", err)
			}
			return
		}
		files, size, folders := 0, int64(0), map[string]bool{}
		for r := tar.NewReader(bytes.NewReader(tarBytes)); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("archive/tar refuses what Inspect accepts: %v", err)
			}
			if !strings.HasPrefix(h.Name+"/", root) || strings.Contains(h.Name, "..") && badSegment(h.Name) == "has a part that is .." {
				t.Errorf("path %q", h.Name)
			}
			if h.Typeflag == tar.TypeDir {
				folders[h.Name] = true
				continue
			}
			if h.Typeflag != tar.TypeReg {
				t.Errorf("%q is of type %q", h.Name, h.Typeflag)
			}
			files, size = files+1, size+h.Size
		}
		if files != c.Files || size != c.UnpackedBytes {
			t.Errorf("%d files of %d bytes, archive/tar sees %d of %d", c.Files, c.UnpackedBytes, files, size)
		}
	})
}

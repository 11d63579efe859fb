package content

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

var source1 = "pub const ORDER: [usize; 16] = [" + spelled(permutation, "%d", ", ") + "];\n"

type file struct{ name, data string }

func tarOf(t testing.TB, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func gzipOf(t testing.TB, data string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func crateOf(t testing.TB, files ...file) string { return gzipOf(t, tarOf(t, files...)) }

func zipOf(t testing.TB, method uint16, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		at, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(at, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// bzip2Source is a table of the permutation as bzip2 packs it, which Go does not.
const bzip2Source = "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\xc2\x7e\x20\x99\x00\x00\x27\x9f\x80\x40\x04\x7f\xfa\x06\x00\x90\x0a\x1a\x21\xce\x10\x20\x00\x54\x61\xe5\x19\x34\x18\x4c\x4d\x19\xa6\x41\xa7\xaa\x80\x06\x8f\x50\x34\x00\x09\x28\x0c\xda\x78\xef\x1c\x2e\x56\xa8\x62\x3d\xf8\x21\xd3\xd2\x03\x31\x12\x44\x21\x03\x47\x7c\x44\x66\x1e\xd0\x32\xea\x86\x28\x86\x44\xa3\xd9\x3c\x4c\x0b\xb9\x22\x9c\x28\x48\x61\x3f\x10\x4c\x80"

func TestFileIsFoundWhereverItLies(t *testing.T) {
	plain := file{"x-1.0.0/src/lib.rs", "pub fn it() {}\n"}
	for name, test := range map[string]struct {
		files []file
		path  string
	}{
		"a source":              {[]file{plain, {"x-1.0.0/src/p.rs", source1}}, "x-1.0.0/src/p.rs"},
		"any name":              {[]file{{"x-1.0.0/README", source1}, plain}, "x-1.0.0/README"},
		"a vendored copy":       {[]file{plain, {"x-1.0.0/vendor/a/b/c.h", source1}}, "x-1.0.0/vendor/a/b/c.h"},
		"a vendored crate":      {[]file{plain, {"x-1.0.0/v/b.crate", crateOf(t, plain, file{"b/src/lib.rs", source1})}}, "x-1.0.0/v/b.crate!"},
		"a tar":                 {[]file{plain, {"x-1.0.0/v.tar", tarOf(t, plain, file{"b/p.c", source1})}}, "x-1.0.0/v.tar"},
		"a gzip":                {[]file{plain, {"x-1.0.0/p.rs.gz", gzipOf(t, source1)}}, "x-1.0.0/p.rs.gz!"},
		"a deflated zip":        {[]file{plain, {"x-1.0.0/v.zip", zipOf(t, zip.Deflate, plain, file{"b/p.c", strings.Repeat(" ", 99) + source1})}}, "x-1.0.0/v.zip!b/p.c"},
		"a zip that is stored":  {[]file{plain, {"x-1.0.0/v.zip", zipOf(t, zip.Store, plain, file{"b/p.c", source1})}}, "x-1.0.0/v.zip"},
		"a zip in a zip":        {[]file{{"v.zip", zipOf(t, zip.Deflate, file{"w.zip", zipOf(t, zip.Deflate, file{"p", source1})})}}, "v.zip!w.zip!p"},
		"archives, four deep":   {[]file{{"1", crateOf(t, file{"2", tarOf(t, file{"3", zipOf(t, zip.Deflate, file{"4", gzipOf(t, source1)})})})}}, "1!!2!3!4!"},
		"behind damage":         {[]file{{"broken.gz", gzipOf(t, "x")[:12]}, {"broken.zip", "PK\x03\x04"}, {"p.rs", source1}}, "p.rs"},
		"before damage":         {[]file{{"v.gz", cut(gzipOf(t, strings.Repeat("pub mod a;\n", 999)+source1+"pub mod b;"))}}, "v.gz!"},
		"behind a broken entry": {[]file{{"v.zip", breakFirst(zipOf(t, zip.Deflate, file{"a", strings.Repeat("abc", 99)}, file{"b", source1}))}}, "v.zip!b"},
		"a bzip2":               {[]file{{"p.rs.bz2", bzip2Source}}, "p.rs.bz2!"},
		"data":                  {[]file{{"t.bin", "\xde\xad" + string(permutation[:])}}, "t.bin"},
	} {
		found, err := Crate(strings.NewReader(crateOf(t, test.files...)), Limits{})
		if err != nil || len(found) != 1 || found[0].Path != test.path {
			t.Errorf("%s: %v, %v, want it in %q", name, found, err, test.path)
		}
	}
	if found, err := Crate(strings.NewReader(crateOf(t, plain)), Limits{}); err != nil || found != nil {
		t.Errorf("an ordinary crate: %v, %v", found, err)
	}
}

// cut is a gzip stream without its sum.
func cut(s string) string { return s[:len(s)-8] }

// breakFirst damages what the first entry of a zip is packed to.
func breakFirst(z string) string { return z[:33] + "\xff\xff\xff" + z[36:] }

func random(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestFlagsOfSeveralFilesCountTogether(t *testing.T) {
	for name, test := range map[string]struct {
		files []file
		want  bool
	}{
		"all that tell": {[]file{{"a", "const CHUNK_START: u8 = 1;"}, {"b", "const CHUNK_END: u8 = 2;"}, {"c", "const DERIVE_KEY_CONTEXT: u8 = 32;"}, {"d", "const DERIVE_KEY_MATERIAL: u8 = 64;"}}, true},
		"chance":        {[]file{{"a", "const CHUNK_START: u8 = 1;"}, {"b", "const CHUNK_END: u8 = 2;"}, {"c", "const PARENT: u8 = 4;"}, {"d", "const ROOT: u8 = 8;"}}, false},
		"half a table":  {[]file{{"a", spelled(permutation, "%d", ",")[:15]}, {"b", spelled(permutation, "%d", ",")[16:]}}, false},
	} {
		found, err := Crate(strings.NewReader(crateOf(t, test.files...)), Limits{})
		if err != nil || (len(found) == 1) != test.want {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	plain := file{"a", "pub fn it() {}\n" + random(5000)}
	good := crateOf(t, plain, plain)
	nested := func(n int) string {
		inner := "x"
		for range n {
			inner = gzipOf(t, inner)
		}
		return inner
	}
	many := make([]file, 40)
	for i := range many {
		many[i] = file{fmt.Sprint(i), "x"}
	}
	for name, test := range map[string]struct {
		crate string
		l     Limits
	}{
		"nothing": {"", Limits{}}, "text": {"pub fn it() {}", Limits{}}, "a bare tar": {tarOf(t, plain), Limits{}}, "a gzip of something else": {gzipOf(t, random(2000)), Limits{}},
		"cut short": {good[:len(good)/2], Limits{}}, "without its sum": {good[:len(good)-4], Limits{}}, "a flipped bit": {good[:900] + string(good[900]^1) + good[901:], Limits{}},
		"a tar cut short": {gzipOf(t, tarOf(t, plain, plain)[:6000]), Limits{}}, "trailing bytes": {good + "x", Limits{}},
		"too many bytes": {good, Limits{Bytes: 10000}}, "too many bytes within": {crateOf(t, file{"v.gz", gzipOf(t, strings.Repeat("x", 100000))}), Limits{Bytes: 50000}},
		"too many bytes behind the end": {gzipOf(t, tarOf(t, plain)+strings.Repeat("\x00", 100000)), Limits{Bytes: 50000}},
		"too many entries":              {crateOf(t, many...), Limits{Entries: 39}}, "too many entries within": {crateOf(t, file{"v.zip", zipOf(t, zip.Deflate, many...)}), Limits{Entries: 39}},
		"too deep": {crateOf(t, file{"v.gz", nested(6)}), Limits{}}, "too deep, zip": {crateOf(t, file{"v.zip", zipOf(t, zip.Deflate, file{"w.gz", nested(1)})}), Limits{Depth: 2}},
	} {
		found, err := Crate(strings.NewReader(test.crate), test.l)
		if !errors.Is(err, ErrUnreadable) || found != nil {
			t.Errorf("%s: %v, %v, want ErrUnreadable", name, found, err)
		}
	}
	for name, test := range map[string]struct {
		crate string
		l     Limits
	}{
		"as many bytes":   {crateOf(t, file{"a", strings.Repeat("x", 10000)}), Limits{Bytes: 12000}},
		"as many entries": {crateOf(t, many...), Limits{Entries: 40}}, "as deep": {crateOf(t, file{"v.gz", nested(5)}), Limits{}},
	} {
		if found, err := Crate(strings.NewReader(test.crate), test.l); err != nil || found != nil {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}

// A failure of whoever gives the bytes is no property of the bytes, wherever it happens.
func TestErrorsOfTheReaderPass(t *testing.T) {
	mine := errors.New("the disk is on fire")
	crate := crateOf(t, file{"a.gz", gzipOf(t, random(9000))}, file{"b.zip", zipOf(t, zip.Deflate, file{"c", random(9000)})}, file{"d", random(50000)})
	for n := 0; n < len(crate); n += 997 {
		once := &failsOnce{Reader: strings.NewReader(crate), left: n, err: mine}
		if found, err := Crate(once, Limits{}); !errors.Is(err, mine) || errors.Is(err, ErrUnreadable) || found != nil {
			t.Fatalf("failing after %d: %v, %v", n, found, err)
		}
	}
	n := 0
	check := func() error {
		if n++; n > 3 {
			return mine
		}
		return nil
	}
	if found, err := Crate(strings.NewReader(crate), Limits{Check: check}); !errors.Is(err, mine) || errors.Is(err, ErrUnreadable) || found != nil {
		t.Errorf("stopped: %v, %v", found, err)
	}
	if found, err := Crate(iotest.OneByteReader(strings.NewReader(crateOf(t, file{"a", source1}))), Limits{}); err != nil || len(found) != 1 {
		t.Errorf("byte by byte: %v, %v", found, err)
	}
}

// failsOnce fails after left bytes, and then goes on as if nothing had been.
type failsOnce struct {
	io.Reader
	left int
	err  error
}

func (f *failsOnce) Read(p []byte) (int, error) {
	if f.left == 0 {
		f.left = -1
		return 0, f.err
	}
	if f.left > 0 {
		p = p[:min(len(p), f.left)]
	}
	n, err := f.Reader.Read(p)
	if f.left > 0 {
		f.left -= n
	}
	return n, err
}

func TestALargeCrateNeedsLittleMemory(t *testing.T) {
	var files []file
	noise := random(1 << 20)
	for i := range 6 {
		files = append(files, file{fmt.Sprint("x/", i), noise})
	}
	for i := range 500 {
		files = append(files, file{fmt.Sprint("y/", i), "pub fn it() {}"})
	}
	crate := crateOf(t, append(files, file{"deep", gzipOf(t, tarOf(t, files...))})...)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	most, n := uint64(0), 0
	check := func() error {
		if n++; n%50 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&during)
			most = max(most, during.HeapAlloc)
		}
		return nil
	}
	if found, err := Crate(strings.NewReader(crate), Limits{Check: check}); err != nil || found != nil {
		t.Fatalf("%v, %v", found, err)
	}
	runtime.ReadMemStats(&during)
	if held := int64(most) - int64(before.HeapAlloc); most == 0 || held > 2<<20 {
		t.Errorf("a crate of %d MiB needs %d KiB at once", len(crate)>>20, held>>10)
	}
	if allocated := during.TotalAlloc - before.TotalAlloc; allocated > 8<<20 {
		t.Errorf("a crate of %d MiB needs %d MiB in all", len(crate)>>20, allocated>>20)
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", source1, crateOf(f, file{"a", source1}), zipOf(f, zip.Deflate, file{"a", source1}), zipOf(f, zip.Store, file{"a", "b"}), tarOf(f, file{"a.gz", gzipOf(f, "x")}),
		`"\x02\x06\n\0"`, "#define CHUNK_START (1 << 0)\n#define CHUNK_END BIT(1)\n", "0x263a704d1bc59ef8_u64", "/* // */ # ; \\", "BZh9", string(permutation[:]), "\x00\x00\x02\x00",
	} {
		f.Add(seed, uint16(7))
	}
	f.Fuzz(func(t *testing.T, data string, part uint16) {
		l := Limits{Bytes: 1 << 22, Entries: 1000, Depth: 4}
		whole, err := File(strings.NewReader(data), l)
		if err != nil && (!errors.Is(err, ErrUnreadable) || whole != nil) {
			t.Fatalf("%v, %v", whole, err)
		}
		pieces, err2 := File(&inParts{data, int(part)%64 + 1}, l)
		if (err == nil) != (err2 == nil) || len(whole) != len(pieces) {
			t.Fatalf("whole %v, %v; in parts %v, %v", whole, err, pieces, err2)
		}
		if err != nil {
			return
		}
		// What surrounds a file does not hide what is in it.
		in, err := Crate(strings.NewReader(crateOf(t, file{"x/a", data}, file{"x/b", "c"})), Limits{})
		if err == nil && len(in) != len(whole) {
			t.Fatalf("bare %v, in a crate %v", whole, in)
		}
		if all, err := Crate(strings.NewReader(crateOf(t, file{"x/a", data}, file{"x/b", source1})), Limits{}); err == nil && len(all) != 1 {
			t.Fatalf("%q hides the file behind it", data)
		}
		if all, err := File(strings.NewReader(data+"\n*/\n 99 "+source1), l); err == nil && len(all) != 1 {
			t.Fatalf("%q hides what follows it", data)
		}
	})
}

// inParts yields a few bytes at a time.
type inParts struct {
	data string
	most int
}

func (p *inParts) Read(b []byte) (int, error) {
	if p.data == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.most)], p.data)
	p.data = p.data[n:]
	return n, nil
}

func BenchmarkCrate(b *testing.B) {
	code := strings.Repeat("    let total: u32 = values.iter().map(|v| v.len() as u32 + 17).sum(); // of all\n", 1<<18/80)
	for name, data := range map[string]string{"source": code, "noise": random(1 << 18), "zeros": strings.Repeat("\x00", 1<<18), "numbers": strings.Repeat("12, 7, 0x03, ", 1<<18/13)} {
		b.Run(name, func(b *testing.B) {
			files := make([]file, 16)
			for i := range files {
				files[i] = file{fmt.Sprint(i), data}
			}
			crate := crateOf(b, files...)
			b.SetBytes(int64(16 * len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if found, err := Crate(strings.NewReader(crate), Limits{}); err != nil || found != nil {
					b.Fatal(found, err)
				}
			}
		})
	}
}

// A bzip2 stream of nothing needs megabytes: 120,000 of them fit into 16 KB.
func TestManyBzip2StreamsAreNotUnpackedOneByOne(t *testing.T) {
	const nothing = "BZh1\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00"
	streams := func(n int) []file {
		files := make([]file, n)
		for i := range files {
			files[i] = file{"a", nothing}
		}
		return files
	}
	if found, err := Crate(strings.NewReader(crateOf(t, file{"v.zip", zipOf(t, zip.Deflate, streams(mostBzip2)...)})), Limits{}); err != nil || found != nil {
		t.Errorf("as many as there may be: %v, %v", found, err)
	}
	if found, err := Crate(strings.NewReader(crateOf(t, file{"v.zip", zipOf(t, zip.Deflate, streams(mostBzip2+1)...)})), Limits{}); !errors.Is(err, ErrUnreadable) || found != nil {
		t.Errorf("one more: %v, %v", found, err)
	}
}

package cargo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"unicode/utf8"
)

// pax is an extended header with data in front of a file a.
func pax(data string) []byte { return append(entry('x', "x", data), file("a", "body")...) }

// long is a GNU long name in front of a file a.
func long(name string) []byte { return append(entry('L', "L", name), file("a", "body")...) }

// headers concatenates entries.
func headers(entries ...[]byte) []byte { return bytes.Join(entries, nil) }

// sparseMap is a GNU header of a sparse file of one piece: its map stands where
// other formats have nothing.
func sparseMap() []byte {
	e := with(entry('S', root+"s", "body"), 257, "ustar  \x00")
	e = with(e, 386, "00000000000\x0000000000004\x00")
	return with(e, 483, "00000100000\x00")
}

// signedSum has a checksum as some old programs made it: of signed bytes.
func signedSum(e []byte) []byte {
	sum := int64(8 * ' ')
	for i, c := range e[:blockBytes] {
		if i < 148 || i >= 156 {
			sum += int64(int8(c))
		}
	}
	copy(e[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return e
}

// More that stands behind the manifest in a crate and is refused: what some
// reader takes for another file, another name or another size, and names that
// some file system takes for others.
func TestInspectRefusesMoreAttacks(t *testing.T) {
	gnu := func(e []byte) []byte { return with(e, 257, "ustar  \x00") }
	sparse1 := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
	for name, c := range map[string]struct {
		entries []byte
		code    Code
	}{
		"an old sparse file with its map": {sparseMap(), CodeTar},
		"a sparse file of format 0.0":     {pax(record("GNU.sparse.size", "9") + record("GNU.sparse.numblocks", "1") + record("GNU.sparse.offset", "5") + record("GNU.sparse.numbytes", "4")), CodeTar},
		"a sparse file of format 0.1":     {pax(record("GNU.sparse.size", "9") + record("GNU.sparse.numblocks", "1") + record("GNU.sparse.map", "5,4")), CodeTar},
		"a sparse file of format 1.0":     {pax(sparse1 + record("GNU.sparse.name", root+"b") + record("GNU.sparse.realsize", "9")), CodeTar},
		"a sparse name alone":             {pax(record("GNU.sparse.name", root+"b")), CodeTar},
		"a star sparse file":              {pax(record("SCHILY.realsize", "9")), CodeTar},
		"a multi-volume file":             {gnu(entry('M', root+"m", "")), CodeEntryType},
		"a volume label":                  {gnu(entry('V', "label", "")), CodeEntryType},
		"a GNU directory dump":            {gnu(entry('D', root+"d", "Ya\x00\x00")), CodeEntryType},
		"an old long name of renames":     {gnu(entry('N', "././@MaNgLeD.001", "Rename a to b\n")), CodeEntryType},
		"a Solaris ACL":                   {entry('A', "acl", "x"), CodeEntryType},
		"a Solaris extended header":       {entry('X', "X", record("path", root+"b")), CodeEntryType},
		"Solaris attributes":              {entry('E', root+"e", "x"), CodeEntryType},
		"an inode of star":                {entry('I', root+"i", ""), CodeEntryType},
		"a type of no standard":           {entry(0xff, root+"z", ""), CodeEntryType},
		"a type that is a space":          {entry(' ', root+"z", ""), CodeEntryType},
		"a symbolic link to above":        {with(entry('2', root+"l", ""), 157, "../../../x"), CodeEntryType},
		"a symbolic link that has bytes":  {with(entry('2', root+"l", "bytes"), 157, "x"), CodeEntryType},
		"a hard link to the manifest":     {with(entry('1', root+"l", ""), 157, root+"Cargo.toml"), CodeEntryType},
		"a file through a link":           {headers(with(entry('2', root+"l", ""), 157, "/tmp"), file("l/x", "")), CodeEntryType},
		"a device with numbers":           {with(entry('3', root+"d", ""), 329, "0000001\x000000003\x00"), CodeEntryType},

		"a PAX size twice the file's":      {pax(record("size", "8")), CodeTar},
		"a PAX path above":                 {pax(record("path", root+"../x")), CodePath},
		"a PAX path absolute":              {pax(record("path", "/etc/passwd")), CodePath},
		"a PAX path elsewhere":             {pax(record("path", "demo-1.0.1/x")), CodePath},
		"a PAX path of a folder":           {pax(record("path", root+"b/")), CodePath},
		"a PAX path with a backslash":      {pax(record("path", root+`b\c`)), CodePath},
		"a PAX path that is empty":         {pax(record("path", "")), CodeTar},
		"a PAX path of the manifest":       {pax(record("path", root+"Cargo.toml")), CodeCollision},
		"a PAX path not of UTF-8":          {pax(record("path", root+"b\xff")), CodePath},
		"a PAX key in capitals":            {pax(record("PATH", root+"b")), CodeTar},
		"a PAX key with a space before":    {pax(record(" path", root+"b")), CodeTar},
		"a PAX key with a space behind":    {pax(record("path ", root+"b")), CodeTar},
		"a PAX key that is empty":          {pax(record("", root+"b")), CodeTar},
		"a PAX key with NUL":               {pax(record("mtime\x00", "1")), CodeTar},
		"a PAX charset":                    {pax(record("hdrcharset", "BINARY")), CodeTar},
		"a PAX charset of the data":        {pax(record("charset", "ISO-IR 10646 2000 UTF-16")), CodeTar},
		"a PAX comment":                    {pax(record("comment", "x")), CodeTar},
		"a PAX attribute":                  {pax(record("SCHILY.xattr.security.capability", "x")), CodeTar},
		"a PAX attribute of libarchive":    {pax(record("LIBARCHIVE.xattr.user.x", "eA==")), CodeTar},
		"PAX flags":                        {pax(record("SCHILY.fflags", "uchg")), CodeTar},
		"a PAX device":                     {pax(record("SCHILY.devmajor", "1")), CodeTar},
		"a PAX access list":                {pax(record("SCHILY.acl.access", "user::rwx")), CodeTar},
		"a PAX volume":                     {pax(record("GNU.volume.label", "x")), CodeTar},
		"a PAX realtime":                   {pax(record("realtime.x", "1")), CodeTar},
		"a PAX owner of letters":           {pax(record("uid", "root")), CodeTar},
		"a PAX owner below zero":           {pax(record("uid", "-1")), CodeTar},
		"a PAX group beyond all":           {pax(record("gid", strings.Repeat("9", 40))), CodeTar},
		"a PAX group in hexadecimal":       {pax(record("gid", "0x10")), CodeTar},
		"a PAX time of letters":            {pax(record("mtime", "now")), CodeTar},
		"a PAX time of two points":         {pax(record("mtime", "1.2.3")), CodeTar},
		"a PAX time with an exponent":      {pax(record("atime", "1e9")), CodeTar},
		"a PAX time that is empty":         {pax(record("ctime", "")), CodeTar},
		"a PAX name not of UTF-8":          {pax(record("uname", "\xff")), CodeTar},
		"a PAX length of nothing":          {pax("0 path=a\n"), CodeTar},
		"a PAX length with a zero before":  {pax("010 path=a\n"), CodeTar},
		"a PAX length in hexadecimal":      {pax("0xa path=a\n"), CodeTar},
		"a PAX length of its digits":       {pax("1 path=a\n"), CodeTar},
		"a PAX length beyond 31 bits":      {pax("99999999999 path=a\n"), CodeTar},
		"a PAX length with a space before": {pax(" 11 path=a\n"), CodeTar},
		"a PAX length with a tab":          {pax("10\tpath=a\n"), CodeTar},
		"a PAX record of two spaces":       {pax("11  path=a\n"), CodeTar},
		"a PAX record without =":           {pax("8 pathx\n"), CodeTar},
		"a PAX record without an end":      {pax("9 path=ab"), CodeTar},
		"a PAX record and NULs":            {pax(record("mtime", "1") + "\x00\x00"), CodeTar},
		"a PAX record and a line":          {pax(record("mtime", "1") + "\n"), CodeTar},
		"a PAX header of 64 KiB and one":   {pax(record("uname", strings.Repeat("x", maxExtraBytes))), CodeTar},
		"a PAX header at the end":          {entry('x', "x", record("mtime", "1")), CodeTar},
		"a PAX header for a PAX header":    {headers(entry('x', "x", record("mtime", "1")), entry('x', "x", ""), file("a", "")), CodeTar},
		"a PAX header and a global one":    {headers(entry('x', "x", record("mtime", "1")), entry('g', "g", ""), file("a", "")), CodeEntryType},
		"an empty global header":           {entry('g', "g", ""), CodeEntryType},
		"a global header of a size":        {entry('g', "g", record("size", "0")), CodeEntryType},
		"PAX and a link":                   {headers(entry('x', "x", record("path", root+"l")), with(entry('2', root+"l", ""), 157, "/etc")), CodeEntryType},
		"a PAX header that claims a size":  {with(entry('x', "x", ""), 124, fmt.Sprintf("%011o\x00", 1<<20)), CodeTar},
		"two long names":                   {headers(entry('L', "L", root+"b\x00"), entry('L', "L", root+"c\x00"), file("a", "")), CodeTar},
		"a long name that is empty":        {long(""), CodeTar},
		"a long name of one NUL":           {long("\x00"), CodeTar},
		"a long name of two NULs":          {long(root + "b\x00\x00"), CodeTar},
		"a long name that hides a path":    {long(root + "b\x00/../../x"), CodeTar},
		"a long name above":                {long(root + "../x\x00"), CodePath},
		"a long name absolute":             {long("/etc/passwd\x00"), CodePath},
		"a long name of the manifest":      {long(root + "Cargo.toml\x00"), CodeCollision},
		"a long name not of UTF-8":         {long(root + "\xc3\x28\x00"), CodePath},
		"a long name for a link":           {headers(entry('L', "L", root+"l\x00"), with(entry('2', "l", ""), 157, "/etc")), CodeEntryType},
		"a long link and a long name":      {headers(entry('K', "L", "/etc\x00"), entry('L', "L", root+"l\x00"), with(entry('2', "l", ""), 157, "x")), CodeEntryType},

		"a prefix above":                {with(entry('0', "x", ""), 345, root+".."), CodePath},
		"a prefix that is absolute":     {with(entry('0', "x", ""), 345, "/demo-1.0.0"), CodePath},
		"a prefix with a slash behind":  {with(entry('0', "x", ""), 345, root), CodePath},
		"a prefix and an absolute name": {with(entry('0', "/x", ""), 345, "demo-1.0.0"), CodePath},
		"a prefix of the whole":         {with(entry('0', root+"x", ""), 345, "demo-1.0.0/"+root), CodePath},
		"a prefix in a GNU header":      {gnu(with(entry('0', root+"x", ""), 345, "..")), CodeTar},
		"a name that is empty":          {entry('0', "", ""), CodePath},
		"a name that begins with NUL":   {entry('0', "\x00"+root+"x", ""), CodePath},
		"a size that is not octal":      {with(file("a", ""), 124, "00000000008\x00"), CodeTar},
		"a size in hexadecimal":         {with(file("a", ""), 124, "0x000000001\x00"), CodeTar},
		"a size behind a NUL":           {with(file("a", ""), 124, "\x0000000000001"), CodeTar},
		"a size with more behind it":    {with(file("a", ""), 124, "0\x0000000001\x00"), CodeTar},
		"a size with a plus":            {with(file("a", ""), 124, "+0000000001\x00"), CodeTar},
		"a size of underscores":         {with(file("a", ""), 124, "0_000000000\x00"), CodeTar},
		"a checksum of signed bytes":    {signedSum(file("größe", "")), CodeTar},
		"a checksum that is empty":      {func() []byte { e := file("a", ""); copy(e[148:156], "        "); return e }(), CodeTar},
		"a checksum of NULs":            {func() []byte { e := file("a", ""); copy(e[148:156], make([]byte, 8)); return e }(), CodeTar},
		"an owner in base 256":          {with(file("a", ""), 108, "\x80\x00\x00\x00\x00\x00\x00\x01"), CodeTar},
		"a group of letters":            {with(file("a", ""), 116, "staff\x00"), CodeTar},
		"a time below zero":             {with(file("a", ""), 136, "-0000000001\x00"), CodeTar},
		"an old file with a slash":      {entry(0, root+"d/", ""), CodePath},

		"the Windows console to read":      {file("CONIN$", ""), CodePath},
		"the Windows console to write":     {file("src/conout$.rs", ""), CodePath},
		"a device before a space":          {file("aux .rs", ""), CodePath},
		"a serial port":                    {file("com9", ""), CodePath},
		"a printer of a superscript":       {file("LPT³/a", ""), CodePath},
		"a device in a folder's name":      {entry('5', root+"prn.d", ""), CodePath},
		"a drive":                          {file("C:/x", ""), CodePath},
		"a drive alone":                    {file("c:x", ""), CodePath},
		"a share":                          {file(`\\host\share`, ""), CodePath},
		"a stream of the manifest":         {file("Cargo.toml::$DATA", ""), CodePath},
		"dots and a space":                 {file(".. /x", ""), CodePath},
		"three dots":                       {file(".../x", ""), CodePath},
		"a dot at the end of a folder":     {file("src./x", ""), CodePath},
		"a wildcard":                       {file("a*", ""), CodePath},
		"a question":                       {file("a?", ""), CodePath},
		"a pipe":                           {file("a|b", ""), CodePath},
		"quotes":                           {file(`a"b`, ""), CodePath},
		"an angle":                         {file("a<b", ""), CodePath},
		"a line break":                     {file("a\nb", ""), CodePath},
		"a return":                         {file("a\rb", ""), CodePath},
		"a delete":                         {file("a\x7f", ""), CodePath},
		"a C1 control":                     {file("a\u009b2J", ""), CodePath},
		"a line separator":                 {file("a\u2028b", ""), CodePath},
		"a paragraph separator":            {file("a\u2029b", ""), CodePath},
		"an isolate":                       {file("a\u2066b", ""), CodePath},
		"a mark that turns text":           {file("a\u200fb", ""), CodePath},
		"a space of no width":              {file("Cargo\u200b.toml", ""), CodePath},
		"a non-joiner":                     {file("Cargo.toml\u200c", ""), CodePath},
		"a byte order mark":                {file("\ufeffCargo.toml", ""), CodePath},
		"a soft hyphen":                    {file("Car\u00adgo.toml", ""), CodePath},
		"a tag":                            {file("Cargo.toml\U000e0041", ""), CodePath},
		"UTF-8 too long":                   {file("a\xc0\xafb", ""), CodePath},
		"a surrogate in UTF-8":             {file("a\xed\xa0\x80", ""), CodePath},
		"UTF-8 cut short":                  {file("a\xe2\x82", ""), CodePath},
		"the manifest's short name":        {file("CARGO~1.TOM", ""), CodePath},
		"a short name in a folder":         {file("src/LIBRAR~1.RS", ""), CodePath},
		"a short name of a folder":         {file("longfo~2/x", ""), CodePath},
		"a name too long for a file":       {headers(entry('L', "L", root+strings.Repeat("a", 256)+"\x00"), file("a", "")), CodePath},
		"two forms of an accent":           {headers(file("\u00e9", "1"), file("e\u0301", "2")), CodeCollision},
		"two forms of a folder's accent":   {headers(file("\u00e9/a", "1"), file("e\u0301/b", "2")), CodeCollision},
		"two forms of Å":                   {headers(file("\u212b", "1"), file("\u00c5", "2")), CodeCollision},
		"two forms of a Hangul syllable":   {headers(file("\uac00", "1"), file("\u1100\u1161", "2")), CodeCollision},
		"two sigmas":                       {headers(file("ς", "1"), file("Σ", "2")), CodeCollision},
		"two long s":                       {headers(file("s", "1"), file("ſ", "2")), CodeCollision},
		"the manifest as a folder too":     {file("Cargo.toml/x", ""), CodeCollision},
		"the root in another case":         {entry('0', "Demo-1.0.0/x", ""), CodePath},
		"the lock file in another case":    {headers(file("Cargo.lock", ""), file("cargo.LOCK", "")), CodeCollision},
		"a build script in another case":   {headers(file("build.rs", ""), file("BUILD.rs", "")), CodeCollision},
		"a folder over a file, said later": {headers(file("a", "1"), entry('5', root+"a", "")), CodeCollision},
		"a file over a folder, said first": {headers(entry('5', root+"a", ""), file("a", "1")), CodeCollision},
		"a folder over a file, other case": {headers(file("a", "1"), file("A/b", "2")), CodeCollision},
		"the root said as a file":          {entry('0', "demo-1.0.0/", ""), CodePath},
		"the same by PAX and by name":      {headers(file("b", "1"), pax(record("path", root+"b"))), CodeCollision},
		"the same by a long name":          {headers(file("b", "1"), long(root+"b\x00")), CodeCollision},
		"the same by a prefix":             {headers(file("b/c", "1"), with(entry('0', "c", ""), 345, "demo-1.0.0/b")), CodeCollision},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inspectBytes(crateOf(manifestEntry, c.entries))
			var p *Problem
			if !errors.As(err, &p) || p.Code != c.code {
				t.Fatalf("%v; want code %s", err, c.code)
			}
			if !utf8.ValidString(p.Text) || len(p.Text) > 1024 || strings.ContainsFunc(p.Text, func(r rune) bool { return r < ' ' }) {
				t.Errorf("a message not to be printed: %q", p.Text)
			}
		})
	}
}

// member is a gzip member with the header given, around data; sum and size are
// what its trailer adds to the true ones.
func member(header []byte, data []byte, sum, size uint32) []byte {
	packed := gz(data)
	deflated := packed[10 : len(packed)-8]
	out := append(bytes.Clone(header), deflated...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(data)+sum)
	return binary.LittleEndian.AppendUint32(out, uint32(len(data))+size)
}

// gzipHeader is a header with flags and the fields for them.
func gzipHeader(flags byte, fields string) []byte {
	return append([]byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 0xff}, fields...)
}

// withHeaderSum adds the checksum that flag 2 promises, and off.
func withHeaderSum(h []byte, off uint16) []byte {
	return binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h))+off)
}

const (
	flagText = 1 << iota
	flagHeaderSum
	flagExtra
	flagName
	flagComment
)

// gzipHeaders are odd headers around a good archive, and whether they are taken.
var gzipHeaders = map[string]struct {
	header []byte
	ok     bool
}{
	"plain":                         {gzipHeader(0, ""), true},
	"said to be text":               {gzipHeader(flagText, ""), true},
	"with a name":                   {gzipHeader(flagName, "demo-1.0.0.tar\x00"), true},
	"with a comment":                {gzipHeader(flagComment, "a comment\x00"), true},
	"with an empty name":            {gzipHeader(flagName, "\x00"), true},
	"with an extra field":           {gzipHeader(flagExtra, "\x08\x00AB\x04\x00data"), true},
	"with an extra field of nought": {gzipHeader(flagExtra, "\x00\x00"), true},
	"with a checksum":               {withHeaderSum(gzipHeader(flagHeaderSum, ""), 0), true},
	"with all of them":              {withHeaderSum(gzipHeader(flagExtra|flagName|flagComment|flagHeaderSum, "\x02\x00ABname\x00comment\x00"), 0), true},
	"with a wrong checksum":         {withHeaderSum(gzipHeader(flagHeaderSum, ""), 1), false},
	"with a name and a wrong sum":   {withHeaderSum(gzipHeader(flagName|flagHeaderSum, "name\x00"), 1), false},
	"with an extra field too long":  {gzipHeader(flagExtra, "\xff\xff"), false},
	"with a name without an end":    {gzipHeader(flagName, strings.Repeat("x", 70000)), false},
	"of method 7":                   {[]byte{0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0xff}, false},
	"of method 0":                   {[]byte{0x1f, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0xff}, false},
	"of another magic":              {[]byte{0x1f, 0x9d, 8, 0, 0, 0, 0, 0, 0, 0xff}, false},
	"of pack":                       {[]byte{0x1f, 0x1e, 8, 0, 0, 0, 0, 0, 0, 0xff}, false},
	"of zlib":                       {[]byte{0x78, 0x9c}, false},
	"of nothing":                    {nil, false},
}

func TestInspectReadsGzipHeadersAsTheyAre(t *testing.T) {
	for name, c := range gzipHeaders {
		t.Run(name, func(t *testing.T) {
			_, err := inspectBytes(member(c.header, archive(manifestEntry), 0, 0))
			if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTarball) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestInspectRefusesOtherStreams(t *testing.T) {
	tarBytes := archive(manifestEntry)
	good := gz(tarBytes)
	stored := func(length, complement uint16, data []byte) []byte { // RFC 1951 §3.2.4
		block := binary.LittleEndian.AppendUint16([]byte{1}, length)
		block = binary.LittleEndian.AppendUint16(block, complement)
		out := append(gzipHeader(0, ""), append(block, data...)...)
		out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(data))
		return binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	}
	n := uint16(len(tarBytes))
	if _, err := inspectBytes(stored(n, ^n, tarBytes)); err != nil {
		t.Fatalf("an honest stored block: %v", err)
	}
	for name, data := range map[string][]byte{
		"a wrong length":               member(gzipHeader(0, ""), tarBytes, 0, 1),
		"a length less 2^32":           member(gzipHeader(0, ""), tarBytes, 0, 1<<31),
		"a sum off by one":             member(gzipHeader(0, ""), tarBytes, 1, 0),
		"no trailer":                   good[:len(good)-8],
		"half a trailer":               good[:len(good)-4],
		"a trailer twice":              append(bytes.Clone(good), good[len(good)-8:]...),
		"NULs behind":                  append(bytes.Clone(good), make([]byte, 512)...),
		"an empty member before":       append(gz(nil), good...),
		"an empty member behind":       append(bytes.Clone(good), gz(nil)...),
		"a header behind":              append(bytes.Clone(good), good[:10]...),
		"gzip in gzip":                 gz(good),
		"a stored block too long":      stored(n+1, ^(n + 1), tarBytes),
		"a stored block of two minds":  stored(n, n, tarBytes),
		"a stored block cut":           stored(n-512, ^(n - 512), tarBytes),
		"a block of type 3":            append(gzipHeader(0, ""), append([]byte{7}, good[10:]...)...),
		"a block of no codes":          append(gzipHeader(0, ""), 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"a distance before all":        append(gzipHeader(0, ""), 0x63, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00),
		"no last block":                append(gzipHeader(0, ""), 0, 0, 0, 0xff, 0xff),
		"nothing but a header":         gzipHeader(0, ""),
		"zip":                          append([]byte("PK\x03\x04"), good...),
		"zstd":                         append([]byte{0x28, 0xb5, 0x2f, 0xfd}, good...),
		"xz":                           append([]byte("\xfd7zXZ\x00"), good...),
		"bzip2":                        append([]byte("BZh9"), good...),
		"a script":                     []byte("#!/bin/sh\nexit 0\n"),
		"a tar of NULs":                gz(make([]byte, 4*blockBytes)),
		"one block of NULs":            gz(make([]byte, blockBytes)),
		"the end before the manifest":  gz(append(make([]byte, 2*blockBytes), tarBytes...)),
		"one NUL block in between":     gz(headers(manifestEntry, make([]byte, blockBytes), file("a", ""), make([]byte, 2*blockBytes))),
		"a header of one bit":          gz(archive(append([]byte{1}, make([]byte, blockBytes-1)...))),
		"a cpio archive":               gz([]byte("070701" + strings.Repeat("0", 1018))),
		"a file that ends in the tar":  gz(headers(manifestEntry, file("a", "body")[:blockBytes+2])),
		"a file without its padding":   gz(headers(manifestEntry, file("a", "body")[:blockBytes+4])),
		"a size that swallows the end": gz(archive(manifestEntry, with(file("a", ""), 124, fmt.Sprintf("%011o\x00", 2*blockBytes)))),
		"a size that swallows a file":  gz(archive(with(file("a", ""), 124, fmt.Sprintf("%011o\x00", len(manifestEntry))), manifestEntry)),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := inspectBytes(data); !errors.Is(err, ErrTarball) && !errors.Is(err, ErrManifest) {
				t.Errorf("%v", err)
			}
		})
	}
}

// What unpacks to too much, in whatever way, is refused without being held.
func TestInspectRefusesBombs(t *testing.T) {
	padding := record("uname", strings.Repeat("u", 60<<10))
	tiny, wide, deep := [][]byte{manifestEntry}, [][]byte{manifestEntry}, [][]byte{manifestEntry}
	for i := range 300 {
		tiny = append(tiny, file(fmt.Sprintf("t%d", i), ""))
		wide = append(wide, entry('x', "x", padding), file(fmt.Sprintf("w%d", i), ""))
		deep = append(deep, file(strings.Repeat("d/", 20)+fmt.Sprintf("%d/f", i), ""))
	}
	for name, c := range map[string]struct {
		crate []byte
		l     Limits
	}{
		"many tiny files":         {crateOf(tiny...), Limits{Entries: 300}},
		"many folders":            {crateOf(deep...), Limits{Entries: 600}},
		"headers larger by far":   {crateOf(wide...), Limits{UnpackedBytes: 4 << 20}},
		"headers of one letter":   {crateOf(wide...), Limits{}},
		"blocks of zeros behind":  {crateOf(manifestEntry, make([]byte, 64<<20)), Limits{}},
		"one file of zeros":       {crateOf(manifestEntry, file("z", strings.Repeat("\x00", 64<<20))), Limits{}},
		"zeros before the limit":  {crateOf(manifestEntry, file("z", strings.Repeat("\x00", 2<<20))), Limits{UnpackedBytes: 2 << 20}},
		"a manifest of zeros":     {crateOf(file("Cargo.toml", strings.Repeat("\x00", maxManifestBytes+1))), Limits{}},
		"a claim of 8 GiB":        {crateOf(manifestEntry, with(file("a", ""), 124, "77777777777\x00")), Limits{}},
		"a claim in a PAX header": {crateOf(manifestEntry, with(entry('x', "x", ""), 124, "77777777777\x00")), Limits{}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Inspect(bytes.NewReader(c.crate), "demo", "1.0.0", c.l); !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrTarball) {
				t.Errorf("%d bytes: %v", len(c.crate), err)
			}
		})
	}
}

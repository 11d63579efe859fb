package cargo

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const maxSegments = 32

// tree is the set of paths seen in one tarball, by the form in which a file
// system that ignores case would compare them.
type tree struct {
	root  string // <name>-<version>
	l     Limits
	nodes map[string]node
}

type node struct {
	path    string
	folder  bool
	implied bool // a folder known only from a path below it
}

// add checks an entry's path and notes it and the folders it implies. It
// returns the path below the root, "" for the root itself.
func (t *tree) add(e tarEntry) (string, error) {
	path := e.path
	if e.folder {
		path = strings.TrimSuffix(path, "/")
	}
	if err := t.check(path); err != nil {
		return "", err
	}
	for i := 0; i < len(path); i++ {
		if path[i] == '/' {
			if err := t.note(node{path: path[:i], folder: true, implied: true}); err != nil {
				return "", err
			}
		}
	}
	if err := t.note(node{path: path, folder: e.folder}); err != nil {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimPrefix(path, t.root), "/"), nil
}

// note adds n, unless it is an implied folder already there, or collides.
func (t *tree) note(n node) error {
	key := fold(n.path)
	old, there := t.nodes[key]
	switch {
	case !there:
		if len(t.nodes) >= t.l.Entries {
			return problem(ErrTooLarge, CodeTooLarge, "the crate holds more than %d files and folders; leave some out with `exclude` in Cargo.toml", t.l.Entries)
		}
	case old.path != n.path:
		return problem(ErrTarball, CodeCollision, "the crate's paths %s and %s differ only in case or in the form of their accents; rename one of them", quote(old.path), quote(n.path))
	case !old.folder || !n.folder || !old.implied && !n.implied:
		return problem(ErrTarball, CodeCollision, "the crate holds %s more than once or as both file and folder; build it with `cargo package`", quote(n.path))
	default:
		n.implied = old.implied && n.implied
	}
	t.nodes[key] = n
	return nil
}

// check applies the rules for a whole path and for each segment.
func (t *tree) check(path string) error {
	if len(path) > t.l.PathBytes {
		return problem(ErrTooLarge, CodeTooLarge, "the crate holds a path of %d bytes, %s; at most %d are allowed", len(path), quote(path), t.l.PathBytes)
	}
	if path != t.root && !strings.HasPrefix(path, t.root+"/") {
		return badPath(path, "does not lie in the folder "+quote(t.root))
	}
	if !utf8.ValidString(path) {
		return badPath(path, "is not UTF-8")
	}
	if strings.Count(path, "/") >= maxSegments {
		return badPath(path, "is nested too deeply")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if what := badSegment(segment); what != "" {
			return badPath(path, what)
		}
	}
	return nil
}

func badPath(path, what string) error {
	return problem(ErrTarball, CodePath, "the crate's path %s %s; rename or exclude it and package the crate again", quote(path), what)
}

// badSegment says why a file of this name could not be unpacked alike
// everywhere; "" when it can. The forbidden characters are those that `cargo
// package` refuses, and control characters. cargo leaves a .cargo-ok out when
// it unpacks, and writes its own.
func badSegment(s string) string {
	switch {
	case s == "":
		return "has an empty part"
	case s == "." || s == "..":
		return "has a part that is " + s
	case strings.HasSuffix(s, ".") || strings.HasSuffix(s, " "):
		return "has a part that ends in a dot or a space"
	case len(s) > 255:
		return "has a part longer than 255 bytes"
	case strings.ContainsAny(s, `\<>:"|?*`):
		return `has one of the characters \ < > : " | ? *`
	case strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	}):
		return "has a control character"
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Cf, r) }):
		return "has a character that shows nothing; HFS+ passes over some of these, and people over all"
	case fold(s) == ".cargo-ok":
		return "has a part named .cargo-ok, the file with which cargo marks what it has unpacked"
	case isDevice(s):
		return "has a part that is a device name on Windows"
	case isShortName(s):
		return "has a part of the form that Windows gives to a second, short name of a file, such as CARGO~1.TOM"
	}
	return ""
}

// isShortName: at most eight characters, the last of them ~ and digits, and at
// most three behind a dot. On a volume with such names CARGO~1.TOM is Cargo.toml.
func isShortName(segment string) bool {
	stem, extension, _ := strings.Cut(segment, ".")
	before, numbered := strings.CutSuffix(strings.TrimRight(stem, "0123456789"), "~")
	return numbered && before != "" && len(before)+1 < len(stem) && len(stem) <= 8 && len(extension) <= 3
}

// isDevice: Windows takes nul, nul.txt and "nul .txt" for the device.
func isDevice(segment string) bool {
	stem, _, _ := strings.Cut(segment, ".")
	stem = fold(strings.TrimRight(stem, " "))
	for _, digit := range []string{"¹", "²", "³"} { // Windows reads these as digits in COM¹
		if stem == "com"+digit || stem == "lpt"+digit {
			return true
		}
	}
	if stem == "conin$" || stem == "conout$" { // the console
		return true
	}
	return len(stem) <= 4 && (stem == "con" || stem == "prn" || stem == "aux" || stem == "nul" ||
		len(stem) == 4 && (stem[:3] == "com" || stem[:3] == "lpt") && '0' <= stem[3] && stem[3] <= '9')
}

// fold maps names that differ only in case, by Unicode's simple folding, or in
// how accents are composed (macOS takes both forms for one name) to one key:
// each rune becomes the least lower-case one of its orbit.
func fold(s string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, norm.NFD.String(s)))
}

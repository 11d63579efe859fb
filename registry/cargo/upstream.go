package cargo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds on an index file of another registry.
const (
	MaxUpstreamFile  = 16 << 20 // bytes
	MaxUpstreamLines = 20_000
)

// UpstreamFile is a crate's index file as another registry serves it.
type UpstreamFile struct {
	// Name is the crate's, as the last of Lines spells it; "" where there are none.
	Name string
	// Lines are those that can be gone by, in the file's order. Several may be of one version.
	Lines []UpstreamLine
	// Ignored is how many other lines there are.
	Ignored int
}

// UpstreamLine is one line of an UpstreamFile, read only as far as the registry goes by
// it: the rest is for cargo, which is given the line as it stands.
type UpstreamLine struct {
	Name    string
	Version string            // as spelled
	Digest  [sha256.Size]byte // of the .crate
	// Published is its pubtime, zero where it has none or one of another form.
	Published time.Time
	Yanked    bool
	// Resolves is of all that a resolve takes from it, however it is written: a version
	// whose bytes are the same brings other crates along, or other features, where this differs.
	Resolves [sha256.Size]byte
	// Unread: cargo does not read it, and so does not have the version at all.
	Unread bool
	// Crashes: it is Unread, and who passes it on takes all versions of the file from cargo.
	Crashes bool
	// Raw is the line without its "\n". It is part of the file and must not be changed.
	Raw []byte
}

// ParseUpstreamFile reads the index file of the crate name, however that is spelled.
// An empty file has no lines. A file is refused that is too large, that holds what is no
// JSON or a line of another crate, or none that can be gone by: whoever answered so was
// not that registry, or not in order. A line is ignored, as cargo does, whose version,
// cksum or form it does not know, since the format grows. The error is a *Problem that
// matches ErrFrame or ErrTooLarge.
func ParseUpstreamFile(name string, file []byte) (UpstreamFile, error) {
	var f UpstreamFile
	if len(file) > MaxUpstreamFile {
		return f, problem(ErrTooLarge, CodeTooLarge, "an index file of %d bytes is larger than the %d allowed", len(file), MaxUpstreamFile)
	}
	canonical, number := CanonicalName(name), 0
	var known knownDeps
	for raw := range bytes.SplitSeq(file, []byte("\n")) {
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		if number++; number > MaxUpstreamLines {
			return UpstreamFile{}, problem(ErrTooLarge, CodeTooLarge, "an index file of more than the %d lines allowed", MaxUpstreamLines)
		}
		line, usable, err := parseUpstreamLine(raw, &known)
		if err != nil {
			return UpstreamFile{}, &Problem{Kind: ErrFrame, Code: CodeLine, Text: "a line of the index file of " + quote(name) + " is not JSON: " + short(err), Cause: err}
		}
		if line.Name != "" && CanonicalName(line.Name) != canonical {
			return UpstreamFile{}, problem(ErrFrame, CodeLine, "the index file of %s has a line of %s", quote(name), quote(line.Name))
		}
		if !usable {
			f.Ignored++
			continue
		}
		f.Name = line.Name
		f.Lines = append(f.Lines, line)
	}
	if f.Ignored > 0 && len(f.Lines) == 0 {
		return UpstreamFile{}, problem(ErrFrame, CodeLine, "the index file of %s has no line that can be read", quote(name))
	}
	return f, nil
}

// upstreamLine is what is read of a line.
type upstreamLine struct {
	Name    string  `json:"name"`
	Vers    string  `json:"vers"`
	Cksum   string  `json:"cksum"`
	Yanked  bool    `json:"yanked"`
	Pubtime *string `json:"pubtime"`
	V       *int    `json:"v"`
	resolution
}

// parseUpstreamLine reads one line. An error says that it is not JSON; usable, that
// it can be gone by.
func parseUpstreamLine(raw []byte, known *knownDeps) (line UpstreamLine, usable bool, err error) {
	var read upstreamLine
	if err := json.Unmarshal(raw, &read); err != nil {
		var syntactic *jsontext.SyntacticError
		if errors.As(err, &syntactic) || !jsontext.Value(raw).IsValid() {
			return UpstreamLine{}, false, err
		}
		return UpstreamLine{}, false, nil
	}
	line = UpstreamLine{Name: read.Name, Version: read.Vers, Yanked: read.Yanked, Raw: raw}
	if read.V != nil && *read.V != 1 && *read.V != 2 || !isIdent(read.Name, false) {
		return line, false, nil
	}
	if _, err := ParseVersion(read.Vers); err != nil {
		return line, false, nil
	}
	n, err := hex.Decode(line.Digest[:], []byte(read.Cksum[:min(len(read.Cksum), 2*sha256.Size)]))
	if err != nil || n != sha256.Size || len(read.Cksum) != 2*sha256.Size || strings.ToLower(read.Cksum) != read.Cksum {
		return line, false, nil
	}
	var by reading
	line.Resolves, by = read.digest(known)
	line.Unread, line.Crashes = by.unread, by.crashes
	if read.Pubtime != nil {
		at, err := time.Parse(timeLayout, *read.Pubtime)
		if err == nil && at.Format(timeLayout) == *read.Pubtime {
			line.Published = at
		}
		line.Unread = line.Unread || line.Published.IsZero() || at.Year() > lastPubtimeYear
	}
	return line, true, nil
}

// lastPubtimeYear is the last year of which cargo reads every moment.
const lastPubtimeYear = 9998

// Line finds the first line of exactly that version, with that digest and that Resolves, that cargo
// reads, or else the first of them.
func (f UpstreamFile) Line(version string, digest, resolves [sha256.Size]byte) (found UpstreamLine, ok bool) {
	for _, l := range f.Lines {
		if l.Version == version && l.Digest == digest && l.Resolves == resolves && (!ok || found.Unread && !l.Unread) {
			found, ok = l, true
		}
	}
	return found, ok
}

// Marshal writes the line with its final "\n": as it stands, but for yanked.
func (l UpstreamLine) Marshal(yanked bool) []byte {
	if l.Yanked == yanked {
		return append(bytes.Clone(l.Raw), '\n')
	}
	from, to, found := l.PlaceOfYanked()
	value := "true"
	switch {
	case !yanked:
		value = "false"
	case !found:
		value = `,"yanked":true`
	}
	out := make([]byte, 0, len(l.Raw)+len(value)+1)
	out = append(out, l.Raw[:from]...)
	out = append(out, value...)
	return append(append(out, l.Raw[to:]...), '\n')
}

// PlaceOfYanked is where the value of yanked stands in Raw, or, where it does not, where
// a member may be added. Raw has been parsed; who has not panics.
func (l UpstreamLine) PlaceOfYanked() (from, to int, found bool) {
	d := jsontext.NewDecoder(bytes.NewReader(l.Raw))
	if _, err := d.ReadToken(); err != nil { // {
		panic("cargo: a line that was parsed: " + err.Error())
	}
	for {
		name, err := d.ReadToken()
		if err != nil {
			panic("cargo: a line that was parsed: " + err.Error())
		}
		if name.Kind() == '}' {
			at := int(d.InputOffset()) - 1
			return at, at, false
		}
		wanted := name.String() == "yanked"
		value, err := d.ReadValue()
		if err != nil {
			panic("cargo: a line that was parsed: " + err.Error())
		}
		if end := int(d.InputOffset()); wanted {
			return end - len(value), end, true
		}
	}
}

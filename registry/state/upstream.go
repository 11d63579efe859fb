package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Bounds on what is kept of a crate of another registry.
const (
	MaxUpstreamVersions = cargo.MaxUpstreamLines
	MaxUpstreamClaims   = 4
)

// Upstream is what is known of a crate of another registry: of the index files of it
// that import records say were seen, in their order.
type Upstream struct {
	// Upstream is the other registry's name here, Name the crate's there.
	Upstream string `json:"upstream"`
	Name     string `json:"name"`
	// Record, Index and Seen (its entry's time) are of the last import record; Snapshot
	// is the index file that it names, Size that in bytes.
	Record   record.ID   `json:"record"`
	Index    int64       `json:"index"`
	Snapshot storage.CID `json:"snapshot"`
	Size     int64       `json:"size"`
	Seen     time.Time   `json:"seen"`
	// Versions are all that were ever seen, in the order first seen; no two differ in +build alone.
	Versions []UpstreamVersion `json:"versions"`
}

// UpstreamVersion is a version of a crate of another registry. It is listed there when
// the last snapshot has it, spelled so, with Digest and Resolves.
type UpstreamVersion struct {
	// Version is as first seen spelled.
	Version string `json:"version"`
	// Digest is the sha256 of the .crate that was said first. It stands for ever, and so
	// does Resolves, what it resolves to as was said with it (cargo.UpstreamLine.Resolves).
	Digest   Digest `json:"digest"`
	Resolves Digest `json:"resolves"`
	// First is the time of the entry with which the version was first seen.
	First time.Time `json:"first"`
	// Absent is the time of the last import before First: it was not there then, whatever
	// is said of when it was published. Zero where nothing was known of the crate.
	Absent time.Time `json:"absent,omitzero"`
	// Published is the first pubtime said of it, zero as long as none was. One that lies
	// ahead of First counts as that.
	Published time.Time `json:"published,omitzero"`
	// Since is when its age begins: Published (zero: First), or Absent where that is later.
	// Nothing that is said later makes it younger.
	Since time.Time `json:"since"`
	// Yanked is as upstream says, of a version that is Gone as it said last.
	Yanked bool `json:"yanked"`
	// Unread: cargo does not read its line, and never did. Once there is one that it reads, no
	// other lists the version.
	Unread bool `json:"unread,omitzero"`
	// Line is the snapshot in which its line stands: the last one that listed it
	// (cargo.UpstreamFile.Line finds it by Version, Digest and Resolves).
	Line storage.CID `json:"line,omitzero"` // only told where it is not the last snapshot
	// Gone is since when it is not listed any more, zero while it is.
	Gone time.Time `json:"gone,omitzero"`
	// Other is what was said of it besides Digest and Resolves, in the order first said, at
	// most MaxUpstreamClaims. It is evidence, and never believed.
	Other []UpstreamClaim `json:"other,omitzero"`
	// Again is of values that an older release made. It is passed over and never written.
	Again former `json:"again,omitzero"`
}

// former is a member that has no meaning any more.
type former struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*former) UnmarshalJSON([]byte) error { return nil }

// UpstreamClaim is what was said of a version and is not what was said first: other bytes,
// or of the same bytes that they resolve to something else.
type UpstreamClaim struct {
	Digest Digest `json:"digest"`
	// Resolves is told of the same bytes only.
	Resolves Digest `json:"resolves,omitzero"`
	// Time is when it was first said, Snapshot where.
	Time     time.Time   `json:"time"`
	Snapshot storage.CID `json:"snapshot"`
}

// SameBytes reports whether c names the bytes that were named first.
func (c UpstreamClaim) SameBytes() bool { return c.Resolves != Digest{} }

// Kind is changed of other bytes, altered of the same ones: as alarms are called.
func (c UpstreamClaim) Kind() string {
	if c.SameBytes() {
		return "altered"
	}
	return "changed"
}

// GoneAs says in a word why v is not listed as it was first, as alarms are called: changed or altered
// where that was said of it since, dropped where nothing else was said of it. "" where it is listed,
// and where it is not known any more: something that was said before may have been said again.
func (v UpstreamVersion) GoneAs() string {
	if v.Gone.IsZero() {
		return ""
	}
	if len(v.Other) == 0 {
		return "dropped"
	}
	if last := v.Other[len(v.Other)-1]; !last.Time.Before(v.Gone) {
		return last.Kind()
	}
	return ""
}

// Claim is what the line l says of v, its place and time aside; ok: it is not what was
// said first.
func (v UpstreamVersion) Claim(l cargo.UpstreamLine) (c UpstreamClaim, ok bool) {
	switch {
	case v.Digest != l.Digest:
		return UpstreamClaim{Digest: l.Digest}, true
	case v.Resolves != l.Resolves && v.Resolves != Digest{}: // zero: from an older release that runs beside this one
		return UpstreamClaim{Digest: l.Digest, Resolves: l.Resolves}, true
	}
	return UpstreamClaim{}, false
}

// Lists reports whether the line l says of v what was said first. One that cargo does not read says
// nothing where there was one that it read: otherwise who has v in a lock would be left without.
func (v UpstreamVersion) Lists(l cargo.UpstreamLine) bool {
	_, other := v.Claim(l)
	return !other && (v.Unread || !l.Unread)
}

// Claimed reports whether what c says is known to have been said of v.
func (v UpstreamVersion) Claimed(c UpstreamClaim) bool {
	return slices.ContainsFunc(v.Other, func(o UpstreamClaim) bool { return o.Digest == c.Digest && o.Resolves == c.Resolves })
}

// Digest is a sha256, in JSON 64 lower-case hex digits.
type Digest [sha256.Size]byte

// AppendText implements encoding.TextAppender.
func (d Digest) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, d[:]), nil }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return d.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler; it is for what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("a digest of %d characters", len(text))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

const upstreamPrefix = "upstream/"

// UpstreamPrefix begins the keys of all crates of the other registry upstream.
func UpstreamPrefix(upstream string) string { return upstreamPrefix + upstream + "/" }

// UpstreamsPrefix begins the keys of all crates of all other registries.
func UpstreamsPrefix() string { return upstreamPrefix }

// UpstreamKey is the key of the Upstream of a crate, however spelled.
func UpstreamKey(upstream, crate string) string {
	return UpstreamPrefix(upstream) + cargo.CanonicalName(crate)
}

// UpstreamOf returns what is known of a crate of another registry, however spelled.
func UpstreamOf(s Store, upstream, crate string) (Upstream, bool, error) {
	u, ok, err := get[Upstream](s, UpstreamKey(upstream, crate))
	u.fillLines()
	return u, ok, err
}

// DecodeUpstream reads a value under UpstreamsPrefix.
func DecodeUpstream(value []byte) (Upstream, error) {
	u, err := decode[Upstream](value)
	u.fillLines()
	return u, err
}

// fillLines undoes what put leaves out.
func (u *Upstream) fillLines() {
	for i := range u.Versions {
		if v := &u.Versions[i]; v.Line.IsZero() {
			v.Line = u.Snapshot
		}
	}
}

// Find returns the version whose identity is that of version, its +build aside.
func (u Upstream) Find(version string) (UpstreamVersion, bool) {
	key := withoutBuild(version)
	for _, v := range u.Versions {
		if withoutBuild(v.Version) == key {
			return v, true
		}
	}
	return UpstreamVersion{}, false
}

// withoutBuild is cargo.Version.WithoutBuild of what has been parsed.
func withoutBuild(version string) string {
	key, _, _ := strings.Cut(version, "+")
	return key
}

// applyImport takes in what the registry saw of a crate of another registry.
func (a *application) applyImport() error {
	h, subject := a.record.Header(), a.record.Subject()
	if h.Signer.DID != a.settings.Origin {
		return refuse(ErrNotEntitled, "only the registry itself says what it saw of another one")
	}
	if h.By != a.settings.Record {
		return refuse(ErrNotEntitled, "by does not name the registry record in force, %s", a.settings.Record)
	}
	u, _, err := UpstreamOf(a.store, subject.Upstream(), subject.Crate())
	if err != nil {
		return err
	}
	id := a.record.Snapshot()
	raw, err := a.attachment(id)
	if err != nil {
		return err
	}
	if u, err = u.After(a.record, raw, a.entry); err != nil {
		return err
	}
	value, err := u.Encode()
	if err != nil {
		return err
	}
	a.changes = append(a.changes, Change{Key: UpstreamKey(subject.Upstream(), subject.Crate()), Value: value})
	return nil
}

// Encode is the value of u in state.
func (u Upstream) Encode() ([]byte, error) {
	u.Versions = slices.Clone(u.Versions)
	for i := range u.Versions {
		if v := &u.Versions[i]; v.Line == u.Snapshot {
			v.Line = storage.CID{}
		}
	}
	c, err := put("upstream", u)
	return c.Value, err
}

// OlderUpstream reports whether a value under UpstreamsPrefix is from a release that did not
// keep what versions resolve to.
func OlderUpstream(value []byte) bool { return !bytes.Contains(value, []byte(`"resolves":`)) }

// After is what is known of a crate once the import record r, in the entry e, said that
// the index file snapshot was seen, where u was known before (the zero value: nothing was).
// Who signed r, and what it follows, is not looked at. Errors: ErrNoChange; ErrInvalid for
// what no import record may say.
func (u Upstream) After(r *record.Record, snapshot []byte, e Entry) (Upstream, error) {
	subject, id, known := r.Subject(), r.Snapshot(), u.Record != ""
	if known && u.Snapshot == id {
		return u, refuse(ErrNoChange, "%s was last seen so by entry %d", subject, u.Index)
	}
	file, err := cargo.ParseUpstreamFile(subject.Crate(), snapshot)
	if err != nil {
		return u, refuse(ErrInvalid, "snapshot %s: %v", id, err)
	}
	switch {
	case len(file.Lines) == 0 && !known:
		return u, refuse(ErrInvalid, "the snapshot %s is empty, and nothing is known of %s: that it is not there is no change", id, subject)
	case len(file.Lines) == 0 && u.Name != subject.Crate(), len(file.Lines) > 0 && file.Name != subject.Crate():
		return u, refuse(ErrInvalid, "the crate is spelled otherwise there than in %s", subject)
	}
	u.Versions = slices.Clone(u.Versions)
	u.see(file, id, e.Time)
	if len(u.Versions) > MaxUpstreamVersions {
		return u, refuse(ErrInvalid, "%s would have %d versions; at most %d", subject, len(u.Versions), MaxUpstreamVersions)
	}
	u.Upstream, u.Name, u.Record, u.Index = subject.Upstream(), subject.Crate(), r.ID(), e.Index
	u.Snapshot, u.Size, u.Seen = id, int64(len(snapshot)), e.Time
	return u, nil
}

// see takes in that file, the snapshot id, was seen at that time.
func (u *Upstream) see(file cargo.UpstreamFile, id storage.CID, at time.Time) {
	places := make(map[string]int, len(u.Versions)+len(file.Lines))
	for i, v := range u.Versions {
		places[withoutBuild(v.Version)] = i
	}
	listed := make([]bool, len(u.Versions), len(u.Versions)+len(file.Lines))
	for _, l := range file.Lines {
		i, known := places[withoutBuild(l.Version)]
		if !known {
			i = len(u.Versions)
			places[withoutBuild(l.Version)] = i
			u.Versions = append(u.Versions, UpstreamVersion{Version: l.Version, Digest: l.Digest, Resolves: l.Resolves, Unread: l.Unread, First: at, Absent: u.Seen})
			listed = append(listed, false)
		}
		v := &u.Versions[i]
		if v.Version != l.Version { // another one, which has no place beside the first
			continue
		}
		if c, other := v.Claim(l); other {
			c.Time, c.Snapshot = at, id
			v.claim(c)
		} else if v.Lists(l) && (!listed[i] || v.Unread && !l.Unread) {
			listed[i] = true
			v.list(l, id)
		}
	}
	for i := range u.Versions {
		if v := &u.Versions[i]; !listed[i] && v.Gone.IsZero() {
			v.Gone = at
		}
	}
}

// list takes in that the version is listed by l.
func (v *UpstreamVersion) list(l cargo.UpstreamLine, id storage.CID) {
	v.Resolves, v.Unread = l.Resolves, l.Unread
	if said := l.Published; v.Published.IsZero() && !said.IsZero() {
		v.Published = earlier(said, v.First)
	}
	v.Since = v.Published
	if v.Since.IsZero() {
		v.Since = v.First
	}
	v.Since = later(v.Since, v.Absent)
	v.Gone, v.Yanked, v.Line = time.Time{}, l.Yanked, id
}

// claim notes what is not believed.
func (v *UpstreamVersion) claim(c UpstreamClaim) {
	if len(v.Other) < MaxUpstreamClaims && !v.Claimed(c) {
		v.Other = append(slices.Clip(v.Other), c)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

package verify

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Nobody publishes here what comes from other registries, so there is no publisher's
// signature to hold it to. What can be proved is that everybody who builds through this
// registry gets the same bytes: those that it first saw named there, and signed to have
// seen (FORMATS §4).

// WantUpstream is a version of a crate of another registry that is to be proved.
type WantUpstream struct {
	// Subject is upstream/<registry>/<crate>, with the crate spelled in any way.
	Subject record.Subject
	Version string
	// CID is as in Want.
	CID storage.CID
}

func (w WantUpstream) String() string { return w.Subject.String() + "@" + w.Version }

// Seen is what import records tell of a version besides its first digest. Nothing of it
// makes a verdict fail: bytes that were seen first stay what they are.
type Seen struct {
	// First is when the registry first saw the version there.
	First time.Time `json:"first"`
	// Imports is how many records about the crate there are, up to the checkpoint.
	Imports int `json:"imports"`
	// Yanked is as said there last; Gone is since when it is not listed there any more as
	// it first was, zero while it is.
	Yanked bool      `json:"yanked"`
	Gone   time.Time `json:"gone,omitzero"`
	// Other is what was said of it later, of its bytes or what they resolve to, and is not
	// believed.
	Other []state.UpstreamClaim `json:"other,omitzero"`
}

// Upstream judges the evidence for one version of a crate of another registry: every
// import record about the crate with the index file that it names, and what entitles the
// registry to them. A verdict that is OK proves that want.CID is the digest that the index
// named when the version was first seen there. Its Record, Index and Time are of that import
// record, its CID the version's. As with Artifact, that nothing was left out only Replay proves.
func Upstream(want WantUpstream, ev Evidence, pin Pin) Verdict {
	v := Verdict{Subject: want.String(), Index: -1}
	t := readTrail(ev.Items, pin.Origin)
	opened, ok := v.checkLog(t, ev.Checkpoint, ev.Consistency, pin)
	if !ok {
		v.skip(CheckRecord, CheckBytes, CheckSignature, CheckAuthority, CheckInclusion, CheckHistory)
		return v
	}
	seen := t.imports(want)
	err := seen.found()
	v.add(CheckRecord, err, "%s is the import record in which %s was first seen", short(seen.first), want.Version)
	if err != nil {
		v.skip(CheckBytes, CheckSignature, CheckAuthority)
		v.checkInclusion(t, opened)
		v.add(CheckHistory, seen.problem, "%d import records of %s, in order, each by the registry", seen.length, want.Subject)
		return v
	}
	v.describe(seen.first)
	v.CID = storage.CIDFromDigest(seen.version.Digest)
	v.Upstream, v.Yanked = seen.told(), seen.version.Yanked
	v.add(CheckBytes, seen.checkBytes(want.CID), "%s", v.CID)
	chain := t.restsOn(seen.first)
	v.Chain = steps(chain)
	v.add(CheckSignature, firstError(chain, func(l *line) error { return l.signature }), "%d records signed; what was seen by %s", len(chain), v.Signer)
	v.add(CheckAuthority, firstError(chain, func(l *line) error { return l.authority }), "%d steps from %s to entry 0", len(chain), seen.first)
	v.checkInclusion(t, opened)
	v.add(CheckHistory, seen.problem, "%d import records of %s, in order, each by the registry", seen.length, want.Subject)
	return v
}

// sightings are the import records about a crate, read in order.
type sightings struct {
	want   WantUpstream
	now    state.Upstream
	length int
	last   *line
	// first is where want's version was first seen, version what is known of it now; nil and
	// zero where it was not.
	first   *line
	version state.UpstreamVersion
	// problem is where the history breaks.
	problem error
}

// imports goes through the records about want's crate, as far as they hold.
func (t *trail) imports(want WantUpstream) *sightings {
	s := &sightings{want: want}
	if s.problem = cmp.Or(t.problem, t.duplicate, t.checkTimes()); s.problem != nil {
		return s
	}
	for _, l := range t.lines {
		if l.record.Subject().Thing() != want.Subject.Thing() {
			continue
		}
		if err := s.see(t, l); err != nil {
			s.problem = fmt.Errorf("%s: %w", l, err)
			return s
		}
	}
	return s
}

func (s *sightings) see(t *trail, l *line) error {
	if l.record.Type() != record.TypeImport {
		return fmt.Errorf("a %s record is not about what another registry has", l.record.Type())
	}
	if err := checkFollows(l, s.last); err != nil {
		return err
	}
	if err := errors.Join(l.signature, l.authority); err != nil && !l.disowned {
		return err
	}
	snapshot, ok := t.attachments[l.record.Snapshot()]
	if !ok {
		return fmt.Errorf("the index file that it names, %s, is missing from the evidence", l.record.Snapshot())
	}
	now, err := s.now.After(l.record, snapshot, state.Entry{Index: l.item.Index, Time: l.entry.Time, DIDDocument: l.entry.DIDDocument})
	if err != nil {
		return err
	}
	s.now, s.last, s.length = now, l, s.length+1
	if v, ok := now.Find(s.want.Version); ok && v.Version == s.want.Version {
		if s.version = v; s.first == nil {
			s.first = l
		}
	}
	return nil
}

// found is nil where the version was seen.
func (s *sightings) found() error {
	switch {
	case s.first != nil:
		return nil
	case s.problem != nil:
		return s.problem
	case s.length == 0:
		return fmt.Errorf("no record says that %s was seen", s.want.Subject)
	}
	return fmt.Errorf("none of the %d index files seen of %s lists %s", s.length, s.want.Subject, s.want.Version)
}

func (s *sightings) told() *Seen {
	v := s.version
	return &Seen{First: v.First, Imports: s.length, Yanked: v.Yanked, Gone: v.Gone, Other: v.Other}
}

func (s *sightings) checkBytes(want storage.CID) error {
	first := storage.CIDFromDigest(s.version.Digest)
	if want.IsZero() || want == first {
		return nil
	}
	for _, o := range s.version.Other {
		if !o.SameBytes() && storage.CIDFromDigest(o.Digest) == want {
			return fmt.Errorf("the bytes have sha256 %s, which was said of it only from %s on; first seen was %s, and that stands",
				want.Hex(), o.Time.UTC().Format(time.RFC3339), first.Hex())
		}
	}
	return fmt.Errorf("the bytes have sha256 %s, what was first seen has %s: they are not the same", want.Hex(), first.Hex())
}

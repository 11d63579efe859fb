package record

import (
	"crypto/sha256"
	"regexp"
	"strings"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// Kind is an artifact's kind.
type Kind string

// The five kinds of artifacts.
const (
	KindCrate          Kind = "crate"
	KindALNShard       Kind = "aln-shard"
	KindEvidenceBundle Kind = "evidence-bundle"
	KindManifest       Kind = "manifest"
	KindQPUDatashard   Kind = "qpu-datashard"
)

// Kinds lists the five kinds in byte order.
func Kinds() []Kind {
	return []Kind{KindALNShard, KindCrate, KindEvidenceBundle, KindManifest, KindQPUDatashard}
}

// ParseKind accepts the five kinds.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case KindCrate, KindALNShard, KindEvidenceBundle, KindManifest, KindQPUDatashard:
		return k, nil
	}
	return "", malformed("kind %q is not crate, aln-shard, evidence-bundle, manifest or qpu-datashard", clip(s))
}

var (
	upstreamForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	nameForm      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	crateNameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
)

// Subject is what a record is about, in parsed form: the registry, a member, an
// artifact or one version of it, a grant, a rule, or a crate of another registry.
// The zero value is no subject.
type Subject struct {
	text    string
	thing   string
	kind    Kind
	name    string
	version string
	member  did.DID
	grant   storage.CID
	rule    string
	// upstream is the registry of crate; artifacts' names are ours alone.
	upstream, crate string
}

// String returns the subject's name as it stands in the statement.
func (s Subject) String() string { return s.text }

// Thing returns the key by which changes of one thing are ordered ("the same
// thing" of FORMATS §2): artifact names in canonical spelling, no version.
func (s Subject) Thing() string { return s.thing }

// Kind returns the artifact's kind, "" when the subject is no artifact.
func (s Subject) Kind() Kind { return s.kind }

// Name returns the artifact's name as spelled, "" when there is none.
func (s Subject) Name() string { return s.name }

// Version returns the artifact's version as spelled, "" when there is none.
func (s Subject) Version() string { return s.version }

// Member returns the DID that a member subject is about, "" for others.
func (s Subject) Member() did.DID { return s.member }

// Grant returns the CID of the EnvGrant that a grant subject is about, zero for others.
func (s Subject) Grant() storage.CID { return s.grant }

// Upstream returns the name of the other registry that an upstream subject is about, ""
// for others.
func (s Subject) Upstream() string { return s.upstream }

// Crate returns the crate of the other registry that an upstream subject is about, as
// spelled there, "" for others.
func (s Subject) Crate() string { return s.crate }

// Rule returns the id of the rule that a rule subject is about, "" for others.
func (s Subject) Rule() string { return s.rule }

// GrantSubject is the subject of grant and revoke records.
func GrantSubject(id storage.CID) Subject {
	text := "grant/" + id.String()
	return Subject{text: text, thing: text, grant: id}
}

// RuleSubject is the subject of quarantine and release records, and of the votes on the latter.
func RuleSubject(id string) (Subject, error) {
	if err := particle.CheckRuleID(id); err != nil {
		return Subject{}, malformed("%v", err)
	}
	text := "rule/" + id
	return Subject{text: text, thing: text, rule: id}, nil
}

// CheckUpstream checks a name that other registries are called by here: lower-case
// letters, digits and '-', at most 64. crates.io's is crates-io.
func CheckUpstream(name string) error {
	if !upstreamForm.MatchString(name) {
		return malformed("%q is not a name for another registry; use lower-case letters, digits and '-', at most 64", clip(name))
	}
	return nil
}

// UpstreamSubject is the subject of import records: a crate of another registry.
func UpstreamSubject(upstream, crate string) (Subject, error) {
	if err := CheckUpstream(upstream); err != nil {
		return Subject{}, err
	}
	if !crateNameForm.MatchString(crate) {
		return Subject{}, malformed("%q is not a name for a crate", clip(crate))
	}
	prefix := "upstream/" + upstream + "/"
	return Subject{text: prefix + crate, thing: prefix + cargo.CanonicalName(crate), upstream: upstream, crate: crate}, nil
}

// RegistrySubject is the subject of registry records.
func RegistrySubject() Subject { return Subject{text: "registry", thing: "registry"} }

// MemberSubject is the subject of member and did records about d.
func MemberSubject(d did.DID) Subject {
	text := "member/" + d.Escaped()
	return Subject{text: text, thing: text, member: d}
}

// ArtifactSubject is the subject of own records.
func ArtifactSubject(k Kind, name string) (Subject, error) {
	form := nameForm
	if k == KindCrate {
		form = crateNameForm
	}
	if !form.MatchString(name) {
		return Subject{}, malformed("%q is not a name for a %s", clip(name), k)
	}
	text := string(k) + "/" + name
	return Subject{text: text, thing: string(k) + "/" + cargo.CanonicalName(name), kind: k, name: name}, nil
}

// VersionSubject is the subject of publish and yank records.
func VersionSubject(k Kind, name, version string) (Subject, error) {
	s, err := ArtifactSubject(k, name)
	if err != nil {
		return Subject{}, err
	}
	if _, err := cargo.ParseVersion(version); err != nil {
		return Subject{}, malformed("version of %s: %v", s, err)
	}
	s.text += "@" + version
	s.version = version
	return s, nil
}

// ParseSubject parses a subject's name; only the canonical spelling of what the
// constructors above produce is accepted.
func ParseSubject(text string) (Subject, error) {
	if len(text) > maxText {
		return Subject{}, malformed("subject is longer than %d bytes", maxText)
	}
	if text == "registry" {
		return RegistrySubject(), nil
	}
	head, rest, ok := strings.Cut(text, "/")
	if !ok {
		return Subject{}, malformed("subject %q", clip(text))
	}
	if head == "member" {
		d, err := did.Unescape(rest)
		if err != nil {
			return Subject{}, malformed("subject %q: %v", clip(text), err)
		}
		return MemberSubject(d), nil
	}
	switch head {
	case "grant":
		id, err := storage.ParseCID(rest)
		if err != nil {
			return Subject{}, malformed("subject %q: %v", clip(text), err)
		}
		return GrantSubject(id), nil
	case "rule":
		return RuleSubject(rest)
	case "upstream":
		upstream, crate, _ := strings.Cut(rest, "/")
		return UpstreamSubject(upstream, crate)
	}
	kind, err := ParseKind(head)
	if err != nil {
		return Subject{}, err
	}
	name, version, versioned := strings.Cut(rest, "@")
	if !versioned {
		return ArtifactSubject(kind, name)
	}
	return VersionSubject(kind, name, version)
}

// ParseReference parses the name that people give an artifact or one version
// of it: KIND/NAME or KIND/NAME@VERSION, for crates also without the kind.
func ParseReference(text string) (Subject, error) {
	if !strings.Contains(text, "/") {
		text = string(KindCrate) + "/" + text
	}
	s, err := ParseSubject(text)
	if err == nil && s.kind == "" {
		err = malformed("%q names no artifact", clip(text))
	}
	return s, err
}

// AddOwnerCommand is what an owner types to make d an owner too. It is not cargo's
// for a crate either, which needs the name that a project has for the registry.
func AddOwnerCommand(k Kind, name string, d did.DID) string {
	return "aln-registry owner add " + string(k) + "/" + name + " " + string(d)
}

// digest is the sha256 that a statement about s names where it is not about other
// bytes (Type.ofBytes): of the shard for a grant, of the subject's name for all others.
func (s Subject) digest() [sha256.Size]byte {
	if !s.grant.IsZero() {
		return s.grant.Digest()
	}
	return sha256.Sum256([]byte(s.text))
}

// fits reports whether a record of type t may be about s.
func (s Subject) fits(t Type) bool {
	switch t {
	case TypeRegistry:
		return s.text == "registry"
	case TypeMember, TypeDID:
		return s.member != ""
	case TypePublish, TypeYank:
		return s.version != ""
	case TypeOwn, TypeOwnIntent:
		return s.name != "" && s.version == ""
	case TypeApprove:
		return s.text == "registry" || s.rule != ""
	case TypeGrant, TypeRevoke:
		return !s.grant.IsZero()
	case TypeQuarantine, TypeRelease:
		return s.rule != ""
	case TypeImport:
		return s.upstream != ""
	}
	return false
}

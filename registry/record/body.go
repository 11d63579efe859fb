package record

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// Body is what a predicate says besides the header. The field order is the
// order written; the names are FORMATS §2's.
type Body interface {
	recordType() Type
	// check reports the first breach of the type's own syntax.
	check(subject Subject) error
}

// TierAccess says what a host without an EnvGrant gets.
type TierAccess string

// The two values of TierAccess.
const (
	Allow TierAccess = "allow"
	Deny  TierAccess = "deny"
)

// TierDefault is what a host of each tier gets without an EnvGrant.
type TierDefault struct {
	CoreStakeholder TierAccess `json:"core_stakeholder"`
	Collaborator    TierAccess `json:"collaborator"`
	Guest           TierAccess `json:"guest"`
}

// Registry is the registry's whole settings; each `registry` record states all of them.
type Registry struct {
	DID         did.DID      `json:"did"`
	DIDDocument *storage.CID `json:"did_document"`
	// LogKeys are the log's Ed25519 public keys as Multikey; the first signs new checkpoints.
	LogKeys []string `json:"log_keys"`
	// IndexURLs are the names by which manifests call this registry, as cargo
	// writes them: sparse+https://host/index/. The first is the declared one.
	IndexURLs      []string    `json:"index_urls"`
	Admins         []did.DID   `json:"admins"`
	AdminThreshold int         `json:"admin_threshold"`
	ReleaseK       int         `json:"release_k"`
	TierDefault    TierDefault `json:"tier_default"`
	// MinAgeDays is the cooldown in days for all readers, 0 for none.
	MinAgeDays int `json:"min_age_days"`
	// DependencyRegistries are index URLs of other registries that crates may depend on.
	DependencyRegistries []string `json:"dependency_registries"`
	// PrivateNames are prefixes of crate names that are never asked upstream.
	PrivateNames []string `json:"private_names"`
}

// Member admits, changes or (no roles) removes a member.
type Member struct {
	DIDDocument      *storage.CID `json:"did_document"`
	Roles            []string     `json:"roles"`
	Tier             string       `json:"tier"`
	StakeholderAddrs []string     `json:"stakeholder_addrs"`
}

// FirstMember is what entry 1 of a log says, the first admin's own member record
// (FORMATS §4): every role that the registry knows but mirror.
func FirstMember() *Member {
	return &Member{
		Roles: []string{"publisher", "grantor", "reviewer", "auditor"},
		Tier:  particle.TierCoreStakeholder, StakeholderAddrs: []string{},
	}
}

// DIDChange replaces a did:web member's DID document.
type DIDChange struct {
	DIDDocument storage.CID `json:"did_document"`
	// CompromisedSince is the log index from which on nothing that the replaced
	// keys signed is believed; nil: they were only retired.
	CompromisedSince *int64 `json:"compromised_since"`
}

// Publish enters the bytes of one version of an artifact.
type Publish struct {
	Evidence []storage.CID `json:"evidence"`
	// MediaType is said of every kind but crate.
	MediaType string `json:"media_type,omitzero"`
}

// Yank marks or unmarks one version.
type Yank struct {
	Yanked bool `json:"yanked"`
}

// Own changes an artifact's owners.
type Own struct {
	Add    []did.DID `json:"add"`
	Remove []did.DID `json:"remove"`
	// Intent is the blob of the owner's own-intent where the registry signs for cargo.
	Intent *storage.CID `json:"intent"`
}

// OwnIntent entitles the registry to sign owner changes for a moment. It is a
// blob, never an entry.
type OwnIntent struct{}

// Approve is one vote on a proposal.
type Approve struct {
	Record  ID     `json:"record"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

// The verdicts of Approve.
const (
	VerdictApprove = "approve"
	VerdictReject  = "reject"
)

// Grant puts an EnvGrant blob in force, which the subject names and the record attaches.
type Grant struct{}

// Revoke ends a grant.
type Revoke struct {
	Reason string `json:"reason"`
}

// Quarantine makes a rule or amends it; an amendment states the whole rule.
type Quarantine struct {
	// A member of its own: the rule says when it expires, as every predicate does of the record.
	particle.QuarantineRule `json:"rule"`
}

// Release proposes to end a rule; enough approvals execute it.
type Release struct {
	Reason string `json:"reason"`
	// Evidence names an artifact that says more.
	Evidence *storage.CID `json:"evidence"`
}

// Import says that the registry saw the snapshot, whose sha256 is the record's digest,
// as the index file of a crate of another registry.
type Import struct{}

func (*Registry) recordType() Type   { return TypeRegistry }
func (*Member) recordType() Type     { return TypeMember }
func (*DIDChange) recordType() Type  { return TypeDID }
func (*Publish) recordType() Type    { return TypePublish }
func (*Yank) recordType() Type       { return TypeYank }
func (*Own) recordType() Type        { return TypeOwn }
func (*OwnIntent) recordType() Type  { return TypeOwnIntent }
func (*Approve) recordType() Type    { return TypeApprove }
func (*Grant) recordType() Type      { return TypeGrant }
func (*Revoke) recordType() Type     { return TypeRevoke }
func (*Quarantine) recordType() Type { return TypeQuarantine }
func (*Release) recordType() Type    { return TypeRelease }
func (*Import) recordType() Type     { return TypeImport }

// newBody returns an empty body of type t, nil if t is not known.
func newBody(t Type) Body {
	switch t {
	case TypeRegistry:
		return new(Registry)
	case TypeMember:
		return new(Member)
	case TypeDID:
		return new(DIDChange)
	case TypePublish:
		return new(Publish)
	case TypeYank:
		return new(Yank)
	case TypeOwn:
		return new(Own)
	case TypeOwnIntent:
		return new(OwnIntent)
	case TypeApprove:
		return new(Approve)
	case TypeGrant:
		return new(Grant)
	case TypeRevoke:
		return new(Revoke)
	case TypeQuarantine:
		return new(Quarantine)
	case TypeRelease:
		return new(Release)
	case TypeImport:
		return new(Import)
	}
	return nil
}

// Bounds on lists and texts inside records.
const (
	maxList   = 256
	maxText   = 512
	maxReason = 1024
	maxCount  = 1 << 20
)

var (
	roleForm      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	printableForm = regexp.MustCompile(`^[\x21-\x7e]+$`)
	mediaTypeForm = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$`)
)

func (b *Registry) check(Subject) error {
	if err := checkDIDs("admins", b.Admins); err != nil {
		return err
	}
	if _, err := did.Parse(string(b.DID)); err != nil {
		return malformed("did: %v", err)
	}
	if (b.DID.Method() == "web") != (b.DIDDocument != nil) {
		return malformed("did_document must be given for did:web and null for did:key")
	}
	for _, key := range b.LogKeys {
		parsed, err := did.ParseMultikey(key)
		if err != nil {
			return malformed("log_keys: %v", err)
		}
		if parsed.Algorithm() != did.EdDSA {
			return malformed("log_keys: a log key is Ed25519")
		}
	}
	for _, list := range []struct {
		name  string
		texts []string
	}{
		{"log_keys", b.LogKeys}, {"index_urls", b.IndexURLs},
		{"dependency_registries", b.DependencyRegistries}, {"private_names", b.PrivateNames},
	} {
		if err := checkTexts(list.name, list.texts, printableForm); err != nil {
			return err
		}
	}
	switch {
	case len(b.LogKeys) == 0:
		return malformed("log_keys is empty: it needs at least one")
	case len(b.IndexURLs) == 0:
		return malformed("index_urls is empty: it needs at least one")
	case len(b.Admins) == 0:
		return malformed("admins is empty: it needs at least one")
	case b.AdminThreshold < 1 || b.AdminThreshold > len(b.Admins):
		return malformed("admin_threshold %d is not between 1 and the number of admins, %d", b.AdminThreshold, len(b.Admins))
	case b.ReleaseK < 1 || b.ReleaseK > maxList:
		return malformed("release_k %d is not between 1 and %d", b.ReleaseK, maxList)
	case b.MinAgeDays < 0 || b.MinAgeDays > maxCount:
		return malformed("min_age_days %d is out of range", b.MinAgeDays)
	}
	for _, access := range []TierAccess{b.TierDefault.CoreStakeholder, b.TierDefault.Collaborator, b.TierDefault.Guest} {
		if access != Allow && access != Deny {
			return malformed("tier_default says %q, not allow or deny", clip(string(access)))
		}
	}
	return nil
}

func (b *Member) check(s Subject) error {
	if err := checkTexts("roles", b.Roles, roleForm); err != nil {
		return err
	}
	if err := checkTexts("stakeholder_addrs", b.StakeholderAddrs, printableForm); err != nil {
		return err
	}
	if (s.Member().Method() == "web") != (b.DIDDocument != nil) {
		return malformed("did_document must be given for did:web and null for did:key")
	}
	switch b.Tier {
	case "core_stakeholder", "collaborator", "guest":
		return nil
	}
	return malformed("tier %q is not core_stakeholder, collaborator or guest", clip(b.Tier))
}

func (b *DIDChange) check(s Subject) error {
	if s.Member().Method() != "web" {
		return malformed("only a did:web has a document to replace")
	}
	if b.CompromisedSince != nil && (*b.CompromisedSince < 0 || *b.CompromisedSince >= 1<<53) {
		return malformed("compromised_since is not a log index")
	}
	return nil
}

func (b *Publish) check(s Subject) error {
	if len(b.Evidence) > maxList {
		return malformed("more than %d evidence CIDs", maxList)
	}
	for i, id := range b.Evidence {
		if slices.Contains(b.Evidence[:i], id) {
			return malformed("evidence %s is named twice", id)
		}
	}
	if s.Kind() == KindCrate {
		if b.MediaType != "" {
			return malformed("a crate has no media_type")
		}
		return nil
	}
	if !mediaTypeForm.MatchString(b.MediaType) {
		return malformed("media_type %q is not type/subtype in lower case", clip(b.MediaType))
	}
	return nil
}

func (b *Yank) check(Subject) error { return nil }

func (b *Own) check(Subject) error {
	if err := checkDIDs("add", b.Add); err != nil {
		return err
	}
	if err := checkDIDs("remove", b.Remove); err != nil {
		return err
	}
	if len(b.Add)+len(b.Remove) == 0 {
		return malformed("neither add nor remove names anyone")
	}
	for _, d := range b.Add {
		if slices.Contains(b.Remove, d) {
			return malformed("%s is both added and removed", d)
		}
	}
	return nil
}

func (b *OwnIntent) check(Subject) error { return nil }

func (b *Approve) check(Subject) error {
	if b.Record == "" {
		return malformed("record is null")
	}
	if b.Verdict != VerdictApprove && b.Verdict != VerdictReject {
		return malformed("verdict %q is not approve or reject", clip(b.Verdict))
	}
	return checkReason(b.Reason)
}

func (b *Grant) check(Subject) error { return nil }

func (b *Import) check(Subject) error { return nil }

func (b *Revoke) check(Subject) error { return checkReason(b.Reason) }

func (b *Release) check(Subject) error { return checkReason(b.Reason) }

func (b *Quarantine) check(Subject) error {
	if err := b.Check(); err != nil {
		return malformed("%v", err)
	}
	for _, m := range b.Match {
		if m.Versions == "" {
			continue
		}
		if _, err := cargo.ParseReq(m.Versions); err != nil {
			return malformed("versions: %v", err)
		}
	}
	return nil
}

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return malformed("reason is longer than %d bytes", maxReason)
	}
	// It is shown in terminals, where control characters are commands.
	if strings.ContainsFunc(reason, unicode.IsControl) {
		return malformed("reason has control characters; write it in one line")
	}
	return nil
}

func checkDIDs(name string, list []did.DID) error {
	if len(list) > maxList {
		return malformed("%s has more than %d members", name, maxList)
	}
	for i, d := range list {
		if _, err := did.Parse(string(d)); err != nil {
			return malformed("%s: %v", name, err)
		}
		if slices.Contains(list[:i], d) {
			return malformed("%s names %s twice", name, d)
		}
	}
	return nil
}

func checkTexts(name string, list []string, form *regexp.Regexp) error {
	if len(list) > maxList {
		return malformed("%s has more than %d members", name, maxList)
	}
	for i, s := range list {
		if len(s) > maxText || !form.MatchString(s) {
			return malformed("%s: %q is not allowed there", name, clip(s))
		}
		if slices.Contains(list[:i], s) {
			return malformed("%s names %q twice", name, s)
		}
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// Package state says what a record does to the registry's state, and who may
// make it (docs/FORMATS.md §2 and §3). State is a pure function of the log:
// Apply, run over entries 0…n-1 in order, is the only thing that makes it. The
// origin runs Apply under the log's head lock, rebuild and mirrors run the same
// function over the same bytes and so derive the same state.
//
// Invariants: Apply reads only its arguments, changes none of them, and always
// answers, with changes or with a refusal that names the rule. Authority is
// judged by the state before the entry, time by the entry. What is unknown,
// unreadable or contradictory is refused.
package state

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Refusals. Each error of Apply that is not a failure of the Store wraps
// exactly one of them.
var (
	// ErrInvalid: the record is wrong whoever signs it: other registry, outside its time, bad signature, senseless change.
	ErrInvalid = errors.New("record refused")
	// ErrNotEntitled: the signer may not do this, or `by` or `key` does not show that they may.
	ErrNotEntitled = errors.New("not entitled")
	// ErrStale: prev is not the last record about this thing.
	ErrStale = errors.New("signed for an earlier state")
	// ErrTaken: the name or version is in use with other content.
	ErrTaken = errors.New("already taken")
	// ErrNoChange: what the record asks for is so already.
	ErrNoChange = errors.New("nothing to change")
	// ErrMissing: the record is about something that does not exist.
	ErrMissing = errors.New("no such thing")
)

// Store reads state by key. A key that was never written is ok == false.
type Store interface {
	Get(key string) (value []byte, ok bool, err error)
}

// Memory is a Store in memory, for replays and tests.
type Memory map[string][]byte

// Get implements Store.
func (m Memory) Get(key string) ([]byte, bool, error) {
	value, ok := m[key]
	return value, ok, nil
}

// Put makes changes visible to later Gets.
func (m Memory) Put(changes []Change) {
	for _, c := range changes {
		m[c.Key] = c.Value
	}
}

// Change is a new value for a key; keys are never deleted.
type Change struct {
	Key   string
	Value []byte
}

// Entry is the log entry a record stands in.
type Entry struct {
	Index int64
	// Time is the entry's, from which every deadline is counted.
	Time time.Time
	// DIDDocument is the signer's document in force, zero for did:key.
	DIDDocument storage.CID
}

// Attachments are the blobs that a record names, by CID: DID documents, own-intents,
// the EnvGrant that a grant record's subject names and the snapshot of an import record.
type Attachments map[storage.CID][]byte

// Settings is the registry's settings in force.
type Settings struct {
	// Record is the registry record that put them in force: what admins cite as `by`.
	Record record.ID `json:"record"`
	// DocumentRecord put the registry's own DID document in force; empty for did:key.
	DocumentRecord record.ID `json:"document_record"`
	// Origin is entry 0's did.
	Origin did.DID `json:"origin"`
	// LogKeysHistory is nil as long as the log's keys are those of entry 0.
	LogKeysHistory *LogKeys `json:"log_keys_history,omitzero"`
	record.Registry
}

// History returns how the log's keys came to be what they are.
func (s Settings) History() LogKeys {
	if s.LogKeysHistory == nil {
		return LogKeys{}
	}
	return *s.LogKeysHistory
}

// Member is a member, or (no roles) a former one.
type Member struct {
	DID              did.DID  `json:"did"`
	Roles            []string `json:"roles"`
	Tier             string   `json:"tier"`
	StakeholderAddrs []string `json:"stakeholder_addrs"`
	// Record is the member record in force: what the member cites as `by`.
	Record record.ID `json:"record"`
	// Documents are a did:web member's DID documents, the last one in force.
	Documents []Document `json:"documents"`
}

// Document is a DID document that is or was in force.
type Document struct {
	CID storage.CID `json:"cid"`
	// Record put it in force: what a did:web signer cites as `key`.
	Record record.ID `json:"record"`
	Since  int64     `json:"since"`
	// CompromisedSince is the index from which on its keys and those of earlier documents
	// are not believed, save those that the next one holds; nil: they were only retired.
	CompromisedSince *int64 `json:"compromised_since"`
}

// Active reports whether m is a member now.
func (m Member) Active() bool { return len(m.Roles) > 0 }

// Has reports whether m holds role.
func (m Member) Has(role string) bool { return slices.Contains(m.Roles, role) }

// Roles that rules mention.
const (
	RolePublisher = "publisher"
	RoleGrantor   = "grantor"
	RoleReviewer  = "reviewer"
	RoleAuditor   = "auditor"
	RoleMirror    = "mirror"
)

// Artifact is a name with its owners.
type Artifact struct {
	Kind record.Kind `json:"kind"`
	// Name is as its first publish spelled it.
	Name   string  `json:"name"`
	Owners []Owner `json:"owners"`
	// Intent is the own-intent that the last change of this thing cites, zero otherwise.
	Intent *storage.CID `json:"intent"`
}

// Owner is an owner and the record that made them one: what they cite as `by`.
type Owner struct {
	DID    did.DID   `json:"did"`
	Record record.ID `json:"record"`
}

// Owner returns the owner whose DID is d.
func (a Artifact) Owner(d did.DID) (Owner, bool) {
	i := slices.IndexFunc(a.Owners, func(o Owner) bool { return o.DID == d })
	if i < 0 {
		return Owner{}, false
	}
	return a.Owners[i], true
}

// Version is one version of an artifact. Only Yanked ever changes.
type Version struct {
	Kind      record.Kind   `json:"kind"`
	Name      string        `json:"name"`
	Version   string        `json:"version"`
	CID       storage.CID   `json:"cid"`
	MediaType string        `json:"media_type"`
	Evidence  []storage.CID `json:"evidence"`
	Publisher did.DID       `json:"publisher"`
	// Record is the publish record, Index its log index, Time its entry's time.
	Record record.ID `json:"record"`
	Index  int64     `json:"index"`
	Time   time.Time `json:"time"`
	Yanked bool      `json:"yanked"`
}

// Proposal is a change that waits for k of n: settings, or the end of a rule.
type Proposal struct {
	Record record.ID `json:"record"`
	// Base is what was in force when it was made: the settings record, or the
	// rule's (null for a shipped one). Another one in force voids it.
	Base record.ID `json:"base"`
	// Approvals are those who approved it, of settings the proposer first.
	Approvals []did.DID `json:"approvals"`
	Open      bool      `json:"open"`
	// Registry are the proposed settings, zero for the end of a rule.
	Registry record.Registry `json:"registry,omitzero"`
	// Rule is the rule to end, "" for settings; Proposer is whose votes do not count.
	Rule     string  `json:"rule,omitzero"`
	Proposer did.DID `json:"proposer,omitzero"`
}

// By is who proposed it.
func (p Proposal) By() did.DID {
	if p.Rule == "" {
		return p.Approvals[0]
	}
	return p.Proposer
}

// Head is the last applied record about a thing: what the next one cites as `prev`.
type Head struct {
	Record record.ID   `json:"record"`
	Type   record.Type `json:"type"`
	Index  int64       `json:"index"`
	Signer did.DID     `json:"signer"`
}

// Keys of state. A DID stands in them as it is, names in canonical spelling.
const keySettings = "registry"

func keyHead(thing string) string                { return "head/" + thing }
func keyMember(d did.DID) string                 { return memberPrefix + string(d) }
func keyProposal(id record.ID) string            { return proposalPrefix + string(id) }
func keyArtifact(k record.Kind, n string) string { return ArtifactPrefix(k) + cargo.CanonicalName(n) }

const (
	memberPrefix   = "member/"
	proposalPrefix = "proposal/"
	versionPrefix  = "version/"
)

// ProposalPrefix begins the keys of all proposals.
func ProposalPrefix() string { return proposalPrefix }

// MemberPrefix begins the keys of all members.
func MemberPrefix() string { return memberPrefix }

// ArtifactPrefix begins the keys of all artifacts of kind k.
func ArtifactPrefix(k record.Kind) string { return "artifact/" + string(k) + "/" }

// VersionPrefix begins the keys of all versions of an artifact.
func VersionPrefix(k record.Kind, name string) string {
	return versionPrefix + string(k) + "/" + cargo.CanonicalName(name) + "/"
}

// VersionsPrefix begins the keys of all versions of everything.
func VersionsPrefix() string { return versionPrefix }

func keyVersion(s record.Subject) (string, error) {
	v, err := cargo.ParseVersion(s.Version())
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return VersionPrefix(s.Kind(), s.Name()) + v.WithoutBuild(), nil
}

// SettingsOf returns the settings in force; ok is false before entry 0.
func SettingsOf(s Store) (v Settings, ok bool, err error) { return get[Settings](s, keySettings) }

// SettingsIn returns the settings that changes put in force, if they do.
func SettingsIn(changes []Change) (v Settings, ok bool, err error) {
	for _, c := range changes {
		if c.Key == keySettings {
			v, err = decode[Settings](c.Value)
			return v, err == nil, err
		}
	}
	return Settings{}, false, nil
}

// MemberOf returns the member or former member d.
func MemberOf(s Store, d did.DID) (v Member, ok bool, err error) { return get[Member](s, keyMember(d)) }

// ArtifactOf returns the artifact of that name, however spelled.
func ArtifactOf(s Store, k record.Kind, name string) (v Artifact, ok bool, err error) {
	return get[Artifact](s, keyArtifact(k, name))
}

// VersionOf returns the version that subject names, however name and build metadata are spelled.
func VersionOf(s Store, subject record.Subject) (v Version, ok bool, err error) {
	key, err := keyVersion(subject)
	if err != nil {
		return Version{}, false, err
	}
	return get[Version](s, key)
}

// HeadOf returns the last applied record about a thing (record.Subject.Thing).
func HeadOf(s Store, thing string) (v Head, ok bool, err error) { return get[Head](s, keyHead(thing)) }

// DecodeMember and its siblings read values found by range over keys.
func DecodeMember(value []byte) (Member, error) { return decode[Member](value) }

// MemberKey is the key of the Member d.
func MemberKey(d did.DID) string { return keyMember(d) }

// VersionKey is the key of the Version that subject names, ErrInvalid where it names none.
func VersionKey(subject record.Subject) (string, error) { return keyVersion(subject) }

// SettingsKey is the key of the Settings.
func SettingsKey() string { return keySettings }

// HeadKey is the key of the Head of a thing; its history is the thing's.
func HeadKey(thing string) string { return keyHead(thing) }

// DecodeHead reads a value under HeadKey.
func DecodeHead(value []byte) (Head, error) { return decode[Head](value) }

// ProposalOf returns the proposal that the record id made.
func ProposalOf(s Store, id record.ID) (v Proposal, ok bool, err error) {
	return get[Proposal](s, keyProposal(id))
}

// DecodeProposal reads a value under ProposalPrefix.
func DecodeProposal(value []byte) (Proposal, error) { return decode[Proposal](value) }

// DecodeArtifact reads a value under ArtifactPrefix.
func DecodeArtifact(value []byte) (Artifact, error) { return decode[Artifact](value) }

// DecodeVersion reads a value under VersionPrefix.
func DecodeVersion(value []byte) (Version, error) { return decode[Version](value) }

func get[T any](s Store, key string) (T, bool, error) {
	var zero T
	value, ok, err := s.Get(key)
	if err != nil || !ok {
		return zero, false, err
	}
	v, err := decode[T](value)
	if err != nil {
		return zero, false, fmt.Errorf("state %s: %w", key, err)
	}
	return v, true, nil
}

func decode[T any](value []byte) (T, error) {
	var v T
	if err := json.Unmarshal(value, &v, json.RejectUnknownMembers(true)); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// put encodes a value of one of this package's types, which always succeeds
// for values that came from parsed records; its order of members is fixed, so
// equal states are equal bytes.
func put(key string, v any) (Change, error) {
	value, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return Change{}, fmt.Errorf("%w: encode state %s: %v", ErrInvalid, key, err)
	}
	return Change{Key: key, Value: value}, nil
}

package particle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

// ErrMalformed: the bytes are not the particle in the form of FORMATS §7.
var ErrMalformed = errors.New("malformed particle")

// Bounds on a particle's bytes and lists.
const (
	// MaxBytes is the largest particle read.
	MaxBytes = 64 << 10
	maxList  = 256
	maxText  = 512
	// MaxInlineCrates is how many hashes surely fit into an EnvGrant; more go into a list blob.
	MaxInlineCrates = 800
	// MaxListed bounds the hashes of a list blob.
	MaxListed = 1_000_000
)

// AllCrates in allowed_crates allows every crate that nothing else forbids.
const AllCrates = "*"

// EnvGrant is the particle of that name, the constitution of a build
// environment (FORMATS §7): an aln-shard blob, in force only through a grant
// record. Exactly one of AllowedCrates and AllowedCratesList is there.
type EnvGrant struct {
	// Registry is the origin it is for, Issuer who grants, Subject the host's DID.
	Registry did.DID `json:"registry"`
	Issuer   did.DID `json:"issuer"`
	Subject  did.DID `json:"subject"`
	// NotBefore ≤ time < Expires is when it can be in force.
	NotBefore Time `json:"not_before"`
	Expires   Time `json:"expires"`
	// MaxMemMB and MaxDiskMB are in MiB; the tier bounds the memory.
	MaxMemMB  int64 `json:"max_mem_mb"`
	MaxDiskMB int64 `json:"max_disk_mb"`
	// AllowedCrates are hex sha256 digests or CIDs, or AllCrates alone; empty: none.
	AllowedCrates []string `json:"allowed_crates,omitzero"`
	// AllowedCratesList is the CID of a list blob (ParseList).
	AllowedCratesList *storage.CID `json:"allowed_crates_list,omitzero"`
	// MinAgeDays is the cooldown under this grant, in days.
	MinAgeDays int64 `json:"min_age_days"`
	// AllowedProtocols are URL schemes and the like, AllowedEndpoints host or host:port.
	AllowedProtocols []string `json:"allowed_protocols"`
	AllowedEndpoints []string `json:"allowed_endpoints"`
	OffshoreFlag     bool     `json:"offshore_flag"`
	Tier             string   `json:"tier"`
	// MemoryPool and ExecutionDomain name published shards (MemoryPoolShard, ExecutionDomain).
	MemoryPool      *storage.CID `json:"memory_pool"`
	ExecutionDomain *storage.CID `json:"execution_domain"`
	// Supersedes is the grant that this one takes the place of.
	Supersedes *storage.CID `json:"supersedes"`
}

// Time is a whole second of UTC, spelled YYYY-MM-DDThh:mm:ssZ (FORMATS §1).
type Time struct{ time.Time }

const timeForm = "2006-01-02T15:04:05Z"

// At returns t as particles hold it.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Second)} }

// String returns the one spelling.
func (t Time) String() string { return t.UTC().Format(timeForm) }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalJSON implements json.Marshaler: time.Time's own would be promoted.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalText accepts exactly what MarshalText writes.
func (t *Time) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(timeForm, string(text))
	if err != nil || parsed.Format(timeForm) != string(text) {
		return malformed("time %q is not YYYY-MM-DDThh:mm:ssZ", clip(string(text)))
	}
	t.Time = parsed
	return nil
}

// UnmarshalJSON implements json.Unmarshaler: time.Time's own would be promoted.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return malformed("a time is a string")
	}
	return t.UnmarshalText(b[1 : len(b)-1])
}

// tierMemory is the most memory of each tier in MiB: 2,097,152,000 bytes for
// core stakeholders, half of it for collaborators, 256 MB for guests.
var tierMemory = map[string]int64{TierCoreStakeholder: 2000, TierCollaborator: 1000, TierGuest: 256}

// TierMemoryMB returns the most memory of a tier in MiB, 0 for an unknown one.
func TierMemoryMB(tier string) int64 { return tierMemory[tier] }

// ParseEnvGrant reads an EnvGrant strictly: no unknown, missing or duplicate
// members, times in their one spelling, bounds kept. The error wraps ErrMalformed.
func ParseEnvGrant(raw []byte) (EnvGrant, error) {
	g, err := parse[EnvGrant]("EnvGrant", raw)
	if err != nil {
		return EnvGrant{}, err
	}
	return g, g.Check()
}

// Marshal returns the blob.
func (g EnvGrant) Marshal() ([]byte, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	return json.Marshal(g)
}

// Check reports the first breach of the particle's own rules.
func (g EnvGrant) Check() error {
	for i, d := range []did.DID{g.Registry, g.Issuer, g.Subject} {
		if _, err := did.Parse(string(d)); err != nil {
			return malformed("%s: %v", []string{"registry", "issuer", "subject"}[i], err)
		}
	}
	most, known := tierMemory[g.Tier]
	switch {
	case !known:
		return malformed("tier %q is not core_stakeholder, collaborator or guest", clip(g.Tier))
	case !g.NotBefore.Before(g.Expires.Time):
		return malformed("expires is not after not_before")
	case g.MaxMemMB < 0 || g.MaxMemMB > most:
		return malformed("max_mem_mb %d is not between 0 and %d, the most of tier %s", g.MaxMemMB, most, g.Tier)
	case g.MaxDiskMB < 0 || g.MaxDiskMB >= 1<<53:
		return malformed("max_disk_mb %d is out of range", g.MaxDiskMB)
	case g.MinAgeDays < 0 || g.MinAgeDays > 1<<20:
		return malformed("min_age_days %d is out of range", g.MinAgeDays)
	case (g.AllowedCrates == nil) == (g.AllowedCratesList == nil):
		return malformed("exactly one of allowed_crates and allowed_crates_list is given")
	}
	if err := checkAll(texts{"allowed_protocols", g.AllowedProtocols}, texts{"allowed_endpoints", g.AllowedEndpoints}); err != nil {
		return err
	}
	_, _, err := g.Hashes()
	return err
}

// Hashes returns what allowed_crates lists, in its order; all is true for AllCrates.
func (g EnvGrant) Hashes() (hashes [][32]byte, all bool, err error) {
	if slices.Equal(g.AllowedCrates, []string{AllCrates}) {
		return nil, true, nil
	}
	seen := make(map[[32]byte]bool, len(g.AllowedCrates))
	for _, text := range g.AllowedCrates {
		h, err := ParseHash(text)
		if err != nil {
			return nil, false, malformed("allowed_crates: %v", err)
		}
		if seen[h] {
			return nil, false, malformed("allowed_crates names %s twice", clip(text))
		}
		seen[h] = true
		hashes = append(hashes, h)
	}
	return hashes, false, nil
}

// ParseHash reads a lower-case hex sha256 or a CID.
func ParseHash(text string) ([32]byte, error) {
	if len(text) == 64 && strings.Trim(text, "0123456789abcdef") == "" {
		var h [32]byte
		_, err := hex.Decode(h[:], []byte(text))
		return h, err
	}
	id, err := storage.ParseCID(text)
	if err != nil {
		return [32]byte{}, malformed("%q is neither a lower-case hex sha256 nor a CID", clip(text))
	}
	return id.Digest(), nil
}

// ParseList reads a list blob: one lower-case hex sha256 a line, ascending
// without repetition, each line ended by \n, at most MaxListed lines.
func ParseList(raw []byte) ([][32]byte, error) {
	const line = 2*32 + 1
	if len(raw)%line != 0 || len(raw)/line > MaxListed {
		return nil, malformed("a list of crates is lines of 64 hex digits, at most %d of them", MaxListed)
	}
	hashes := make([][32]byte, len(raw)/line)
	for i := range hashes {
		text := raw[i*line : (i+1)*line]
		if text[line-1] != '\n' || !lowerHex(text[:line-1]) {
			return nil, malformed("line %d of the list of crates is not 64 lower-case hex digits", i+1)
		}
		if _, err := hex.Decode(hashes[i][:], text[:line-1]); err != nil {
			return nil, malformed("line %d of the list of crates: %v", i+1, err)
		}
		if i > 0 && bytes.Compare(hashes[i-1][:], hashes[i][:]) >= 0 {
			return nil, malformed("line %d of the list of crates does not sort after the one before", i+1)
		}
	}
	return hashes, nil
}

func lowerHex(text []byte) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// MarshalList writes a list blob of hashes, sorted and each once.
func MarshalList(hashes [][32]byte) []byte {
	sorted := slices.Clone(hashes)
	slices.SortFunc(sorted, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	sorted = slices.Compact(sorted)
	var list bytes.Buffer
	for _, h := range sorted {
		list.WriteString(hex.EncodeToString(h[:]))
		list.WriteByte('\n')
	}
	return list.Bytes()
}

// parse decodes strictly and holds raw to say every member.
func parse[T any](what string, raw []byte) (T, error) {
	var v, none T
	if len(raw) > MaxBytes {
		return none, malformed("%s of %d bytes; at most %d", what, len(raw), MaxBytes)
	}
	if err := json.Unmarshal(raw, &v, json.RejectUnknownMembers(true)); err != nil {
		return none, malformed("%s: not strict JSON of this form: %.300s", what, err.Error()) // which quotes what it was given
	}
	ours, err := json.Marshal(v)
	if err != nil {
		return none, malformed("%s: %v", what, err)
	}
	same, err := SameJSON(raw, ours)
	if err != nil {
		return none, malformed("%s: %v", what, err)
	}
	if !same {
		return none, malformed("%s: a member is missing, or spelled in another way than FORMATS §7 says", what)
	}
	return v, nil
}

// texts is a list of texts and the member's name that holds it.
type texts struct {
	name string
	list []string
}

// checkAll is checkTexts of each, in their order: the same breach is named every time.
func checkAll(all ...texts) error {
	for _, t := range all {
		if err := checkTexts(t.name, t.list); err != nil {
			return err
		}
	}
	return nil
}

func checkTexts(name string, list []string) error {
	if len(list) > maxList {
		return malformed("%s has more than %d members", name, maxList)
	}
	for i, s := range list {
		if s == "" || len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return malformed("%s: %q is not allowed there", name, clip(s))
		}
		if slices.Contains(list[:i], s) {
			return malformed("%s names %q twice", name, clip(s))
		}
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// clip keeps foreign text short enough for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

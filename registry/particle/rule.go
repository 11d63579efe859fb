package particle

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

// QuarantineRule says what nobody may build with, or (EffectWaiveMinAge) what
// need not wait out the cooldown. It is the body of a quarantine record about
// rule/<id>; the shipped ones are built in until the first record about theirs.
type QuarantineRule struct {
	Effect string `json:"effect"`
	Mode   string `json:"mode"`
	// Match: the rule hits what any of these describes.
	Match  []RuleMatch `json:"match"`
	Reason string      `json:"reason"`
	// Evidence names an artifact that says more.
	Evidence *storage.CID `json:"evidence"`
	// Expires ends the rule at that second; nil: never.
	Expires *Time `json:"expires"`
	// Grace: until that second a build that has the version in its lockfile still
	// downloads it, though no resolver picks it any more; nil: no such time.
	Grace *Time `json:"grace"`
}

// RuleMatch describes artifacts: by all of its members that are not empty, and of
// each by any of what it lists.
type RuleMatch struct {
	// Names are names or patterns in which * is any run of characters, compared canonically.
	Names []string `json:"names"`
	// Versions is a requirement as Cargo spells it, "" for all.
	Versions string `json:"versions"`
	// Hashes are hex sha256 digests or CIDs of the bytes.
	Hashes     []string  `json:"hashes"`
	Publishers []did.DID `json:"publishers"`
	// Sources are SourceHosted, SourceCratesIO, upstream/<name> or mirror/<name>.
	Sources []string `json:"sources"`
	// Content names recognisers of package registry/content: ContentBLAKE3.
	Content []string `json:"content"`
}

// Effects and modes of a rule.
const (
	EffectDeny        = "deny"
	EffectWaiveMinAge = "waive_min_age"
	ModeEnforce       = "enforce"
	ModeDryRun        = "dry_run"
)

// Sources of artifacts.
const (
	SourceHosted   = "hosted"
	SourceCratesIO = "crates-io"
)

// UpstreamSource is the source of what comes from the other registry that is called
// upstream here: crates.io's name is its source.
func UpstreamSource(upstream string) string {
	if upstream == SourceCratesIO {
		return SourceCratesIO
	}
	return "upstream/" + upstream
}

// UpstreamOf undoes UpstreamSource; false for a source that is no other registry's, or is
// hosted or mirrored.
func UpstreamOf(source string) (upstream string, ok bool) {
	if source == SourceCratesIO {
		return source, true
	}
	return strings.CutPrefix(source, "upstream/")
}

// CheckSource checks that s may be an artifact's source.
func CheckSource(s string) error {
	if s != SourceHosted && s != SourceCratesIO && !sourceForm.MatchString(s) || s == "upstream/"+SourceCratesIO {
		return malformed("%q is not hosted, crates-io, upstream/NAME or mirror/NAME", clip(s))
	}
	return nil
}

// ContentBLAKE3 recognises an implementation of BLAKE3.
const ContentBLAKE3 = "blake3"

// Bounds on a rule.
const (
	maxMatches = 16
	maxReason  = 1024
)

var (
	ruleIDForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	patternForm  = regexp.MustCompile(`^[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}$`)
	sourceForm   = regexp.MustCompile(`^(mirror|upstream)/[a-z0-9][a-z0-9-]{0,63}$`)
	versionsForm = regexp.MustCompile(`^[\x20-\x7e]{0,256}$`)
)

// CheckRuleID reports whether id can name a rule.
func CheckRuleID(id string) error {
	if !ruleIDForm.MatchString(id) {
		return malformed("rule %q is not named by 1 to 64 of a-z, 0-9, '.', '_' and '-'", clip(id))
	}
	return nil
}

// Check reports the first breach of the form of a rule. That Versions is a
// requirement is for the caller to check: what Cargo's are is not known here.
func (r QuarantineRule) Check() error {
	switch {
	case r.Effect != EffectDeny && r.Effect != EffectWaiveMinAge:
		return malformed("effect %q is not deny or waive_min_age", clip(r.Effect))
	case r.Mode != ModeEnforce && r.Mode != ModeDryRun:
		return malformed("mode %q is not enforce or dry_run", clip(r.Mode))
	case len(r.Match) == 0 || len(r.Match) > maxMatches:
		return malformed("match has %d members, not 1 to %d", len(r.Match), maxMatches)
	case r.Reason == "" || len(r.Reason) > maxReason || strings.ContainsFunc(r.Reason, unicode.IsControl):
		return malformed("reason is not one line of 1 to %d bytes", maxReason)
	case r.Grace != nil && r.Effect != EffectDeny:
		return malformed("only a rule that denies has a grace")
	case r.Grace != nil && r.Expires != nil && !r.Grace.Before(r.Expires.Time):
		return malformed("grace does not end before the rule expires")
	}
	for _, m := range r.Match {
		if err := m.check(); err != nil {
			return err
		}
	}
	return nil
}

func (m RuleMatch) check() error {
	if len(m.Names)+len(m.Versions)+len(m.Hashes)+len(m.Publishers)+len(m.Sources)+len(m.Content) == 0 {
		return malformed("a member of match that describes nothing would hit everything; name * where that is meant")
	}
	var publishers []string
	for _, d := range m.Publishers {
		if _, err := did.Parse(string(d)); err != nil {
			return malformed("publishers: %v", err)
		}
		publishers = append(publishers, string(d))
	}
	err := checkAll(texts{"names", m.Names}, texts{"hashes", m.Hashes}, texts{"publishers", publishers}, texts{"sources", m.Sources}, texts{"content", m.Content})
	if err != nil {
		return err
	}
	for _, pattern := range m.Names {
		if !patternForm.MatchString(pattern) {
			return malformed("names: %q is no name and no pattern of one", clip(pattern))
		}
	}
	for _, hash := range m.Hashes {
		if _, err := ParseHash(hash); err != nil {
			return err
		}
	}
	for _, source := range m.Sources {
		if err := CheckSource(source); err != nil {
			return malformed("sources: %q is not hosted, crates-io, upstream/NAME or mirror/NAME", clip(source))
		}
	}
	for _, content := range m.Content {
		if content != ContentBLAKE3 {
			return malformed("content: %q is not a recogniser that this version knows (blake3)", clip(content))
		}
	}
	if !versionsForm.MatchString(m.Versions) {
		return malformed("versions is not a requirement")
	}
	return nil
}

// ShippedRule is a rule that is built in.
type ShippedRule struct {
	ID string
	QuarantineRule
}

// ShippedRules are in force until the first record about their id, in the order of their ids.
func ShippedRules() []ShippedRule {
	return []ShippedRule{{
		ID: "blake3",
		QuarantineRule: QuarantineRule{
			Effect: EffectDeny, Mode: ModeEnforce,
			Match: []RuleMatch{
				{Names: []string{"blake3", "blake3-*", "blake-3", "blake-3-*", "b3sum", "bao"}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}},
				{Names: []string{}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{ContentBLAKE3}},
			},
			Reason: "BLAKE3 is quarantined here until reviewers release it: content is addressed by SHA-256, and a second hash needs an audit first",
		},
	}}
}

// Shipped returns the built-in rule of that id.
func Shipped(id string) (QuarantineRule, bool) {
	rules := ShippedRules()
	i := slices.IndexFunc(rules, func(r ShippedRule) bool { return r.ID == id })
	if i < 0 {
		return QuarantineRule{}, false
	}
	return rules[i].QuarantineRule, true
}

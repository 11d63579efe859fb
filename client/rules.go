package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	rulesPath = "/v1/rules"
	// mostRules is how many rules are listed, at most.
	mostRules = 100_000
)

// States of a rule.
const (
	RuleInForce = "in_force"
	RuleExpired = "expired"
	RuleEnded   = "ended"
)

// RuleInfo is a quarantine rule as the registry tells it.
type RuleInfo struct {
	ID string `json:"id"`
	// Shipped: the rule is built in, and no record changed it yet.
	Shipped bool `json:"shipped"`
	// Record made or amended it, "" for a shipped one.
	Record record.ID               `json:"record"`
	State  string                  `json:"state"`
	Rule   particle.QuarantineRule `json:"rule"`
	// Proposals are those to end it.
	Proposals []ReleaseInfo `json:"proposals"`
}

// ReleaseInfo is a proposal to end a rule, with those who approved of it.
type ReleaseInfo struct {
	Record    record.ID `json:"record"`
	By        did.DID   `json:"by"`
	Approvals []did.DID `json:"approvals"`
	Open      bool      `json:"open"`
}

// Rules lists the quarantine rules, those that ended too: all of them, in the order
// of their ids.
func (r *Registry) Rules(ctx context.Context) ([]RuleInfo, error) {
	var found []RuleInfo
	for after := ""; ; {
		var page struct {
			Rules []RuleInfo `json:"rules"`
			Next  string     `json:"next"`
		}
		if err := r.Bare().readJSON(ctx, rulesPath+"?"+url.Values{"after": {after}}.Encode(), maxBundle, &page); err != nil {
			return nil, err
		}
		found = append(found, page.Rules...)
		switch {
		case page.Next == "":
			return found, nil
		case page.Next <= after || len(page.Rules) == 0 || len(found) > mostRules:
			return nil, fmt.Errorf("%w: its pages of rules have no end", ErrAnswer)
		}
		after = page.Next
	}
}

// Rule asks for one quarantine rule.
func (r *Registry) Rule(ctx context.Context, id string) (RuleInfo, error) {
	var rule RuleInfo
	if err := r.Bare().readJSON(ctx, rulesPath+"/"+url.PathEscape(id), maxAnswer, &rule); err != nil {
		return RuleInfo{}, err
	}
	if rule.ID != id {
		return RuleInfo{}, fmt.Errorf("%w: asked for the rule %s, got %.80q", ErrAnswer, id, rule.ID)
	}
	return rule, nil
}

// Hit is an artifact that a rule hits.
type Hit struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	CID     string `json:"cid"`
	Source  string `json:"source,omitzero"` // hosted ("" of an older server), crates-io or upstream/NAME
}

// Hits are the artifacts that a rule hits: the first of Total.
type Hits struct {
	Hits  []Hit `json:"hits"`
	Total int   `json:"total"`
}

// TestRule asks what a rule would hit among what is published, or seen of other registries, and visible to us.
func (r *Registry) TestRule(ctx context.Context, rule particle.QuarantineRule) (Hits, error) {
	var hits Hits
	err := r.ask(ctx, rulesPath+"/test", struct {
		Rule particle.QuarantineRule `json:"rule"`
	}{rule}, &hits)
	return hits, err
}

// ask posts a question, as a reader.
func (r *Registry) ask(ctx context.Context, path string, question, into any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	return r.asReader(ctx, func(token string) error {
		return r.web.json(ctx, call{method: http.MethodPost, path: path, token: token, contentType: "application/json", body: body}, maxBundle, into)
	})
}

// Decision is what the registry decided about one version.
type Decision struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	CID     string `json:"cid"`
	// Known: it may be told of. Listed: a resolver may pick it. Allow: its bytes may leave.
	Known  bool `json:"known"`
	Listed bool `json:"listed"`
	Allow  bool `json:"allow"`
	// Unscanned: it is denied only because the registry has not looked through its
	// bytes for what the rule is about, since it has not got them.
	Unscanned bool `json:"unscanned"`
	// Unseen: it is of another registry, and the registry has seen nothing of it there yet,
	// so that it does not know its age.
	Unseen bool `json:"unseen"`
	// Rule decided; RuleID is a quarantine rule's or a grant's.
	Rule   string `json:"rule"`
	RuleID string `json:"rule_id"`
	Reason string `json:"reason"`
	// ValidUntil is when it may be decided otherwise without any change; nil: never.
	ValidUntil *time.Time `json:"valid_until"`
	// Steps are what each rule says; only where one artifact was asked about.
	Steps []policy.Step `json:"steps,omitzero"`
	// SaidLater is what another registry said otherwise of it later, and is not believed.
	SaidLater []Claim `json:"said_later,omitzero"`
	// Gone is since when another registry does not list it as it first did, so that it is listed as
	// yanked here, nil while it does; GoneAs says why: changed, altered or dropped, "" where that is not known.
	Gone   *time.Time `json:"gone,omitzero"`
	GoneAs string     `json:"gone_as,omitzero"`

	// unlooked: Unscanned, and there are no bytes here either that could be looked through.
	unlooked bool
}

// Claim is what another registry said of a version after something else.
type Claim struct {
	// Kind is changed (other bytes) or altered (other dependencies or features of the same).
	Kind   string    `json:"kind"`
	Time   time.Time `json:"time"`
	SHA256 string    `json:"sha256"`
	// Snapshot is the CID of the index file that said so first, "" where that is not told.
	Snapshot string `json:"snapshot"`
}

// unready reports whether what denies it may be no more than that nobody had the registry
// fetch it yet.
func (d Decision) unready() bool {
	return !d.Allow && (d.unlooked || d.Unseen && d.Rule == string(policy.RuleCooldown))
}

// otherBytes is the sha256 that the version has as far as the registry knows, where the one that was
// asked about is another.
func (d Decision) otherBytes(asked [32]byte) (has string, ok bool) {
	if d.Allow || !d.Known || d.Rule != string(policy.RuleUnknown) || d.CID == "" {
		return "", false
	}
	id, err := storage.ParseCID(d.CID)
	if err != nil || id.Digest() == asked {
		return "", false
	}
	return id.Hex(), true
}

// decisionsPath asks about artifacts.
const decisionsPath = "/v1/decisions"

type decisionsJSON struct {
	Decisions []Decision `json:"decisions"`
}

// Why asks how the versions of s, or the one that it names, are decided: of what is hosted,
// or, of crates, of what is known of another source (crates-io, upstream/NAME); under
// grant, which may be another host's for those with a role that reads it; the zero
// CID: as we are judged.
func (r *Registry) Why(ctx context.Context, source string, s record.Subject, grant storage.CID) ([]Decision, error) {
	path := decisionsPath + "/" + escapePath(string(s.Kind())+"/"+s.Name())
	if s.Version() != "" {
		path += "/" + url.PathEscape(s.Version())
	}
	query := url.Values{}
	if !grant.IsZero() {
		query.Set("grant", grant.String())
	}
	if source != particle.SourceHosted {
		query.Set("source", source)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	var answer decisionsJSON
	if err := r.readJSON(ctx, path, maxBundle, &answer); err != nil {
		return nil, err
	}
	for _, d := range answer.Decisions {
		if d.Kind != string(s.Kind()) || cargo.CanonicalName(d.Name) != cargo.CanonicalName(s.Name()) || s.Version() != "" && d.Version != s.Version() {
			return nil, fmt.Errorf("%w: asked about %s, got %.80q", ErrAnswer, s, d.Kind+"/"+d.Name+"@"+d.Version)
		}
	}
	return answer.Decisions, nil
}

// Judged is a crate to be decided about, as a Cargo.lock pins it.
type Judged struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// SHA256 is of its bytes, lower-case hex.
	SHA256 string `json:"sha256"`
	// Source is particle.SourceHosted, SourceCratesIO, upstream/NAME or mirror/NAME.
	Source string `json:"source"`
}

// mostJudged bounds the crates of one question, so that it stays below 4 MiB.
const mostJudged = 10_000

// Decide asks for decisions about crates, in their order; larger numbers of them
// are asked about in parts.
func (r *Registry) Decide(ctx context.Context, grant storage.CID, crates []Judged) ([]Decision, error) {
	named := ""
	if !grant.IsZero() {
		named = grant.String()
	}
	var all []Decision
	for len(crates) > 0 {
		part := crates[:min(len(crates), mostJudged)]
		crates = crates[len(part):]
		var answer decisionsJSON
		err := r.ask(ctx, decisionsPath, struct {
			Grant     string   `json:"grant"`
			Artifacts []Judged `json:"artifacts"`
		}{named, part}, &answer)
		if err != nil {
			return nil, err
		}
		if len(answer.Decisions) != len(part) {
			return nil, fmt.Errorf("%w: asked about %d crates, got %d decisions", ErrAnswer, len(part), len(answer.Decisions))
		}
		for i, d := range answer.Decisions {
			if cargo.CanonicalName(d.Name) != cargo.CanonicalName(part[i].Name) || d.Version != part[i].Version {
				return nil, fmt.Errorf("%w: asked about %s %s, got a decision about %.80q", ErrAnswer, part[i].Name, part[i].Version, d.Name+" "+d.Version)
			}
		}
		all = append(all, answer.Decisions...)
	}
	return all, nil
}

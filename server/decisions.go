package server

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Bounds on a question about many artifacts.
const (
	maxQuestion = 4 << 20
	mostAsked   = 20_000
)

// judgementJSON is a decision as the API tells it.
type judgementJSON struct {
	Kind    record.Kind `json:"kind"`
	Name    string      `json:"name"`
	Version string      `json:"version"`
	// CID is "" where the bytes are not known.
	CID        string        `json:"cid"`
	Known      bool          `json:"known"`
	Listed     bool          `json:"listed"`
	Allow      bool          `json:"allow"`
	Unscanned  bool          `json:"unscanned"`
	Unseen     bool          `json:"unseen"`
	Rule       policy.Rule   `json:"rule"`
	RuleID     string        `json:"rule_id"`
	Reason     string        `json:"reason"`
	ValidUntil *time.Time    `json:"valid_until"`
	Steps      []policy.Step `json:"steps,omitzero"`
	SaidLater  []claimJSON   `json:"said_later,omitzero"`
	// Gone is since when another registry does not list it as it first did, GoneAs why.
	Gone   time.Time `json:"gone,omitzero"`
	GoneAs string    `json:"gone_as,omitzero"`
}

// claimJSON is what another registry said otherwise of a version later.
type claimJSON struct {
	// Kind is changed or altered, as of alarms.
	Kind     string       `json:"kind"`
	Time     time.Time    `json:"time"`
	SHA256   state.Digest `json:"sha256"`
	Snapshot string       `json:"snapshot"` // "" where the asker may not know of all versions
}

func judgementOf(j registry.Judgement) judgementJSON {
	told := judgementJSON{
		Kind: j.Kind, Name: j.Name, Version: j.Version, Known: j.Known, Listed: j.Listed, Allow: j.Allow, Unscanned: j.Unscanned, Unseen: j.Unseen,
		Rule: j.Rule, RuleID: j.RuleID, Reason: j.Reason, ValidUntil: orNever(j.ValidUntil), Steps: j.Steps,
		Gone: j.Gone, GoneAs: j.GoneAs,
	}
	told.CID = cidText(j.CID)
	for _, c := range j.SaidLater {
		told.SaidLater = append(told.SaidLater, claimJSON{c.Kind(), c.Time, c.Digest, cidText(c.Snapshot)})
	}
	return told
}

// cidText is "" for the zero CID.
func cidText(id storage.CID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// judgementsJSON is the answer of both routes.
type judgementsJSON struct {
	Decisions []judgementJSON `json:"decisions"`
}

func judgementsOf(all []registry.Judgement) judgementsJSON {
	told := judgementsJSON{make([]judgementJSON, len(all))}
	for i, j := range all {
		told.Decisions[i] = judgementOf(j)
	}
	return told
}

// memberReader is reader for members.
func (s *Server) memberReader(w http.ResponseWriter, r *http.Request) (policy.Asker, error) {
	asker, err := s.reader(w, r)
	if err == nil && asker.Anonymous() {
		err = errNotForAnonymous
	}
	return asker, err
}

// why is GET /v1/decisions/{kind}/{name} and …/{version}, for members: ?grant=, and for
// crates of other registries ?source=.
// With a grant it is not asked whether they may read without.
func (s *Server) why(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	kind, err := s.kind(r)
	if err != nil {
		return err
	}
	upstream, err := sourceAsked(r, kind)
	if err != nil {
		return err
	}
	done, err := s.questions.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer done()
	told, err := s.decided(r, func() ([]registry.Judgement, error) {
		name, version, grant := param(r, "name"), param(r, "version"), r.URL.Query().Get("grant")
		if upstream != "" {
			return s.registry.WhyUpstream(r.Context(), asker, upstream, name, version, grant)
		}
		return s.registry.Why(r.Context(), asker, kind, name, version, grant)
	})
	if err != nil {
		return err
	}
	return s.answer(w, r, judgementsOf(told))
}

// sourceAsked is the other registry that ?source= names, "" for what is hosted here.
func sourceAsked(r *http.Request, kind record.Kind) (upstream string, err error) {
	source := r.URL.Query().Get("source")
	if source == "" || source == particle.SourceHosted {
		return "", nil
	}
	upstream, ok := particle.UpstreamOf(source)
	if particle.CheckSource(source) != nil || !ok || kind != record.KindCrate {
		return "", fmt.Errorf("%w: source %.80q is not hosted, or, for crates, crates-io or upstream/NAME", registry.ErrRequest, source)
	}
	return upstream, nil
}

// decide is POST /v1/decisions, for members: about all that a lockfile pins.
func (s *Server) decide(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	// This place comes before the body, so that only so many are in memory; that for
	// deciding comes behind it, so that nobody holds it who is slow.
	done, err := s.questions.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer done()
	comesWithin(r, s.pace.Stall)
	grant, asked, err := readQuestion(w, r)
	if err != nil {
		return err
	}
	told, err := s.decided(r, func() ([]registry.Judgement, error) {
		return s.registry.Decisions(r.Context(), asker, grant, asked)
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, judgementsOf(told))
	return nil
}

// decided is what decide says, which has a place for as long as that takes.
func (s *Server) decided(r *http.Request, decide func() ([]registry.Judgement, error)) ([]registry.Judgement, error) {
	release, err := s.decisions.take(r.Context(), anyone)
	if err != nil {
		return nil, err
	}
	defer release()
	return decide()
}

// askedJSON is an artifact that is asked about.
type askedJSON struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Source  string `json:"source"`
}

// readQuestion reads the body of POST /v1/decisions strictly.
func readQuestion(w http.ResponseWriter, r *http.Request) (grant string, asked []registry.Asked, err error) {
	var question struct {
		Grant     string      `json:"grant"`
		Artifacts []askedJSON `json:"artifacts"`
	}
	if err := readJSON(w, r, maxQuestion, &question); err != nil {
		return "", nil, err
	}
	if len(question.Artifacts) > mostAsked {
		return "", nil, fmt.Errorf("%w: %d artifacts in one question; at most %d", registry.ErrRequest, len(question.Artifacts), mostAsked)
	}
	asked = make([]registry.Asked, len(question.Artifacts))
	for i, a := range question.Artifacts {
		if asked[i], err = a.parse(); err != nil {
			return "", nil, fmt.Errorf("%w: artifacts[%d]: %v", registry.ErrRequest, i, err)
		}
	}
	return question.Grant, asked, nil
}

var (
	// askedForm is wider than what can be published here: other registries have other names.
	askedForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`)
)

func (a askedJSON) parse() (registry.Asked, error) {
	asked := registry.Asked{Name: a.Name, Version: a.Version, Source: a.Source}
	if !askedForm.MatchString(a.Name) {
		return asked, fmt.Errorf("name %.80q is no crate's", a.Name)
	}
	if _, err := cargo.ParseVersion(a.Version); err != nil {
		return asked, fmt.Errorf("version: %v", err)
	}
	if err := particle.CheckSource(a.Source); err != nil {
		return asked, fmt.Errorf("source: %v", err)
	}
	if a.SHA256 == "" {
		return asked, nil
	}
	digest, err := hex.DecodeString(a.SHA256)
	if err != nil || len(digest) != len(asked.SHA256) || strings.ToLower(a.SHA256) != a.SHA256 {
		return asked, fmt.Errorf("sha256 %.80q is not 64 lower-case hex digits", a.SHA256)
	}
	asked.SHA256 = [32]byte(digest)
	return asked, nil
}

package server

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// maxRules bounds the bytes of a page of rules: where there are more, next is said.
const maxRules = 8 << 20

// ruleJSON is a quarantine rule as the API tells it.
type ruleJSON struct {
	ID        string                  `json:"id"`
	Shipped   bool                    `json:"shipped"`
	Record    record.ID               `json:"record"`
	State     string                  `json:"state"`
	Rule      particle.QuarantineRule `json:"rule"`
	Proposals []releaseJSON           `json:"proposals"`
}

// releaseJSON is a proposal to end a rule.
type releaseJSON struct {
	Record    record.ID `json:"record"`
	By        did.DID   `json:"by"`
	Approvals []did.DID `json:"approvals"`
	Open      bool      `json:"open"`
}

func ruleOf(rule registry.RuleInfo) ruleJSON {
	told := ruleJSON{ID: rule.ID, Shipped: rule.Shipped(), Record: rule.Record, State: rule.State, Rule: rule.Rule.Rule, Proposals: []releaseJSON{}}
	for _, p := range rule.Proposals {
		told.Proposals = append(told.Proposals, releaseJSON{p.Record, p.By(), append([]did.DID{}, p.Approvals...), p.StillOpen})
	}
	return told
}

// rules is GET /v1/rules, for members: ?limit=&after=, all where no limit is said.
func (s *Server) rules(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", state.MaxRules, 1, state.MaxRules)
	if err != nil {
		return err
	}
	release, err := s.searches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	rules, err := s.registry.RulesWithVotes(r.Context())
	if err != nil {
		return err
	}
	told, next, err := rulesPage(rules, r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return s.answer(w, r, struct {
		Rules []ruleJSON `json:"rules"`
		Next  string     `json:"next"`
	}{told, next})
}

// rulesPage is a page of rules, behind the one whose id is after.
func rulesPage(rules []registry.RuleInfo, after string, limit int) (told []ruleJSON, next string, err error) {
	told, room := []ruleJSON{}, maxRules
	for _, rule := range rules {
		if rule.ID <= after {
			continue
		}
		one := ruleOf(rule)
		size, err := json.Marshal(one)
		if err != nil {
			return nil, "", err
		}
		if room -= len(size); len(told) > 0 && (room < 0 || len(told) == limit) {
			return told, told[len(told)-1].ID, nil
		}
		told = append(told, one)
	}
	return told, "", nil
}

// rule is GET /v1/rules/{id}, for members.
func (s *Server) rule(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	release, err := s.searches.take(r.Context(), asker.DID) // it reads all rules, too
	if err != nil {
		return err
	}
	defer release()
	rule, err := s.registry.RuleWithVotes(r.Context(), param(r, "id"))
	if err != nil {
		return err
	}
	return s.answer(w, r, ruleOf(rule))
}

// testRule is POST /v1/rules/test, for members: what a rule would hit among what
// they may know of.
func (s *Server) testRule(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.memberReader(w, r)
	if err != nil {
		return err
	}
	var request struct {
		Rule particle.QuarantineRule `json:"rule"`
	}
	if err := readJSON(w, r, maxSmallBody, &request); err != nil {
		return err
	}
	release, err := s.tests.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	hits, total, err := s.registry.TestRule(r.Context(), asker, request.Rule)
	if err != nil {
		return err
	}
	type hit struct {
		Kind    record.Kind `json:"kind"`
		Name    string      `json:"name"`
		Version string      `json:"version"`
		CID     storage.CID `json:"cid"`
		Source  string      `json:"source"`
	}
	told := []hit{}
	for _, h := range hits {
		told = append(told, hit(h))
	}
	writeJSON(w, http.StatusOK, struct {
		Hits  []hit `json:"hits"`
		Total int   `json:"total"`
	}{told, total})
	return nil
}

// errNotForAnonymous is for what is told to members who may read, and to nobody else.
var errNotForAnonymous = fmt.Errorf("%w: this is for members", registry.ErrUnauthenticated)

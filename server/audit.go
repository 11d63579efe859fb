package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
)

// Sizes of pages of the audit trail.
const (
	defaultAudit = 100
	mostAudit    = 1000
)

// auditJSON is an entry of the audit trail as the API tells it.
type auditJSON struct {
	ID      int64         `json:"id"`
	Time    particle.Time `json:"time"`
	Asker   string        `json:"asker"`
	What    string        `json:"what"`
	Rule    string        `json:"rule"`
	RuleID  string        `json:"rule_id"`
	Outcome string        `json:"outcome"`
	Request string        `json:"request"`
	Count   int64         `json:"count"`
}

// auditor is who asks for what auditors and admins may read, which no cache keeps for others.
func (s *Server) auditor(w http.ResponseWriter, r *http.Request) (policy.Asker, error) {
	w.Header()["Vary"], w.Header()["Cache-Control"] = varyAsker, privateNoCache
	asker, err := s.asker(r)
	if err != nil {
		return asker, err
	}
	if denial := policy.ReadAudit(asker); denial != nil {
		return asker, denial
	}
	return asker, nil
}

// queryBefore is the ID before which a page ends, 0 for the newest.
func queryBefore(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("before")
	if text == "" {
		return 0, nil
	}
	before, err := strconv.ParseInt(text, 10, 64)
	if err != nil || before < 1 {
		return 0, fmt.Errorf("%w: before is not what an earlier page gave as next", registry.ErrRequest)
	}
	return before, nil
}

// audit is GET /v1/audit: ?before=&limit=, for auditors and admins.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.auditor(w, r)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", defaultAudit, 1, mostAudit)
	if err != nil {
		return err
	}
	before, err := queryBefore(r)
	if err != nil {
		return err
	}
	release, err := s.searches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	entries, next, err := s.registry.Audit(r.Context(), before, limit)
	if err != nil {
		return err
	}
	told := []auditJSON{}
	for _, e := range entries {
		told = append(told, auditJSON{e.ID, particle.At(e.Time), e.Asker, e.What, e.Rule, e.RuleID, e.Outcome, e.Request, e.Count})
	}
	var then *int64
	if next > 0 {
		then = &next
	}
	return s.answer(w, r, struct {
		Entries []auditJSON `json:"entries"`
		Next    *int64      `json:"next"`
	}{told, then})
}

// noteDenial enters what err denied into the audit trail.
func (s *Server) noteDenial(w http.ResponseWriter, r *http.Request, err error) {
	o := observed(r.Context())
	if o.audited {
		return
	}
	asker := policy.Asker{DID: o.asker, GrantNamed: o.grant}
	if e, ok := registry.DenialOf(err, asker, s.routeName(w, r), o.id); ok {
		s.registry.Note(e)
		return
	}
	var denial *policy.Denial
	if o.bearer == "" || !errors.As(err, &denial) {
		return
	}
	s.registry.Note(registry.Event{ // a session that is good no more
		Asker: o.bearer, Stranger: s.stranger(r, o.bearer), What: auditSession, Rule: string(denial.Rule), Outcome: registry.OutcomeRefused, Request: o.id,
	})
}

// auditSession is what a session that is refused, or not minted, is in the audit trail.
const auditSession = "session"

// routeName is the method and pattern of the route that answers r: no path, since
// what strangers may write there is without bound.
func (s *Server) routeName(w http.ResponseWriter, r *http.Request) string {
	if answer, ok := w.(*response); ok && answer.route != nil {
		return answer.route.method + " " + answer.route.pattern
	}
	of := s.metrics.routeOf(r)
	return of.method + " " + of.pattern
}

// stranger reports whether d is known to nobody here.
func (s *Server) stranger(r *http.Request, d did.DID) bool {
	holder, err := s.registry.Holder(r.Context(), d)
	return err != nil || !holder.Member && !holder.Admin
}

// noteDryRun enters that v's bytes are sent, and a rule in dry run would deny them.
func (s *Server) noteDryRun(r *http.Request, v registry.Judged) {
	if v.Decision.DryRun == "" {
		return
	}
	o := observed(r.Context())
	if e, ok := registry.DryRunOf(v, o.asker, o.id); ok {
		s.registry.Note(e)
	}
}

// acts of authority are the records of these types.
var acts = []record.Type{
	record.TypeRegistry, record.TypeMember, record.TypeDID, record.TypeOwn, record.TypeOwnIntent, record.TypeGrant, record.TypeRevoke,
	record.TypeQuarantine, record.TypeRelease, record.TypeApprove,
}

// noteAct enters what became of a record that asker sent; what only failed was
// neither accepted nor refused.
func (s *Server) noteAct(r *http.Request, asker policy.Asker, envelope []byte, err error) {
	o := observed(r.Context())
	e := registry.Event{Asker: asker.DID, What: "record", Rule: "record", Outcome: registry.OutcomeAccepted, Request: o.id}
	rec, malformed := record.Parse(envelope)
	if malformed == nil {
		if !slices.Contains(acts, rec.Type()) {
			return
		}
		e.What = rec.Act() + " " + rec.Subject().String()
		e.RuleID = string(rec.ID())
	}
	if err != nil {
		out := classify(err)
		if out.status >= http.StatusInternalServerError {
			return
		}
		e.Rule, e.RuleID, e.Outcome = out.code, "", registry.OutcomeRefused
	}
	o.audited = true
	s.registry.Note(e)
}

// noteUnminted enters that no session was minted. A denial is told to who has
// shown to be the assertion's subject; anything else is nobody's.
func (s *Server) noteUnminted(r *http.Request, assertion string, err error) {
	out := classify(err)
	if out.status >= http.StatusInternalServerError {
		return
	}
	o := observed(r.Context())
	e := registry.Event{What: auditSession, Rule: out.code, Outcome: registry.OutcomeRefused, Request: o.id, Stranger: true}
	var denial *policy.Denial
	if errors.As(err, &denial) {
		if t, err := policy.ParseAssertion(assertion); err == nil {
			e.Asker = t.Claims.Subject
			e.Stranger = s.stranger(r, e.Asker)
		}
	}
	o.audited = true
	s.registry.Note(e)
}

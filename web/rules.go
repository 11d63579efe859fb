package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// member is a handler for members, also for hosts that read nothing without a
// grant: what they are judged by they may read.
func (p *Pages) member(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, v *visit) error {
		switch d := p.Registry.MayReadAuthority(v.Asker); {
		case d.Allow && !v.Asker.Anonymous():
			return h(w, r, v)
		case v.Asker.Anonymous(), d.Rule == policy.RuleScope:
			return errMembersOnly
		default:
			return d.Denial()
		}
	}
}

// Governed reports whether the visitor may read what the registry goes by.
func (v *visit) Governed() bool {
	return !v.Asker.Anonymous() && v.Registry.MayReadAuthority(v.Asker).Allow
}

// Audits reports whether the visitor may read the audit trail.
func (v *visit) Audits() bool { return policy.ReadAudit(v.Asker) == nil }

// rulesPage is the body of the page /rules.
type rulesPage struct {
	Rules []registry.RuleInfo
	// Needed is how many reviewers' approvals end a rule.
	Needed int
	Next   string // link
}

// rules is the page of quarantine rules: ?after=.
func (p *Pages) rules(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "rules"
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	rules, err := p.Registry.RulesWithVotes(r.Context())
	if err != nil {
		return err
	}
	after := r.URL.Query().Get("after")
	rules = slices.DeleteFunc(rules, func(rule registry.RuleInfo) bool { return rule.ID <= after })
	body := rulesPage{Rules: rules, Needed: p.Registry.Settings().ReleaseK}
	if len(rules) > perPage {
		body.Rules = rules[:perPage]
		body.Next = p.Link("rules") + "?after=" + url.QueryEscape(rules[perPage-1].ID)
	}
	return v.render(w, r, http.StatusOK, "rules", "Rules", body)
}

// grantsPage is the body of the page /grants.
type grantsPage struct {
	Grants []registry.GrantInfo
	Next   string // link
}

// grants is the page of the grants in force: ?after=.
func (p *Pages) grants(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "rules"
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	found, next, err := p.Registry.Grants(r.Context(), registry.GrantFilter{InForce: true}, r.URL.Query().Get("after"), perPage)
	if err != nil {
		return err
	}
	body := grantsPage{Grants: found}
	if next != "" {
		body.Next = p.Link("grants") + "?after=" + url.QueryEscape(next)
	}
	return v.render(w, r, http.StatusOK, "grants", "Grants", body)
}

// auditPage is the body of the page /audit.
type auditPage struct {
	Entries []registry.AuditEntry
	// Rule is that of all of them, "" where they are of any.
	Rule   string
	Newest string // links
	Older  string
}

// audit is the page of the audit trail: ?before=, and ?rule= for the entries with one alone.
func (p *Pages) audit(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "audit"
	if v.Asker.Anonymous() {
		return errMembersOnly
	}
	if denial := policy.ReadAudit(v.Asker); denial != nil {
		return denial
	}
	var before int64
	if text := r.URL.Query().Get("before"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return errNoPage
		}
		before = n
	}
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	rule := r.URL.Query().Get("rule")
	if len(rule) > maxQuery {
		return errNoPage
	}
	entries, next, err := p.Registry.AuditOf(r.Context(), rule, before, perPage)
	if err != nil {
		return err
	}
	body := auditPage{Entries: entries, Rule: rule}
	of := url.Values{}
	if rule != "" {
		of.Set("rule", rule)
	}
	if before > 0 {
		body.Newest = p.Link("audit") + asked(of)
	}
	if next > 0 {
		of.Set("before", strconv.FormatInt(next, 10))
		body.Older = p.Link("audit") + asked(of)
	}
	return v.render(w, r, http.StatusOK, "audit", "Audit trail", body)
}

// asked is the part of an address that asks for values, "" for none.
func asked(values url.Values) string {
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// pageName is what the audit trail calls the pages, whichever it was.
const pageName = "GET page"

// noteDenial enters what err denied a visitor into the audit trail.
func (p *Pages) noteDenial(w http.ResponseWriter, v *visit, err error) {
	if e, ok := registry.DenialOf(err, v.Asker, pageName, w.Header().Get("X-Request-Id")); ok {
		p.Registry.Note(e)
	}
}

// noteDryRun enters that a visitor gets what a rule in dry run would deny.
func (p *Pages) noteDryRun(w http.ResponseWriter, v *visit, version registry.Judged) {
	if e, ok := registry.DryRunOf(version, v.Asker.DID, w.Header().Get("X-Request-Id")); ok {
		p.Registry.Note(e)
	}
}

package policy

import (
	"testing"

	"phoenix-lab.org/aln-registry/did"
)

func TestWhoReadsTheAuditTrailAndAsksForOthers(t *testing.T) {
	for name, c := range map[string]struct {
		asker Asker
		audit Rule // "" for may
		other Rule
	}{
		"nobody":                       {Asker{}, RuleAnonymous, RuleAnonymous},
		"a member":                     {Asker{DID: "did:key:a", Roles: []string{"publisher"}, Scopes: []string{"read"}}, RuleScope, RuleRole},
		"an auditor who reads":         {Asker{DID: "did:key:a", Roles: []string{"auditor"}, Scopes: []string{"read"}}, RuleScope, RuleRole},
		"an auditor who audits":        {Asker{DID: "did:key:a", Roles: []string{"auditor"}, Scopes: []string{"audit"}}, "", ""},
		"a grantor":                    {Asker{DID: "did:key:a", Roles: []string{"grantor"}, Scopes: []string{"read"}}, RuleScope, ""},
		"a reviewer":                   {Asker{DID: "did:key:a", Roles: []string{"reviewer"}, Scopes: []string{"read"}}, RuleScope, ""},
		"an admin who reads":           {Asker{DID: "did:key:a", Admin: true, Scopes: []string{"read"}}, RuleScope, ""},
		"an admin":                     {Asker{DID: "did:key:a", Admin: true, Scopes: []string{"admin"}}, "", ""},
		"a scope that is like another": {Asker{DID: "did:key:a", Scopes: []string{"audits", "Admin"}}, RuleScope, RuleRole},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ruleOrNone(ReadAudit(c.asker)); got != c.audit {
				t.Errorf("the audit trail: %q, not %q", got, c.audit)
			}
			if got := ruleOrNone(JudgeFor(c.asker, "did:key:b")); got != c.other {
				t.Errorf("another host: %q, not %q", got, c.other)
			}
			if got := ruleOrNone(JudgeFor(c.asker, c.asker.DID)); c.asker.DID != did.DID("") && got != "" {
				t.Errorf("themselves: %q", got)
			}
		})
	}
}

func TestPublishersAndAdminsHaveCratesKept(t *testing.T) {
	for name, c := range map[string]struct {
		asker Asker
		want  Rule // "" for may
	}{
		"nobody":                              {Asker{}, RuleAnonymous},
		"a publisher who reads":               {Asker{DID: "did:key:a", Roles: []string{"publisher"}, Scopes: []string{"read"}}, RuleScope},
		"a publisher":                         {Asker{DID: "did:key:a", Roles: []string{"publisher"}, Scopes: []string{"read", "publish"}}, ""},
		"an auditor with a publisher's scope": {Asker{DID: "did:key:a", Roles: []string{"auditor"}, Scopes: []string{"read", "publish"}}, RuleRole},
		"a member without roles":              {Asker{DID: "did:key:a", Scopes: []string{"publish"}}, RuleRole},
		"an admin who reads":                  {Asker{DID: "did:key:a", Admin: true, Scopes: []string{"read"}}, RuleScope},
		"an admin":                            {Asker{DID: "did:key:a", Admin: true, Scopes: []string{"admin"}}, ""},
		"an admin who publishes":              {Asker{DID: "did:key:a", Admin: true, Scopes: []string{"publish"}}, ""},
	} {
		if got := ruleOrNone(Keep(c.asker)); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}

func ruleOrNone(d *Denial) Rule {
	if d == nil {
		return ""
	}
	return d.Rule
}

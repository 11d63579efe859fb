package policy

import (
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
)

func askerWith(scopes ...string) Asker {
	return Asker{DID: "did:web:host.example", Scopes: scopes, Until: now.Add(time.Minute)}
}

func TestRead(t *testing.T) {
	cases := []struct {
		name     string
		asker    Asker
		settings Settings
		allow    bool
		rule     Rule
	}{
		{"nobody", Asker{}, Settings{}, false, RuleAnonymous},
		{"nobody, with scopes", Asker{Scopes: []string{"read"}, Admin: true}, Settings{}, false, RuleAnonymous},
		{"nobody, anonymous reading", Asker{}, Settings{AnonymousRead: true}, true, RuleAnonymous},
		{"scope read", askerWith("read"), Settings{}, true, RuleScope},
		{"scope build", askerWith("build"), Settings{}, true, RuleScope},
		{"scope publish", askerWith("publish"), Settings{}, true, RuleScope},
		{"scope audit", askerWith("audit"), Settings{}, true, RuleScope},
		{"scope admin", askerWith("chat", "admin"), Settings{}, true, RuleScope},
		{"scope chat", askerWith("chat", "OTA"), Settings{}, false, RuleScope},
		{"no scope", askerWith(), Settings{}, false, RuleScope},
		{"an admin without scope", Asker{DID: "did:web:host.example", Admin: true}, Settings{}, false, RuleScope},
	}
	for _, c := range cases {
		d := Read(c.asker, c.settings)
		if d.Allow != c.allow || d.Rule != c.rule || d.Reason() == "" || !d.ValidUntil.Equal(c.asker.Until) {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestReadRecords(t *testing.T) {
	cases := []struct {
		name     string
		asker    Asker
		index    int64
		artifact bool
		open     bool
		allow    bool
	}{
		{"entry 0 by nobody", Asker{}, 0, false, false, true},
		{"a member record by nobody", Asker{}, 1, false, false, false},
		{"a member record by nobody, anonymous reading", Asker{}, 1, false, true, false},
		{"a publish record by nobody", Asker{}, 7, true, false, false},
		{"a publish record by nobody, anonymous reading", Asker{}, 7, true, true, true},
		{"a member record by a member", askerWith(particle.ScopeRead), 1, false, false, true},
		{"a publish record by a member", askerWith(particle.ScopeRead), 7, true, false, true},
		{"a member record by a session for chat", askerWith(particle.ScopeChat), 1, false, false, false},
	}
	for _, c := range cases {
		if d := ReadRecords(c.asker, c.index, c.artifact, Settings{AnonymousRead: c.open}); d.Allow != c.allow || d.Rule == "" || d.Reason() == "" {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestReadFigures(t *testing.T) {
	cases := []struct {
		name  string
		asker Asker
		allow bool
		rule  Rule
	}{
		{"nobody", Asker{}, false, RuleAnonymous},
		{"nobody, with scopes", Asker{Scopes: []string{"audit", "admin"}, Admin: true}, false, RuleAnonymous},
		{"scope audit", askerWith("audit"), true, RuleScope},
		{"scope admin", askerWith("read", "admin"), true, RuleScope},
		{"all other scopes", askerWith("read", "build", "publish", "chat", "OTA"), false, RuleScope},
		{"an admin without scope", Asker{DID: "did:web:host.example", Admin: true, Roles: []string{"auditor"}}, false, RuleScope},
	}
	for _, c := range cases {
		if d := ReadFigures(c.asker); d.Allow != c.allow || d.Rule != c.rule || d.Reason() == "" || !d.ValidUntil.Equal(c.asker.Until) {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestSubmit(t *testing.T) {
	bound := askerWith(particle.ScopePublish)
	bound.Rec = "one"
	cases := []struct {
		name  string
		asker Asker
		rec   string
		want  Rule
	}{
		{"nobody", Asker{}, "one", RuleAnonymous},
		{"a session to read", askerWith(particle.ScopeRead), "one", RuleScope},
		{"an admin's session to administer", askerWith(particle.ScopeAdmin), "one", RuleScope},
		{"a session to publish", askerWith(particle.ScopePublish), "one", ""},
		{"a session for that record", bound, "one", ""},
		{"a session for another record", bound, "two", RuleToken},
		{"a session for a record, without one", bound, "", RuleToken},
	}
	for _, c := range cases {
		checkRule(t, c.name, Submit(c.asker, c.rec, particle.ScopePublish), c.want)
	}
}

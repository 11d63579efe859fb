package particle

import (
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestKnownScopes(t *testing.T) {
	for _, s := range []string{"read", "build", "publish", "audit", "admin", "chat", "OTA"} {
		if !KnownScope(s) {
			t.Errorf("%s is unknown", s)
		}
	}
	for _, s := range []string{"", "READ", "ota", "read build", "root"} {
		if KnownScope(s) {
			t.Errorf("%q is known", s)
		}
	}
}

func TestScopesOfAToken(t *testing.T) {
	token := SessionToken{Scope: "read publish"}
	if !slices.Equal(token.Scopes(), []string{"read", "publish"}) || !token.HasScope(ScopePublish) || token.HasScope("pub") || token.HasScope("read publish") || token.HasScope("") {
		t.Errorf("%v", token.Scopes())
	}
	if (SessionToken{}).HasScope("") || len((SessionToken{}).Scopes()) != 0 {
		t.Error("no scope is one")
	}
}

// TestFieldNames holds the claims' names and order, which FORMATS §5 fixes.
func TestFieldNames(t *testing.T) {
	full := SessionToken{
		Issuer: "did:web:a", Subject: "did:web:b", Audience: "did:web:a", IssuedAt: 1, Expiry: 2, ID: "j", HostDID: "did:web:b", StakeholderAddr: "s",
		Roles: []string{"publisher"}, Scope: "read", MaxJoules: 1<<64 - 1, MaxMemMB: 3, EvidenceHex: "00", Grant: "g", Rec: "r",
	}
	got, err := json.Marshal(full)
	want := `{"iss":"did:web:a","sub":"did:web:b","aud":"did:web:a","iat":1,"exp":2,"jti":"j","host_did":"did:web:b","stakeholder_addr":"s","roles":["publisher"],"scope":"read","max_joules":18446744073709551615,"max_mem_mb":3,"evidence_hex":"00","grant":"g","rec":"r"}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if bare, err := json.Marshal(SessionToken{Issuer: "did:web:a", Subject: "did:web:b", Audience: "did:web:a"}); err != nil ||
		string(bare) != `{"iss":"did:web:a","sub":"did:web:b","aud":"did:web:a","iat":0,"exp":0,"jti":"","host_did":"","roles":[],"scope":""}` {
		t.Errorf("%s, %v", bare, err)
	}
}

package policy

import (
	"testing"

	"phoenix-lab.org/aln-registry/did"
)

// What a session may spend goes from its token into each Decision that allows.
func TestADecisionSaysWhatMayBeSpent(t *testing.T) {
	claims := goodSession(t)
	claims.MaxJoules, claims.MaxMemMB = 500, 900
	holder := goodHolder(t)
	holder.Tier = "core_stakeholder"
	text, err := SignSession(claims, did.EdDSA, signer(newKey(t, 1)))
	if err != nil {
		t.Fatal(err)
	}
	token, err := ParseSession(text)
	if err != nil {
		t.Fatal(err)
	}
	asker, denial := CheckSession(token, holder, claims.Issuer, now)
	if denial != nil {
		t.Fatal(denial)
	}
	f, terms := goodFacts(t), busyTerms(t, 0)
	if d := Decide(&asker, terms, &f, now); !d.Allow || d.Budget != (Budget{Joules: 500, MemMB: 900}) {
		t.Errorf("%+v", d)
	}
	f.Name = "blake3"
	if d := Decide(&asker, terms, &f, now); d.Allow || d.Budget != (Budget{}) {
		t.Errorf("denied, with a budget: %+v", d)
	}
}

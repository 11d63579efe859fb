package registry

import (
	"errors"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// A log that was begun without its admin's key is completed by whoever holds it, by
// nobody else, and once.
func TestALogWaitsForTheAdminWhomEntry0Names(t *testing.T) {
	w := newWorld(t)
	w.stores()
	defer w.close()
	other, err := did.GenerateEd25519(w.config.Rand)
	if err != nil {
		t.Fatal(err)
	}
	admin, stranger := w.admin.Signer(w.admin.Public().URL()), other.Signer(other.Public().URL())
	for _, step := range []struct {
		name  string
		admin did.DID
		held  []did.Signer
		want  int64
	}{
		{"by nobody's key", admin.KeyID().DID, nil, 1},
		{"by nobody's again, after a crash", admin.KeyID().DID, nil, 1},
		{"for somebody else", stranger.KeyID().DID, []did.Signer{stranger}, 1},
		{"by the admin's, whoever is named", "", []did.Signer{stranger, admin}, 2},
		{"once more", admin.KeyID().DID, []did.Signer{admin}, 2},
	} {
		got, err := Begin(t.Context(), w.config, step.admin, step.held...)
		if err != nil || got != step.want {
			t.Fatalf("%s: %d entries, %v; want %d", step.name, got, err, step.want)
		}
		if begun, err := Begun(t.Context(), w.config); err != nil || begun != step.want {
			t.Fatalf("%s: begun are %d, %v", step.name, begun, err)
		}
	}
	if err := Genesis(t.Context(), w.config, stranger); err != nil {
		t.Errorf("what is complete is begun again: %v", err)
	}
	r, err := Open(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	members, err := r.Members(t.Context())
	if err != nil || len(members) != 1 || members[0].DID != admin.KeyID().DID || !members[0].Has(state.RoleGrantor) {
		t.Errorf("the members are %v, %v", members, err)
	}
}

func TestALogIsBegunForADIDKey(t *testing.T) {
	w := newWorld(t)
	w.stores()
	defer w.close()
	if _, err := Begin(t.Context(), w.config, "did:web:lab.example"); !errors.Is(err, ErrRequest) {
		t.Errorf("for a did:web: %v", err)
	}
	if head, err := w.config.Catalog.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("%d entries were left, %v", head, err)
	}
}

// The first admin gets every role that this release knows, but that of a mirror.
func TestTheFirstAdminHasEveryRole(t *testing.T) {
	var m state.Member
	m.Roles = record.FirstMember().Roles
	for _, role := range []string{state.RolePublisher, state.RoleGrantor, state.RoleReviewer, state.RoleAuditor} {
		if !m.Has(role) {
			t.Errorf("not %s", role)
		}
	}
	if len(m.Roles) != 4 {
		t.Errorf("they are %v", m.Roles)
	}
}

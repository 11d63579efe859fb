package record

import (
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// TestScopes: only what admins alone sign needs what admins alone can have. Every
// vector has its line, so that a new type cannot come without one.
func TestScopes(t *testing.T) {
	const admin, publish = particle.ScopeAdmin, particle.ScopePublish
	want := map[string]string{
		"registry": admin, "member-admin": admin, "member-publisher": admin, "member-web": admin, "member-reviewer": admin,
		"did": admin, "publish": publish, "publish-shard": publish, "yank": publish, "own": publish, "own-intent": publish,
		"own-by-intent": publish, "approve": admin, "grant": publish, "revoke": publish, "quarantine": publish, "release": publish,
		"approve-release": publish, "import": admin, // which no session carries
	}
	for _, v := range vectors(t) {
		if got := v.record.Scope(); got != want[v.name] {
			t.Errorf("%s: %s, want %q", v.name, got, want[v.name])
		}
	}
	change := vectors(t)[4].record
	own := webSigner{keySigner(edKey(t, 2)), did.URL{DID: change.Subject().Member(), Fragment: "key-1"}}
	r, err := Sign(Draft{Subject: change.Subject(), Body: change.Body(), Header: change.Header()}, own)
	if err != nil || r.Scope() != publish {
		t.Errorf("the keys of one's own: %v, %v", r, err)
	}
}

// webSigner signs with a key of a did:web.
type webSigner struct {
	did.Signer
	id did.URL
}

// KeyID implements did.Signer.
func (s webSigner) KeyID() did.URL { return s.id }

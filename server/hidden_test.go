package server

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Cargo waits for a version to appear, which it never does for a publisher who
// may not build with it: so it is told with the publication, and why.
func TestPublishersAreToldWhatHidesTheirOwnVersion(t *testing.T) {
	l := newLab(t)
	put := func(who did.PrivateKey, name, version string) reply {
		l.t.Helper()
		crate := crateFile(name, version)
		rec := l.sign(who, versionSubject(name, version), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
		token := l.credentialFor(l.session(who, "publish", func(a *policy.Assertion) { a.Rec = string(rec.ID()) }), rec)
		return l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: token, body: frame(name, version, crate)})
	}
	plain := put(l.owner, "plain", "0.1.0")
	if plain.want(t, 200, "published as"); strings.Contains(string(plain.body), "in vain") {
		t.Errorf("nothing hides it: %s", plain.body)
	}
	guest := l.newHost(particle.TierGuest, "publisher")
	put(guest, "foreign", "0.1.0").want(t, 200, "published as", "in vain", "rule tier-default", "ask a grantor")
	l.quarantine("leaky", named("leaky"))
	put(l.owner, "leaky", "0.1.0").want(t, 200, "published as", "in vain", "rule quarantine leaky: it was looked at")
	l.changeSettings(func(s *record.Registry) { s.MinAgeDays = 3 })
	put(l.owner, "plain", "0.2.0").want(t, 200, "published as", "in vain", "rule cooldown", "3 days old")
}

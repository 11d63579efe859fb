package server

import (
	"context"
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// envGrant is a grant of issuer to subject that allows all crates for a day.
func (l *lab) envGrant(issuer did.PrivateKey, subject did.DID, change ...func(*particle.EnvGrant)) particle.EnvGrant {
	g := particle.EnvGrant{
		Registry: l.registry.Origin(), Issuer: didOf(issuer), Subject: subject,
		NotBefore: particle.At(time.Now().Add(-time.Minute)), Expires: particle.At(time.Now().Add(24 * time.Hour)),
		AllowedCrates: []string{particle.AllCrates}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}
	for _, c := range change {
		c(&g)
	}
	return g
}

// grant puts an EnvGrant in force, past HTTP.
func (l *lab) grant(issuer did.PrivateKey, subject did.DID, change ...func(*particle.EnvGrant)) storage.CID {
	l.t.Helper()
	blob := must(l.envGrant(issuer, subject, change...).Marshal())
	id := storage.CIDOf(blob)
	l.enter(issuer, l.sign(issuer, record.GrantSubject(id), &record.Grant{}, id.Digest()), blob)
	return id
}

// enter submits a signed record, past HTTP.
func (l *lab) enter(who did.PrivateKey, r *record.Record, attachments ...[]byte) {
	l.t.Helper()
	asker := policy.Asker{DID: didOf(who), Scopes: []string{"publish", "admin"}}
	if _, err := l.registry.Submit(context.Background(), asker, r.Envelope(), attachments); err != nil {
		l.t.Fatal(err)
	}
}

// send submits a signed record as clients do.
func (l *lab) send(token string, r *record.Record, attachments ...[]byte) reply {
	l.t.Helper()
	encoded := []string{}
	for _, a := range attachments {
		encoded = append(encoded, base64.StdEncoding.EncodeToString(a))
	}
	body := must(json.Marshal(map[string]any{"record": base64.StdEncoding.EncodeToString(r.Envelope()), "attachments": encoded}))
	return l.do(ask{method: http.MethodPost, path: "/v1/records", token: token, body: body})
}

// read is the JSON of an answer.
func read[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	r.want(t, http.StatusOK)
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	return v
}

type grantsAnswer struct {
	Grants []grantJSON `json:"grants"`
	Next   string      `json:"next"`
}

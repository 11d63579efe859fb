package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

func TestAssertionIsUsedOnce(t *testing.T) {
	l := newLab(t)
	assertion := l.assertion(l.member, "read")
	first := l.mint(assertion).want(t, 200, `"token_type":"Bearer"`, `"expires_in":900`)
	if first.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a session may be cached: %v", first.header)
	}
	l.mint(assertion).want(t, 403, `"code":"token"`, "used before")
}

// What a database could not keep is refused in words: it is nobody's failure but the asker's.
func TestAssertionsOfOddIdentifiers(t *testing.T) {
	l := newLab(t)
	for _, id := range []string{"0123456789abcdef\x00", "0123456789abcdef\U0010ffff", "0123456789abcdef\n", "0123456789 abcdef", "0123456789abcdé"} {
		odd := func(a *policy.Assertion) { a.ID = id }
		l.mint(l.assertion(l.member, "read", odd)).want(t, 403, `"code":"token"`, "jti has 16 to 64")
		l.mint(l.assertion(l.stranger, "read", odd)).want(t, 403, `"code":"token"`)
	}
}

func TestSessionAndAssertionOfOneRegistryAreNothingAtAnother(t *testing.T) {
	here, there := newLab(t), newLab(t)
	there.admit(here.member, "publisher")
	there.mint(here.assertion(here.member, "read")).want(t, 403, `"code":"audience"`)
	token := here.session(here.member, "read")
	here.get("/index/config.json", token).want(t, 200)
	there.get("/index/config.json", token).want(t, 401)
	// Nor is a session an assertion, or the other way round.
	here.mint(token).want(t, 401)
	here.get("/index/config.json", here.assertion(here.member, "read")).want(t, 401)
}

func TestForgedSessions(t *testing.T) {
	l := newLab(t)
	good := l.session(l.member, "read")
	parts := strings.Split(good, ".")
	claims := strings.Replace(string(must(base64.RawURLEncoding.DecodeString(parts[1]))), `"scope":"read"`, `"scope":"admin"`, 1)
	self := particle.SessionToken{
		Issuer: didOf(l.member), Subject: didOf(l.member), Audience: l.registry.Origin(), IssuedAt: time.Now().Unix(),
		Expiry: time.Now().Add(time.Minute).Unix(), ID: "self-made", HostDID: string(didOf(l.member)), Roles: []string{}, Scope: "admin",
	}
	asRegistry := self
	asRegistry.Issuer = l.registry.Origin()
	own := l.member.Signer(l.member.Public().URL())
	for name, token := range map[string]string{
		"claims changed":             parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + parts[2],
		"no signature":               parts[0] + "." + parts[1] + ".",
		"alg none":                   base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"aln-session+jwt"}`)) + "." + parts[1] + ".",
		"signed by the holder":       must(policy.SignSession(self, did.EdDSA, own)),
		"signed as the registry":     must(policy.SignSession(asRegistry, did.EdDSA, own)),
		"the registry's kid":         must(policy.SignSession(asRegistry, did.EdDSA, l.member.Signer(l.keys.Signer().KeyID()))),
		"for another registry":       l.forge(l.member, "read", func(t *particle.SessionToken) { t.Audience = didOf(l.member) }),
		"by another issuer":          l.forge(l.member, "read", func(t *particle.SessionToken) { t.Issuer = didOf(l.member) }),
		"for another host":           l.forge(l.member, "read", func(t *particle.SessionToken) { t.HostDID = string(didOf(l.owner)) }),
		"longer than thirty minutes": l.forge(l.member, "read", func(t *particle.SessionToken) { t.Expiry += 1 << 20 }),
		"from the future":            l.forge(l.member, "read", func(t *particle.SessionToken) { t.IssuedAt += 600; t.Expiry += 600 }),
		"too long":                   strings.Repeat("a", policy.MaxToken+1),
		"nothing of the kind":        "swordfish",
	} {
		if r := l.get("/index/config.json", token); r.status != http.StatusUnauthorized {
			t.Errorf("%s: %s", name, r)
		}
	}
	stranger := l.forge(l.member, "read", func(t *particle.SessionToken) { t.Grant = storage.CIDOf(nil).String() })
	l.get("/index/config.json", stranger).want(t, 403, "not granted to this host")
	l.get("/index/config.json", "Bearer "+good).want(t, 200)
	l.get("/index/config.json", good+"~what follows is ignored on reads").want(t, 200)
	l.get("/index/config.json", "bearer "+good).want(t, 200)
}

// The session may carry the one record that it was minted for, no other.
func TestSessionForAnotherRecord(t *testing.T) {
	l := newLab(t)
	l.publish(l.owner, "demo-one", "0.1.0")
	yank := l.sign(l.owner, versionSubject("demo-one", "0.1.0"), &record.Yank{Yanked: true})
	other := l.session(l.owner, "publish", func(a *policy.Assertion) { a.Rec = strings.Repeat("0", 64) })
	mine := l.session(l.owner, "publish", func(a *policy.Assertion) { a.Rec = string(yank.ID()) })
	path := "/api/v1/crates/demo-one/0.1.0/yank"
	l.do(ask{method: http.MethodDelete, path: path, token: l.credentialFor(other, yank)}).want(t, 403, "minted for another record")
	// The session of one member does not carry the record of another.
	l.do(ask{method: http.MethodDelete, path: path, token: l.credentialFor(l.session(l.member, "publish"), yank)}).want(t, 403, "the record is signed by")
	l.do(ask{method: http.MethodDelete, path: path, token: mine}).want(t, 403, "takes only signed changes", "login")
	// What the token's record says must be what the request asks for.
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/demo-one/0.1.0/unyank", token: l.credentialFor(mine, yank)}).want(t, 400, "does not say this change")
	l.do(ask{method: http.MethodDelete, path: "/api/v1/crates/demo-one/0.2.0/yank", token: l.credentialFor(mine, yank)}).want(t, 400)
	l.do(ask{method: http.MethodDelete, path: path, token: l.credentialFor(mine, yank)}).want(t, 200, `"ok":true`)
	l.do(ask{method: http.MethodDelete, path: path, token: l.credentialFor(mine, yank)}).want(t, 409)
}

// Who is no owner is told so, not that something is wrong with their set-up.
func TestOwnersAreChangedByOwners(t *testing.T) {
	l := newLab(t)
	l.publish(l.owner, "demo-one", "0.1.0")
	body := `{"users":["` + string(l.member.Public().DID()) + `"]}`
	change := ask{method: http.MethodPut, path: "/api/v1/crates/demo-one/owners", token: l.session(l.member, "publish"), body: []byte(body)}
	l.do(change).want(t, 403, "is not an owner of demo-one", "aln-registry owner add crate/demo-one ")
	change.token = l.session(l.owner, "publish")
	l.do(change).want(t, 403, "takes only signed changes")
	change.path = "/api/v1/crates/demo-two/owners"
	l.do(change).want(t, 404, "no crate named")
}

// Membership is looked at on every request, though signatures are remembered.
func TestRemovedMemberIsRefusedAtOnce(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read publish")
	l.get("/index/de/mo/demo-one", token).want(t, 200)
	l.admit(l.member) // no roles: removed
	l.get("/index/de/mo/demo-one", token).want(t, 401, string(didOf(l.member)))
	l.mint(l.assertion(l.member, "read")).want(t, 403, `"code":"membership"`, "aln-registry member add "+string(didOf(l.member))+" --role publisher")
	l.admit(l.member, "auditor")
	l.get("/index/de/mo/demo-one", token).want(t, 200)
	l.ahead.Store(int64(policy.DefaultSession + time.Second))
	l.get("/index/de/mo/demo-one", token).want(t, 401, "expired")
}

func TestBodiesAreBounded(t *testing.T) {
	l := newLab(t)
	admin := l.session(l.admin, "admin publish")
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	l.do(ask{method: http.MethodPost, path: "/v1/session", header: form, body: bytes.Repeat([]byte("a"), 9<<10)}).want(t, 413)
	l.do(ask{method: http.MethodPost, path: "/v1/session", header: form, body: []byte("grant_type=%zz")}).want(t, 400)
	l.do(ask{method: http.MethodPost, path: "/v1/session", header: form, body: []byte("grant_type=password&assertion=x")}).want(t, 400)
	l.do(ask{method: http.MethodPost, path: "/v1/session?grant_type=" + url.QueryEscape(grantType) + "&assertion=x", header: form}).want(t, 400)
	l.do(ask{method: http.MethodPost, path: "/v1/session", body: []byte("grant_type=" + url.QueryEscape(grantType) + "&assertion=x")}).want(t, 400)
	l.do(ask{method: http.MethodPost, path: "/v1/records", token: admin, body: bytes.Repeat([]byte("["), maxSmallBody+1)}).want(t, 413)
	for _, body := range []string{"", "{}x", `{"record":"!!!!","attachments":[]}`, `{"record":"","attachments":[],"more":1}`, `{"record":"","record":""}`, strings.Repeat("[", 20_000)} {
		l.do(ask{method: http.MethodPost, path: "/v1/records", token: admin, body: []byte(body)}).want(t, 400)
	}
	attachments := strings.Repeat(`"AA==",`, 5)
	rec := l.sign(l.admin, record.MemberSubject(didOf(l.member)), &record.Member{Roles: []string{"auditor"}, Tier: "core_stakeholder", StakeholderAddrs: []string{}})
	envelope := base64.StdEncoding.EncodeToString(rec.Envelope())
	l.do(ask{method: http.MethodPost, path: "/v1/records", token: admin,
		body: fmt.Appendf(nil, `{"record":%q,"attachments":[%s]}`, envelope, strings.TrimSuffix(attachments, ","))}).want(t, 400, "attachments")
	l.do(ask{method: http.MethodPost, path: "/v1/records", token: admin, body: fmt.Appendf(nil, `{"record":%q,"attachments":["AA=="]}`, envelope)}).want(t, 400, "does not name the attachment")

	crate := make([]byte, smallCrate+1)
	publish := l.sign(l.owner, versionSubject("demo-one", "0.1.0"), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
	credential := l.credentialFor(l.session(l.owner, "publish"), publish)
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: credential, body: frame("demo-one", "0.1.0", crate)}).want(t, 413)
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: credential, body: make([]byte, smallCrate/2)}).want(t, 400)
	// Whoever sends too much, or has no business here, is told so when all is sent.
	huge := frame("demo-one", "0.1.0", make([]byte, (smallCrate+maxJSONSlack)*3/2))
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: credential, body: huge}).want(t, 413)
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", body: huge}).want(t, 401)
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: credential}).want(t, 400)
	session := l.session(l.owner, "publish")
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: session + "~" + strings.Repeat("A", 6<<10)}).want(t, 400, "larger than 4096 bytes")
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: session + "~not base64"}).want(t, 400, "not base64url")
	l.get("/api/v1/crates?q="+strings.Repeat("a", 2000), session).want(t, 400)
	for _, query := range []string{"per_page=101", "per_page=0", "page=x", "page=-1"} {
		l.get("/api/v1/crates?"+query, session).want(t, 400)
	}
}

// The bytes must be those that the record signs, under the name it says.
func TestPublishOfOtherBytes(t *testing.T) {
	l := newLab(t)
	crate := crateFile("demo-one", "0.1.0")
	credential := func(digest [32]byte, version string) string {
		rec := l.sign(l.owner, versionSubject("demo-one", version), &record.Publish{Evidence: []storage.CID{}}, digest)
		return l.credentialFor(l.session(l.owner, "publish", func(a *policy.Assertion) { a.Rec = string(rec.ID()) }), rec)
	}
	put := func(token string, body []byte) reply {
		return l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: token, body: body})
	}
	good := frame("demo-one", "0.1.0", crate)
	put(credential(sha256.Sum256([]byte("other")), "0.1.0"), good).want(t, 400, "not those that the record signs")
	put(credential(sha256.Sum256(crate), "0.1.1"), good).want(t, 400, "its record crate/demo-one@0.1.1")
	put(credential(sha256.Sum256(crate), "0.1.0"), append(bytes.Clone(good), 0)).want(t, 400)
	put(credential(sha256.Sum256(crate), "0.1.0"), good[:len(good)-1]).want(t, 400)
	token := credential(sha256.Sum256(crate), "0.1.0")
	put(token, good).want(t, 200, "published as "+storage.CIDOf(crate).String(), "log index 4")
	put(token, good).want(t, 200, "was published before, unchanged, as")
	changed := crateFile("demo-one", "0.1.0+build")
	put(credential(sha256.Sum256(changed), "0.1.0+build"), frame("demo-one", "0.1.0+build", changed)).want(t, 409)
}

// A bit flipped in front of the crate is refused, or changes nothing: the version
// that is entered is the one that was signed.
func TestEveryFlippedBitOfAPublishIsRefusedOrChangesNothing(t *testing.T) {
	l := newLab(t)
	crate := crateFile("demo-one", "0.1.0")
	rec := l.sign(l.owner, versionSubject("demo-one", "0.1.0"), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
	asker := policy.Asker{DID: didOf(l.owner), Scopes: []string{"publish"}}
	body := frame("demo-one", "0.1.0", crate)
	publish := func(envelope, body []byte) (registry.Published, error) {
		return l.registry.PublishCrate(t.Context(), asker, envelope, bytes.NewReader(body))
	}
	size := l.registry.Size()
	for bit := range (len(body) - len(crate)) * 8 {
		flipped := bytes.Clone(body)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := publish(rec.Envelope(), flipped); err == nil {
			t.Errorf("bit %d of the frame: published", bit)
		}
	}
	for at := range crate {
		flipped := bytes.Clone(body)
		flipped[len(body)-len(crate)+at] ^= 1 << (at % 8)
		if _, err := publish(rec.Envelope(), flipped); err == nil {
			t.Errorf("byte %d of the crate: published", at)
		}
	}
	for at := range rec.Envelope() {
		flipped := bytes.Clone(rec.Envelope())
		flipped[at] ^= 1 << (at % 8)
		if _, err := publish(flipped, body); err == nil {
			t.Errorf("byte %d of the record: published", at)
		}
	}
	if l.registry.Size() != size {
		t.Fatalf("the log grew by %d", l.registry.Size()-size)
	}
	if done, err := publish(rec.Envelope(), body); err != nil || done.CID != storage.CIDOf(crate) {
		t.Errorf("unaltered: %+v, %v", done, err)
	}
	if got := l.get("/api/v1/crates/demo-one/0.1.0/download", l.session(l.member, "read")).want(t, 200); !bytes.Equal(got.body, crate) {
		t.Error("other bytes are served")
	}
}

// Things hold percent signs of their own and are escaped once more in a path.
func TestPathsArePercentDecodedOnce(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.publish(l.owner, "built", "1.0.0+linux.1")
	token := l.session(l.admin, "read admin")
	thing := record.MemberSubject(didOf(l.member)).Thing() // member/did%3Akey%3Az…
	l.get("/v1/heads/"+strings.ReplaceAll(thing, "%", "%25"), token).want(t, 200, `"thing":"`+thing+`"`, `"prev":"`)
	l.get("/v1/heads/"+thing, token).want(t, 400)
	l.get("/v1/heads/"+strings.ReplaceAll(thing, "%", "%2525"), token).want(t, 400)
	l.get("/v1/heads/crate/demo_one", token).want(t, 200, `"thing":"crate/demo_one"`)
	l.get("/v1/heads/crate/demo-one", token).want(t, 200, `"thing":"crate/demo_one"`)
	l.get("/v1/heads/registry", token).want(t, 200, `"prev":"`+string(l.registry.Settings().Record)+`"`)
	for _, bad := range []string{"", "nothing", "crate/", "crate/demo-one@0.1.0", "crate/../registry", "member/did:key:z6Mk", "crate/demo%00one", "Registry"} {
		l.get("/v1/heads/"+bad, token).want(t, 400, `"code":"bad-request"`)
	}
	// Whoever writes a character as %XX means that character (RFC 3986 §6.2.2.2).
	for _, version := range []string{"1.0.0+linux.1", "1.0.0%2Blinux.1", "1.0.0%2blinux%2E1"} {
		l.get("/api/v1/crates/built/"+version+"/download", token).want(t, 200)
		l.get("/v1/artifacts/crate/%62uilt/"+version, token).want(t, 200, `"version":"1.0.0+linux.1"`)
	}
	l.get("/api/v1/crates/built/1.0.0/download", token).want(t, 404)
	for _, bad := range []string{"/index/DE/mo/demo-one", "/index/de/mo/demo_one", "/index/de/mo/../mo/demo-one", "/index/demo-one", "/index/de/mo/demo-one/", "/index/", "/index/../config.json"} {
		l.get(bad, token).want(t, 404)
	}
	for _, bad := range []string{"/log/tile/0/000", "/log/tile/0/000.p/200", "/log/tile/../checkpoint", "/log/tile/9/000", "/log/tile/entries/000.p/999", "/v1/records/zz", "/v1/records/99", "/v1/records/-1", "/v1/records/" + strings.Repeat("0", 64), "/nothing/at/all"} {
		l.get(bad, token).want(t, 404)
	}
}

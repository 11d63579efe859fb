package web

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// lab is a real registry on disk and SQLite with its pages, and people.
type lab struct {
	t        testing.TB
	registry *registry.Registry
	keys     registry.Keys
	pages    http.Handler
	ahead    atomic.Int64 // of the clock, in nanoseconds

	admin, member, stranger, guest, offshore did.PrivateKey
}

func newLab(t testing.TB, change ...func(*registry.Config)) *lab {
	t.Helper()
	ctx, folder := context.Background(), t.TempDir()
	l := &lab{t: t}
	for _, key := range []*did.PrivateKey{&l.admin, &l.member, &l.stranger, &l.guest, &l.offshore} {
		*key = must(did.GenerateEd25519(rand.Reader))
	}
	l.keys = must(registry.OpenKeys(filepath.Join(folder, "registry.jwk"), "", rand.Reader))
	db := must(catalog.OpenSQLite(ctx, filepath.Join(folder, "catalog.db")))
	store := must(disk.Open(filepath.Join(folder, "store")))
	config := registry.Config{
		Catalog: db, Blobs: store, Keys: l.keys, PublicURL: "http://127.0.0.1:8585",
		Clock: l.now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&config)
	}
	if err := registry.Genesis(ctx, config, l.admin.Signer(l.admin.Public().URL())); err != nil {
		t.Fatal(err)
	}
	l.registry = must(registry.Open(ctx, config))
	l.pages = New(Config{Registry: l.registry, Log: config.Log, Clock: l.now, Version: "v0"})
	t.Cleanup(func() { l.registry.Close(); db.Close(); store.Close() })
	l.submit(l.admin, record.MemberSubject(didOf(l.member)), &record.Member{
		Roles: []string{"publisher"}, Tier: particle.TierCoreStakeholder, StakeholderAddrs: []string{},
	})
	return l
}

func anonymous(c *registry.Config) { c.AnonymousRead = true }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func didOf(k did.PrivateKey) did.DID { return k.Public().DID() }

func (l *lab) now() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) }

func (l *lab) sign(who did.PrivateKey, s record.Subject, body record.Body, digest ...[32]byte) *record.Record {
	l.t.Helper()
	h := must(l.registry.HeadsFor(context.Background(), knowing(who), s.Thing()))
	now := time.Now().UTC().Truncate(time.Second)
	d := record.Draft{Subject: s, Body: body, Header: record.Header{
		Registry: h.Origin, IssuedAt: now, Expires: now.Add(2 * time.Minute), Prev: h.Prev, By: h.By, Key: h.Key,
	}}
	if len(digest) > 0 {
		d.Digest = digest[0]
	}
	return must(record.Sign(d, who.Signer(who.Public().URL())))
}

// knowing is who as one who may know of everything.
func knowing(who did.PrivateKey) policy.Asker {
	return policy.Asker{DID: didOf(who), Tier: particle.TierCoreStakeholder, Scopes: []string{particle.ScopeRead}}
}

// admitBound admits those whom tier or grant keeps from reading.
func (l *lab) admitBound() {
	l.t.Helper()
	for _, key := range []did.PrivateKey{l.guest, l.offshore} {
		l.submit(l.admin, record.MemberSubject(didOf(key)), &record.Member{Roles: []string{"publisher"}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	}
	l.grant(l.offshore, func(g *particle.EnvGrant) { g.OffshoreFlag = true })
}

// grant puts a grant that lists nothing in force, changed by change.
func (l *lab) grant(host did.PrivateKey, change func(*particle.EnvGrant)) {
	l.t.Helper()
	g := particle.EnvGrant{
		Registry: l.registry.Origin(), Issuer: didOf(l.admin), Subject: didOf(host),
		NotBefore: particle.At(time.Now().Add(-time.Hour)), Expires: particle.At(time.Now().Add(24 * time.Hour)),
		AllowedCrates: []string{}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}
	change(&g)
	raw := must(g.Marshal())
	l.enter(l.admin, l.sign(l.admin, record.GrantSubject(storage.CIDOf(raw)), &record.Grant{}), raw)
}

// quarantine makes a rule about names.
func (l *lab) quarantine(id, versions string, names ...string) {
	l.t.Helper()
	l.submit(l.admin, must(record.RuleSubject(id)), &record.Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "it was <looked> at",
		Match: []particle.RuleMatch{{Names: names, Versions: versions, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}})
}

func (l *lab) submit(who did.PrivateKey, s record.Subject, body record.Body) {
	l.t.Helper()
	l.enter(who, l.sign(who, s, body))
}

func (l *lab) enter(who did.PrivateKey, signed *record.Record, attachments ...[]byte) {
	l.t.Helper()
	asker := policy.Asker{DID: didOf(who), Scopes: []string{"publish", "admin"}}
	if _, err := l.registry.Submit(context.Background(), asker, signed.Envelope(), attachments); err != nil {
		l.t.Fatal(err)
	}
}

// publish enters a crate of the member's, with the manifest's [package] lines
// and the files given.
func (l *lab) publish(name, version, lines string, files ...[2]string) {
	l.t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\n%s", name, version, lines)
	for _, file := range append([][2]string{{"Cargo.toml", manifest}, {"src/lib.rs", "pub fn it() {}\n"}}, files...) {
		must(0, w.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + file[0], Mode: 0o644, Size: int64(len(file[1]))}))
		must(io.WriteString(w, file[1]))
	}
	must(0, w.Close())
	must(0, z.Close())
	metadata := fmt.Appendf(nil, `{"name":%q,"vers":%q}`, name, version)
	body := binary.LittleEndian.AppendUint32(nil, uint32(len(metadata)))
	body = append(body, metadata...)
	body = binary.LittleEndian.AppendUint32(body, uint32(packed.Len()))
	body = append(body, packed.Bytes()...)
	subject := must(record.VersionSubject(record.KindCrate, name, version))
	rec := l.sign(l.member, subject, &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(packed.Bytes()))
	asker := policy.Asker{DID: didOf(l.member), Scopes: []string{"publish"}}
	if _, err := l.registry.PublishCrate(context.Background(), asker, rec.Envelope(), bytes.NewReader(body)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) yank(name, version string) {
	l.t.Helper()
	l.submit(l.member, must(record.VersionSubject(record.KindCrate, name, version)), &record.Yank{Yanked: true})
}

// session mints one; it must succeed.
func (l *lab) session(who did.PrivateKey, scope string) string {
	l.t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	a := policy.Assertion{
		Issuer: didOf(who), Subject: didOf(who), Audience: l.registry.SessionURL(),
		IssuedAt: l.now().Unix(), Expiry: l.now().Add(time.Minute).Unix(), ID: hex.EncodeToString(id), Scope: scope,
	}
	token, _, err := l.registry.Mint(context.Background(), must(policy.SignAssertion(a, did.EdDSA, who.Signer(who.Public().URL()))))
	if err != nil {
		l.t.Fatal(err)
	}
	return token
}

// forge signs a session with the registry's own key, past its rules.
func (l *lab) forge(who did.PrivateKey, scope string) string {
	return must(policy.SignSession(particle.SessionToken{
		Issuer: l.registry.Origin(), Subject: didOf(who), Audience: l.registry.Origin(), IssuedAt: l.now().Unix(),
		Expiry: l.now().Add(15 * time.Minute).Unix(), ID: "forged", HostDID: string(didOf(who)), Roles: []string{}, Scope: scope,
	}, did.EdDSA, l.keys.Signer()))
}

// cookieName is that of the registry's cookie.
func (l *lab) cookieName() string {
	return cookieFor(must(url.Parse(l.registry.PublicURL)), l.registry.Origin()).name
}

// reply is what came back.
type reply struct {
	*httptest.ResponseRecorder
}

func (r reply) String() string { return fmt.Sprintf("%d %v\n%s", r.Code, r.Header(), r.Body) }

// get asks for a page as the holder of token, "" for nobody.
func (l *lab) get(path, token string) reply {
	l.t.Helper()
	return l.do(httptest.NewRequest(http.MethodGet, path, nil), token)
}

// getWithin is get by somebody who goes away after a while.
func (l *lab) getWithin(path, token string, patience time.Duration) reply {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return l.do(httptest.NewRequest(http.MethodGet, path, nil).WithContext(ctx), token)
}

func (l *lab) do(r *http.Request, token string) reply {
	if token != "" {
		r.AddCookie(&http.Cookie{Name: l.cookieName(), Value: token})
	}
	w := httptest.NewRecorder()
	l.pages.ServeHTTP(w, r)
	return reply{w}
}

// post sends a form the way a browser does from the registry's own page.
func (l *lab) post(path, token string, form url.Values, change ...func(http.Header)) reply {
	l.t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Origin", "http://127.0.0.1:8585")
	for _, c := range change {
		c(r.Header)
	}
	return l.do(r, token)
}

func (r reply) want(t testing.TB, status int, text ...string) reply {
	t.Helper()
	if r.Code != status {
		t.Fatalf("status %d, not %d: %s", r.Code, status, r)
	}
	for _, s := range text {
		if !strings.Contains(r.Body.String(), s) {
			t.Fatalf("does not say %q: %s", s, r)
		}
	}
	return r
}

// credential is what cargo sends: a session and a record.
func credential(token string, r *record.Record) string {
	return token + "~" + base64.RawURLEncoding.EncodeToString(r.Envelope())
}

// admitReader makes who a member that owns nothing.
func (l *lab) admitReader(who did.PrivateKey) {
	l.t.Helper()
	l.submit(l.admin, record.MemberSubject(didOf(who)), &record.Member{
		Roles: []string{"auditor"}, Tier: particle.TierCoreStakeholder, StakeholderAddrs: []string{},
	})
}

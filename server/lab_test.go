package server

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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// lab is a real registry on disk and SQLite behind a real HTTP server, with people.
type lab struct {
	t        testing.TB
	url      string
	folder   string
	registry *registry.Registry
	keys     registry.Keys
	routes   chi.Routes
	metrics  *Metrics
	// upstreams are those that it takes crates from.
	upstreams *fakeUpstreams
	// ahead is how far the server's clock is beyond the real one, in nanoseconds.
	ahead atomic.Int64
	log   *safeBuffer
	// secrets is all that must not appear in the log.
	mu      sync.Mutex
	secrets []string

	admin, owner, member, stranger did.PrivateKey
	// guest and offshore are admitted by admitBound.
	guest, offshore did.PrivateKey
	crates, scrapes int
	// ownRecord is an own record that names intent (a CID), made by demo.
	ownRecord, intent string
	// grantCID is an EnvGrant's that the table of routes reads.
	grantCID string
}

type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// smallCrate is the largest .crate the labs take, in bytes.
const smallCrate = 64 << 10

func newLab(t testing.TB, change ...func(*registry.Config)) *lab {
	t.Helper()
	return newLabWith(t, newFakeUpstreams(), change...)
}

func newLabWith(t testing.TB, upstreams *fakeUpstreams, change ...func(*registry.Config)) *lab {
	t.Helper()
	ctx, folder := context.Background(), t.TempDir()
	l := &lab{t: t, folder: folder, log: new(safeBuffer), metrics: NewMetrics(MetricsConfig{Version: "1.2.3", Room: func() (uint64, uint64, error) { return 1 << 30, 1 << 40, nil }})}
	httpServer := httptest.NewUnstartedServer(nil)
	l.url = "http://" + httpServer.Listener.Addr().String()
	for _, key := range []*did.PrivateKey{&l.admin, &l.owner, &l.member, &l.stranger, &l.guest, &l.offshore} {
		*key = must(did.GenerateEd25519(rand.Reader))
	}
	l.keys = must(registry.OpenKeys(filepath.Join(folder, "registry.jwk"), "", rand.Reader))
	db := must(catalog.OpenSQLite(ctx, filepath.Join(folder, "catalog.db")))
	store := must(disk.Open(filepath.Join(folder, "store")))
	config := registry.Config{
		Catalog: db, Blobs: l.metrics.Blobs(store), Batch: l.metrics.Batch, Keys: l.keys, PublicURL: l.url, Limits: cargo.Limits{CrateBytes: smallCrate},
		Clock: l.now, Rand: rand.Reader, Log: slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&config)
	}
	if err := registry.Genesis(ctx, config, l.admin.Signer(l.admin.Public().URL())); err != nil {
		t.Fatal(err)
	}
	l.registry = must(registry.Open(ctx, config))
	l.upstreams, upstreams.registry, upstreams.remove = upstreams, l.registry, store.Remove
	served := Config{Registry: l.registry, Log: config.Log, Clock: l.now, Metrics: l.metrics, Upstreams: upstreams}
	l.routes = newServer(served).router()
	httpServer.Config.Handler = New(served)
	httpServer.Start()
	t.Cleanup(func() {
		httpServer.Close()
		l.registry.Close()
		db.Close()
		store.Close()
		l.checkLog()
	})
	l.admit(l.owner, "publisher")
	l.admit(l.member, "publisher")
	return l
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (l *lab) now() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) }

func (l *lab) secret(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets = append(l.secrets, s)
}

// checkLog: no token, assertion or record was ever logged, nor a part of one.
func (l *lab) checkLog() {
	logged := l.log.String()
	if !strings.Contains(logged, "msg=request") {
		l.t.Error("nothing was logged")
	}
	for _, name := range []string{"demo-one", "demo_one"} { // what members ask for is theirs
		if strings.Contains(logged, name) {
			l.t.Errorf("the log shows the name %s", name)
		}
	}
	for _, secret := range l.secrets {
		for _, part := range strings.FieldsFunc(secret, func(r rune) bool { return r == '.' || r == '~' }) {
			if len(part) >= 16 && strings.Contains(logged, part[len(part)-16:]) {
				l.t.Errorf("the log shows a part of a token or record: …%s", part[len(part)-16:])
			}
		}
	}
}

func didOf(k did.PrivateKey) did.DID { return k.Public().DID() }

// assertion asks for a session; change alters it before it is signed.
func (l *lab) assertion(who did.PrivateKey, scope string, change ...func(*policy.Assertion)) string {
	l.t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	a := policy.Assertion{
		Issuer: didOf(who), Subject: didOf(who), Audience: l.url + "/v1/session",
		IssuedAt: l.now().Unix(), Expiry: l.now().Add(time.Minute).Unix(), ID: hex.EncodeToString(id), Scope: scope,
	}
	for _, c := range change {
		c(&a)
	}
	signed := must(policy.SignAssertion(a, did.EdDSA, who.Signer(who.Public().URL())))
	l.secret(signed)
	return signed
}

// session mints one; it must succeed.
func (l *lab) session(who did.PrivateKey, scope string, change ...func(*policy.Assertion)) string {
	l.t.Helper()
	token, _, err := l.registry.Mint(context.Background(), l.assertion(who, scope, change...))
	if err != nil {
		l.t.Fatal(err)
	}
	l.secret(token)
	return token
}

// forge signs a session with the registry's own key, past its rules.
func (l *lab) forge(who did.PrivateKey, scope string, change ...func(*particle.SessionToken)) string {
	l.t.Helper()
	t := particle.SessionToken{
		Issuer: l.registry.Origin(), Subject: didOf(who), Audience: l.registry.Origin(), IssuedAt: l.now().Unix(),
		Expiry: l.now().Add(15 * time.Minute).Unix(), ID: "forged", HostDID: string(didOf(who)), Roles: []string{}, Scope: scope,
	}
	for _, c := range change {
		c(&t)
	}
	token := must(policy.SignSession(t, did.EdDSA, l.keys.Signer()))
	l.secret(token)
	return token
}

// sign makes a record with the heads as the registry tells them to who.
func (l *lab) sign(who did.PrivateKey, s record.Subject, body record.Body, digest ...[32]byte) *record.Record {
	l.t.Helper()
	h, err := l.registry.HeadsFor(context.Background(), knowing(who), s.Thing())
	if err != nil {
		l.t.Fatal(err)
	}
	if h.By == "" { // whoever is entitled to nothing cites something all the same
		h.By = l.registry.Settings().Record
	}
	now := time.Now().UTC().Truncate(time.Second)
	d := record.Draft{Subject: s, Body: body, Header: record.Header{
		Registry: h.Origin, IssuedAt: now, Expires: now.Add(2 * time.Minute), Prev: h.Prev, By: h.By, Key: h.Key,
	}}
	if len(digest) > 0 {
		d.Digest = digest[0]
	}
	r := must(record.Sign(d, who.Signer(who.Public().URL())))
	l.secret(base64.RawURLEncoding.EncodeToString(r.Envelope()))
	l.secret(base64.StdEncoding.EncodeToString(r.Envelope()))
	return r
}

// knowing is who as one who may know of everything.
func knowing(who did.PrivateKey) policy.Asker {
	return policy.Asker{DID: didOf(who), Tier: particle.TierCoreStakeholder, Scopes: []string{particle.ScopeRead}}
}

func (l *lab) admit(who did.PrivateKey, roles ...string) {
	l.t.Helper()
	l.submit(l.admin, record.MemberSubject(didOf(who)), &record.Member{
		Roles: append([]string{}, roles...), Tier: particle.TierCoreStakeholder, StakeholderAddrs: []string{},
	})
}

// admitBound admits those whom tier or grant keeps from reading.
func (l *lab) admitBound() {
	l.t.Helper()
	for _, key := range []did.PrivateKey{l.guest, l.offshore} {
		l.admitTo(particle.TierGuest, key, "publisher")
	}
	l.grant(l.offshore, func(g *particle.EnvGrant) { g.OffshoreFlag = true })
}

func (l *lab) admitTo(tier string, who did.PrivateKey, roles ...string) {
	l.t.Helper()
	l.submit(l.admin, record.MemberSubject(didOf(who)), &record.Member{Roles: append([]string{}, roles...), Tier: tier, StakeholderAddrs: []string{}})
}

// grantOf is an EnvGrant from issuer that lists nothing, changed by change.
func (l *lab) grantOf(issuer, host did.PrivateKey, change func(*particle.EnvGrant)) []byte {
	l.t.Helper()
	g := particle.EnvGrant{
		Registry: l.registry.Origin(), Issuer: didOf(issuer), Subject: didOf(host),
		NotBefore: particle.At(time.Now().Add(-time.Hour)), Expires: particle.At(time.Now().Add(24 * time.Hour)),
		AllowedCrates: []string{}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}
	if change != nil {
		change(&g)
	}
	return must(g.Marshal())
}

// grant puts one of the admin's in force.
func (l *lab) grant(host did.PrivateKey, change func(*particle.EnvGrant)) storage.CID {
	l.t.Helper()
	return l.grantBy(l.admin, host, change)
}

func (l *lab) grantBy(issuer, host did.PrivateKey, change func(*particle.EnvGrant)) storage.CID {
	l.t.Helper()
	raw := l.grantOf(issuer, host, change)
	l.submit(issuer, record.GrantSubject(storage.CIDOf(raw)), &record.Grant{}, raw)
	return storage.CIDOf(raw)
}

// quarantine makes a rule of the admin's.
func (l *lab) quarantine(id string, change func(*particle.QuarantineRule)) {
	l.t.Helper()
	q := particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "it was looked at",
		Match: []particle.RuleMatch{{Names: []string{}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}
	change(&q)
	l.submit(l.admin, must(record.RuleSubject(id)), &record.Quarantine{QuarantineRule: q})
}

func (l *lab) submit(who did.PrivateKey, s record.Subject, body record.Body, attachments ...[]byte) {
	l.t.Helper()
	if _, err := l.registry.Submit(context.Background(), policy.Asker{DID: didOf(who), Scopes: []string{"publish", "admin"}}, l.sign(who, s, body).Envelope(), attachments); err != nil {
		l.t.Fatal(err)
	}
}

func crateSubject(name string) record.Subject {
	return must(record.ArtifactSubject(record.KindCrate, name))
}

func versionSubject(name, version string) record.Subject {
	return must(record.VersionSubject(record.KindCrate, name, version))
}

func anonymous(c *registry.Config) { c.AnonymousRead = true }

// demo publishes demo-one 0.1.0 as owner (entry 4) and adds and removes the
// admin as owner, the way cargo does it.
func (l *lab) demo() {
	l.t.Helper()
	l.publish(l.owner, "demo-one", "0.1.0")
	intent := l.sign(l.owner, crateSubject("demo-one"), &record.OwnIntent{})
	asker := policy.Asker{DID: didOf(l.owner), Scopes: []string{"publish"}}
	added, err := l.registry.ChangeOwners(context.Background(), asker, "demo-one", intent.Envelope(), []did.DID{didOf(l.admin)}, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.registry.ChangeOwners(context.Background(), asker, "demo-one", intent.Envelope(), nil, []did.DID{didOf(l.admin)}); err != nil {
		l.t.Fatal(err)
	}
	l.ownRecord, l.intent = string(added.Record), intent.CID().String()
}

// newName is a name that was not used yet.
func (l *lab) newName() string {
	l.crates++
	return fmt.Sprintf("crate-%d", l.crates)
}

// crateFile is a well-formed .crate.
func crateFile(name, version string) []byte {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	for _, file := range [][2]string{
		{"Cargo.toml", fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\ndescription = \"about %s\"\n", name, version, name)},
		{"src/lib.rs", "pub fn it() {}\n"},
	} {
		text := file[1]
		must(0, w.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + file[0], Mode: 0o644, Size: int64(len(text))}))
		must(w.Write([]byte(text)))
	}
	must(0, w.Close())
	must(0, z.Close())
	return packed.Bytes()
}

// frame is the body of cargo's publish request.
func frame(name, version string, crate []byte) []byte {
	metadata := fmt.Appendf(nil, `{"name":%q,"vers":%q}`, name, version)
	body := binary.LittleEndian.AppendUint32(nil, uint32(len(metadata)))
	body = append(body, metadata...)
	body = binary.LittleEndian.AppendUint32(body, uint32(len(crate)))
	return append(body, crate...)
}

// publish enters a version past HTTP.
func (l *lab) publish(who did.PrivateKey, name, version string) {
	l.t.Helper()
	crate := crateFile(name, version)
	rec := l.sign(who, versionSubject(name, version), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
	asker := policy.Asker{DID: didOf(who), Scopes: []string{"publish"}}
	if _, err := l.registry.PublishCrate(context.Background(), asker, rec.Envelope(), bytes.NewReader(frame(name, version, crate))); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) yank(who did.PrivateKey, name, version string) {
	l.t.Helper()
	l.submit(who, versionSubject(name, version), &record.Yank{Yanked: true})
}

func (l *lab) own(who did.PrivateKey, name string, add ...did.DID) {
	l.t.Helper()
	l.submit(who, crateSubject(name), &record.Own{Add: add, Remove: []did.DID{}})
}

// credentialFor is what cargo sends for a change: a session and the record.
func (l *lab) credentialFor(token string, r *record.Record) string {
	return token + "~" + base64.RawURLEncoding.EncodeToString(r.Envelope())
}

// ask is one request.
type ask struct {
	method, path string
	token        string
	header       http.Header
	body         []byte
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string { return fmt.Sprintf("%d %v\n%s", r.status, r.header, r.body) }

// do sends a; nothing is unpacked or followed on the way.
func (l *lab) do(a ask) reply {
	l.t.Helper()
	req, err := http.NewRequest(a.method, l.url+a.path, bytes.NewReader(a.body))
	if err != nil {
		l.t.Fatal(err)
	}
	for name, values := range a.header {
		req.Header[name] = values
	}
	if a.token != "" {
		req.Header.Set("Authorization", a.token)
	}
	resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		l.t.Fatalf("%s %s: %v", a.method, a.path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	l.checkContract(a, reply{resp.StatusCode, resp.Header, body})
	return reply{resp.StatusCode, resp.Header, body}
}

func (l *lab) get(path, token string) reply {
	l.t.Helper()
	return l.do(ask{method: http.MethodGet, path: path, token: token})
}

// mint posts an assertion.
func (l *lab) mint(assertion string) reply {
	l.t.Helper()
	form := url.Values{"grant_type": {grantType}, "assertion": {assertion}}
	return l.do(ask{
		method: http.MethodPost, path: "/v1/session", body: []byte(form.Encode()),
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	})
}

func (r reply) want(t testing.TB, status int, text ...string) reply {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, not %d: %s", r.status, status, r)
	}
	for _, s := range text {
		if !strings.Contains(string(r.body), s) {
			t.Fatalf("does not say %q: %s", s, r)
		}
	}
	return r
}

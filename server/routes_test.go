package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// The askers of the table, in the order of its columns.
const (
	nobody = iota
	expired
	wrongScope
	stranger
	member
	owner
	admin
	// guest is a member whose tier reads nothing without a grant, and who has none;
	// offshore reads under one that lists nothing: demo-one is not to be known of.
	guest
	offshore
	askers
)

var askerNames = [askers]string{"nobody", "expired", "wrong scope", "stranger", "member", "owner", "admin", "guest", "offshore"}

// Caching, as DESIGN invariant 6 demands of each family.
const (
	public    = "no-cache"
	forAsker  = "private, no-cache"
	forever   = "public, max-age=31536000, immutable"
	notStored = "no-store"
	unsaid    = "" // plain words, or the answer to a change
)

// key is who asks in a column: expired and wrong-scope sessions are the owner's.
func (l *lab) key(who int) did.PrivateKey {
	switch who {
	case stranger:
		return l.stranger
	case member:
		return l.member
	case admin:
		return l.admin
	case guest:
		return l.guest
	case offshore:
		return l.offshore
	}
	return l.owner
}

// token is the credential of a column for a request that needs scope; rec goes with a change.
func (l *lab) token(who int, scope string, rec *record.Record) string {
	l.t.Helper()
	var token string
	switch who {
	case nobody:
		return ""
	case expired:
		token = l.forge(l.owner, scope, func(t *particle.SessionToken) {
			t.IssuedAt, t.Expiry = l.now().Add(-20*time.Minute).Unix(), l.now().Unix()-1
		})
	case wrongScope:
		other := particle.ScopeRead
		if scope == particle.ScopeRead {
			other = particle.ScopeChat
		}
		token = l.forge(l.owner, other)
	case stranger:
		token = l.forge(l.stranger, scope)
	default:
		token = l.forge(l.key(who), scope)
	}
	if rec != nil {
		token = l.credentialFor(token, rec)
	}
	return token
}

// asking makes the request of a column.
type asking func(l *lab, who int) ask

func reading(path string) asking {
	return func(l *lab, who int) ask {
		return ask{method: http.MethodGet, path: path, token: l.token(who, particle.ScopeRead, nil)}
	}
}

// watching reads what only auditors and admins may.
func watching(l *lab, who int) ask {
	return ask{method: http.MethodGet, path: "/metrics", token: l.token(who, particle.ScopeAudit, nil)}
}

// readingAudit is watching for the audit trail.
func readingAudit(l *lab, who int) ask {
	return ask{method: http.MethodGet, path: "/v1/audit", token: l.token(who, particle.ScopeAudit, nil)}
}

// posting asks a question that is too long for a URL.
func posting(path, body string) asking {
	return func(l *lab, who int) ask {
		return ask{method: http.MethodPost, path: path, token: l.token(who, particle.ScopeRead, nil), body: []byte(body)}
	}
}

// demoTest asks what a rule would hit.
const demoTest = `{"rule":{"effect":"deny","mode":"enforce","match":[{"names":["demo*"],"versions":"","hashes":[],"publishers":[],"sources":[],"content":[]}],"reason":"a try","evidence":null,"expires":null,"grace":null}}`

// granted reads an EnvGrant of somebody who does not stand in the table, so that it binds none of those.
func granted(l *lab, who int) ask {
	if l.grantCID == "" {
		other := must(did.GenerateEd25519(zeros{200}))
		l.admit(other, "builder")
		l.grantCID = l.grant(other, nil).String()
	}
	return reading("/v1/grants/"+l.grantCID)(l, who)
}

func publishing(l *lab, who int) ask {
	name := l.newName()
	l.publish(l.owner, name, "0.1.0")
	crate := crateFile(name, "0.2.0")
	rec := l.sign(l.key(who), versionSubject(name, "0.2.0"), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
	return ask{method: http.MethodPut, path: "/api/v1/crates/new", token: l.token(who, particle.ScopePublish, rec), body: frame(name, "0.2.0", crate)}
}

func publishingShard(l *lab, who int) ask {
	name := l.newName()
	l.put(l.owner, record.KindALNShard, name, "0.1.0", []byte("first")).want(l.t, 200)
	rec := l.signArtifact(l.key(who), record.KindALNShard, name, "0.2.0", []byte("second"))
	return ask{method: http.MethodPut, path: "/v1/artifacts/aln-shard/" + name + "/0.2.0", token: l.token(who, particle.ScopePublish, rec), body: []byte("second")}
}

func yanking(yanked bool) asking {
	return func(l *lab, who int) ask {
		name := l.newName()
		l.publish(l.owner, name, "0.1.0")
		method, verb := http.MethodDelete, "yank"
		if !yanked {
			l.yank(l.owner, name, "0.1.0")
			method, verb = http.MethodPut, "unyank"
		}
		rec := l.sign(l.key(who), versionSubject(name, "0.1.0"), &record.Yank{Yanked: yanked})
		return ask{method: method, path: "/api/v1/crates/" + name + "/0.1.0/" + verb, token: l.token(who, particle.ScopePublish, rec)}
	}
}

func owning(method string) asking {
	return func(l *lab, who int) ask {
		name := l.newName()
		l.publish(l.owner, name, "0.1.0")
		third := must(did.GenerateEd25519(zeros{byte(l.crates)}))
		l.admit(third, "publisher")
		if method == http.MethodDelete {
			l.own(l.owner, name, didOf(third))
		}
		rec := l.sign(l.key(who), crateSubject(name), &record.OwnIntent{})
		return ask{
			method: method, path: "/api/v1/crates/" + name + "/owners", token: l.token(who, particle.ScopePublish, rec),
			body: fmt.Appendf(nil, `{"users":[%q]}`, didOf(third)),
		}
	}
}

// zeros is a source of bytes that are all the same.
type zeros struct{ b byte }

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = z.b
	}
	return len(p), nil
}

// admitting submits a member record, which is an admin's to make.
func admitting(l *lab, who int) ask {
	l.crates++
	third := must(did.GenerateEd25519(zeros{byte(l.crates)}))
	rec := l.sign(l.key(who), record.MemberSubject(didOf(third)), &record.Member{Roles: []string{"auditor"}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	body := must(json.Marshal(map[string]any{"record": base64.StdEncoding.EncodeToString(rec.Envelope()), "attachments": []string{}}))
	return ask{method: http.MethodPost, path: "/v1/records", token: l.token(who, particle.ScopeAdmin, nil), body: body}
}

// minting: whoever asks for a session says so by the assertion.
func minting(l *lab, who int) ask {
	var assertion string
	switch who {
	case nobody:
	case expired:
		assertion = l.assertion(l.owner, "read", func(a *policy.Assertion) { a.IssuedAt -= 300; a.Expiry -= 300 })
	case wrongScope:
		assertion = l.assertion(l.owner, "admin")
	default:
		assertion = l.assertion(l.key(who), "read")
	}
	form := url.Values{"grant_type": {grantType}, "assertion": {assertion}}
	return ask{
		method: http.MethodPost, path: "/v1/session", body: []byte(form.Encode()),
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	}
}

// What each column gets. A route that yields artifacts or tells of one is readers'
// or lists'; members' is what the registry goes by, which no grant hides.
var (
	everybody = [askers]int{200, 200, 200, 200, 200, 200, 200, 200, 200}
	absent    = [askers]int{404, 404, 404, 404, 404, 404, 404, 404, 404}
	readers   = [askers]int{401, 401, 403, 401, 200, 200, 200, 403, 404}
	lists     = [askers]int{401, 401, 403, 401, 200, 200, 200, 403, 200} // without what is hidden
	members   = [askers]int{401, 401, 403, 401, 200, 200, 200, 200, 200}
	// Who may not know of the name is told there is none: that prev names a record of
	// nothing, or that there is nothing to change.
	owners    = [askers]int{401, 401, 403, 401, 403, 200, 403, 409, 409}
	ownersToo = [askers]int{401, 401, 403, 401, 403, 200, 200, 409, 409} // and admins
	intents   = [askers]int{401, 401, 403, 401, 403, 200, 200, 404, 404}
	admins    = [askers]int{401, 401, 403, 401, 403, 403, 200, 403, 403}
)

// routesTable is every route there is; a route that is not here fails the test.
var routesTable = map[string]struct {
	ask     asking
	want    [askers]int
	caching string
}{
	"GET /":                     {reading("/"), everybody, unsaid},
	"GET /me":                   {reading("/me"), everybody, unsaid},
	"GET /healthz":              {reading("/healthz"), everybody, unsaid},
	"GET /readyz":               {reading("/readyz"), everybody, notStored},
	"GET /metrics":              {watching, admins, forAsker},
	"GET /openapi.json":         {reading("/openapi.json"), everybody, public},
	"GET /.well-known/did.json": {reading("/.well-known/did.json"), absent, notStored}, // a did:key has none

	"GET /index/config.json":        {reading("/index/config.json"), lists, forAsker},
	"GET /index/*":                  {reading("/index/de/mo/demo-one"), readers, forAsker},
	"GET /public/index/config.json": {reading("/public/index/config.json"), absent, notStored},
	"GET /public/index/*":           {reading("/public/index/de/mo/demo-one"), absent, notStored},

	"GET /api/v1/crates":                            {reading("/api/v1/crates?q=demo"), lists, forAsker},
	"PUT /api/v1/crates/new":                        {publishing, owners, unsaid},
	"GET /api/v1/crates/{crate}/{version}/download": {reading("/api/v1/crates/demo-one/0.1.0/download"), readers, forAsker},
	"DELETE /api/v1/crates/{crate}/{version}/yank":  {yanking(true), ownersToo, unsaid},
	"PUT /api/v1/crates/{crate}/{version}/unyank":   {yanking(false), ownersToo, unsaid},
	"GET /api/v1/crates/{crate}/owners":             {reading("/api/v1/crates/demo-one/owners"), readers, forAsker},
	"PUT /api/v1/crates/{crate}/owners":             {owning(http.MethodPut), intents, unsaid},
	"DELETE /api/v1/crates/{crate}/owners":          {owning(http.MethodDelete), intents, unsaid},

	"POST /v1/session":     {minting, [askers]int{401, 403, 403, 403, 200, 200, 200, 200, 200}, notStored},
	"GET /v1/heads/*":      {reading("/v1/heads/crate/demo-one"), members, forAsker},
	"POST /v1/records":     {admitting, admins, forAsker},
	"GET /v1/members":      {reading("/v1/members"), members, forAsker},
	"GET /v1/settings":     {reading("/v1/settings"), members, forAsker},
	"GET /v1/proposals":    {reading("/v1/proposals"), members, forAsker},
	"GET /v1/records/{id}": {reading("/v1/records/1"), members, forAsker},
	"GET /v1/records/{id}/attachments/{cid}": {
		func(l *lab, who int) ask {
			return reading("/v1/records/"+l.ownRecord+"/attachments/"+l.intent)(l, who)
		}, readers, forAsker,
	},
	"GET /v1/artifacts":                                 {reading("/v1/artifacts"), lists, forAsker},
	"GET /v1/artifacts/{kind}":                          {reading("/v1/artifacts/crate"), lists, forAsker},
	"GET /v1/artifacts/{kind}/{name}":                   {reading("/v1/artifacts/crate/demo-one"), readers, forAsker},
	"PUT /v1/artifacts/{kind}/{name}/{version}":         {publishingShard, owners, unsaid},
	"GET /v1/artifacts/{kind}/{name}/{version}/content": {reading("/v1/artifacts/crate/demo-one/0.1.0/content"), readers, forAsker},
	"GET /v1/artifacts/{kind}/{name}/{version}":         {reading("/v1/artifacts/crate/demo-one/0.1.0"), readers, forAsker},
	"GET /v1/artifacts/{kind}/{name}/{version}/bundle":  {reading("/v1/artifacts/crate/demo-one/0.1.0/bundle"), readers, forAsker},

	"GET /v1/grants":                            {reading("/v1/grants?in_force=true"), members, forAsker},
	"GET /v1/grants/{cid}":                      {granted, members, forAsker},
	"GET /v1/rules":                             {reading("/v1/rules"), members, forAsker},
	"POST /v1/rules/test":                       {posting("/v1/rules/test", demoTest), lists, forAsker},
	"GET /v1/rules/{id}":                        {reading("/v1/rules/blake3"), members, forAsker},
	"POST /v1/decisions":                        {posting("/v1/decisions", `{"grant":"","artifacts":[{"name":"demo-one","version":"0.1.0","sha256":"","source":"hosted"}]}`), lists, forAsker},
	"GET /v1/decisions/{kind}/{name}":           {reading("/v1/decisions/crate/demo-one"), readers, forAsker},
	"GET /v1/decisions/{kind}/{name}/{version}": {reading("/v1/decisions/crate/demo-one/0.1.0"), readers, forAsker},
	"GET /v1/audit":                             {readingAudit, admins, forAsker},

	"GET /crates-io/index/config.json":                     {reading("/crates-io/index/config.json"), lists, forAsker},
	"GET /crates-io/index/*":                               {reading("/crates-io/index/re/mo/remote"), readers, forAsker},
	"GET /crates-io/dl/{crate}/{version}/{checksum}":       {reading(remoteDL("/crates-io")), readers, forAsker},
	"GET /upstream/{name}/index/config.json":               {reading("/upstream/lab/index/config.json"), lists, forAsker},
	"GET /upstream/{name}/index/*":                         {reading("/upstream/lab/index/re/mo/remote"), readers, forAsker},
	"GET /upstream/{name}/dl/{crate}/{version}/{checksum}": {reading(remoteDL("/upstream/lab")), readers, forAsker},
	"GET /v1/upstreams":                                    {reading("/v1/upstreams"), members, forAsker},
	"GET /v1/upstreams/{name}/alarms":                      {readingAlarms, admins, forAsker},
	"POST /v1/upstreams/{name}/alarms/{id}/seen":           {seeingAlarm, [askers]int{401, 401, 403, 401, 403, 403, 404, 403, 403}, forAsker}, // the fake's are not in the catalog
	"GET /v1/locks":                                        {reading("/v1/locks"), members, forAsker},
	"GET /v1/locks/*":                                      {reading("/v1/locks/ci/main"), members, forAsker},
	"DELETE /v1/locks/*":                                   {unpinning, members, forAsker},
	"POST /v1/upstreams/{name}/prefetch":                   {prefetchingRemote, lists, forAsker},

	"GET /log/checkpoint": {reading("/log/checkpoint"), everybody, public},
	"GET /log/keys":       {reading("/log/keys"), [askers]int{200, 401, 200, 401, 200, 200, 200, 200, 200}, forAsker}, // until keys are replaced
	"GET /log/tile/*":     {reading("/log/tile/0/000.p/1"), everybody, forever},
}

func TestEveryRouteForEverybody(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	l.upstreams.offer("remote", "1.0.0")
	seen := map[string]bool{}
	err := chi.Walk(l.routes, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		name := method + " " + route
		seen[name] = true
		row, ok := routesTable[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			return nil
		}
		t.Run(name, func(t *testing.T) {
			for who, status := range row.want {
				a := row.ask(l, who)
				r := l.do(a)
				if r.status != status {
					t.Errorf("%s gets %d, not %d: %s", askerNames[who], r.status, status, r.body)
					continue
				}
				l.checkHeaders(t, askerNames[who], r, row.caching)
				if who >= guest && a.method == http.MethodGet {
					checkHidden(t, askerNames[who], r)
				}
				if a.method == http.MethodGet {
					l.checkHead(t, askerNames[who], a, r)
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range routesTable {
		if !seen[name] {
			t.Errorf("there is no route %s", name)
		}
	}
}

// checkHidden: who may not know of demo-one is not told of it, in whatever words.
func checkHidden(t *testing.T, who string, r reply) {
	t.Helper()
	told := strings.ReplaceAll(string(r.body), `"thing":"crate/demo-one"`, "") // what was asked for
	if r.status == http.StatusOK && (strings.Contains(told, "demo-one") || strings.Contains(told, `"prev":"`)) {
		t.Errorf("%s is told of demo-one: %s", who, r.body)
	}
}

func (l *lab) checkHeaders(t *testing.T, who string, r reply, caching string) {
	t.Helper()
	if got, want := r.header.Values("WWW-Authenticate"), []string{`Cargo login_url="` + l.url + `/me"`}; r.status == http.StatusUnauthorized && !slices.Equal(got, want) {
		t.Errorf("%s: WWW-Authenticate %q, not %q", who, got, want)
	}
	if r.header.Get("Last-Modified") != "" {
		t.Errorf("%s: Last-Modified %s", who, r.header.Get("Last-Modified"))
	}
	if r.header.Get("X-Content-Type-Options") != "nosniff" || len(r.header.Get("X-Request-Id")) != 16 {
		t.Errorf("%s: lacks nosniff or request id: %v", who, r.header)
	}
	got := r.header.Get("Cache-Control")
	if caching == unsaid && r.status >= 400 {
		caching = notStored
	}
	if got != caching {
		t.Errorf("%s: Cache-Control %q, not %q", who, got, caching)
	}
	varies := strings.Contains(strings.Join(r.header.Values("Vary"), ","), "Authorization")
	if want := caching == forAsker; varies != want {
		t.Errorf("%s: Vary %q", who, r.header.Values("Vary"))
	}
	if r.status != http.StatusOK && r.header.Get("ETag") != "" {
		t.Errorf("%s: an error with the ETag %s", who, r.header.Get("ETag"))
	}
}

// checkHead: HEAD says what GET says, without the body.
func (l *lab) checkHead(t *testing.T, who string, a ask, get reply) {
	t.Helper()
	a.method = http.MethodHead
	head := l.do(a)
	if head.status != get.status || len(head.body) != 0 {
		t.Errorf("%s: HEAD gives %d and %d bytes, GET %d", who, head.status, len(head.body), get.status)
	}
	for _, name := range []string{"ETag", "Content-Type", "Cache-Control", "Vary", "WWW-Authenticate", indexHeader} {
		if !slices.Equal(head.header.Values(name), get.header.Values(name)) {
			t.Errorf("%s: HEAD has %s %q, GET %q", who, name, head.header.Values(name), get.header.Values(name))
		}
	}
}

func TestAnonymousReadersGetArtifactsAndNothingElse(t *testing.T) {
	l := newLab(t, anonymous)
	l.demo()
	for path, status := range map[string]int{
		"/public/index/config.json": 200, "/public/index/de/mo/demo-one": 200,
		"/api/v1/crates/demo-one/0.1.0/download": 200, "/api/v1/crates?q=demo": 200, "/api/v1/crates/demo-one/owners": 200,
		"/v1/artifacts/crate/demo-one/0.1.0": 200, "/v1/artifacts/crate/demo-one/0.1.0/bundle": 401,
		"/index/config.json": 401, "/index/de/mo/demo-one": 401, "/v1/members": 401, "/v1/heads/registry": 401,
		"/v1/records/0": 200, "/v1/records/1": 401, "/v1/records/4": 200,
	} {
		if r := l.get(path, ""); r.status != status {
			t.Errorf("%s: nobody gets %d, not %d: %s", path, r.status, status, r.body)
		}
	}
	config := l.get("/public/index/config.json", "").want(t, 200)
	if strings.Contains(string(config.body), `"auth-required":true`) || !strings.Contains(string(l.get("/index/config.json", l.session(l.member, "read")).body), `"auth-required":true`) {
		t.Errorf("config.json for anonymous readers: %s", config.body)
	}
	// A bad token is an error also where none is needed: silence would hide it.
	l.get("/api/v1/crates?q=demo", "a.b.c").want(t, 401)
}

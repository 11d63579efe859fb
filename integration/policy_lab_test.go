package integration

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// ruledLab is a lab whose people hold the roles that grants and rules need.
// Attackers do not use our client, so sessions that name a grant are asked for
// here by hand, and records are made of their bodies.
type ruledLab struct {
	*lab
	grantor *user
	// reviewers are three, for who proposes does not approve.
	reviewers [3]*user
	origin    did.DID
	// made counts grants: two of one second that say the same would be one.
	made atomic.Int64
}

func newRuledLab(t testing.TB) *ruledLab { return ruled(newLab(t)) }

// ruled admits the people to a lab that runs.
func ruled(l *lab) *ruledLab {
	l.t.Helper()
	l.operator.login(l, l.operator.folder)
	r := &ruledLab{lab: l, origin: l.operator.registry().Pin().Origin}
	r.grantor = r.member("core_stakeholder", "grantor")
	for i := range r.reviewers {
		r.reviewers[i] = r.member("core_stakeholder", "reviewer")
	}
	return r
}

// member is a user who is logged in, and a member of that tier in those roles.
func (l *ruledLab) member(tier string, roles ...string) *user {
	l.t.Helper()
	u := newUser(l.t)
	u.login(l.lab, u.folder)
	l.admit(u, tier, roles...)
	return u
}

// admit makes u a member of that tier in those roles, or changes both; no roles: removes u.
func (l *ruledLab) admit(u *user, tier string, roles ...string) {
	l.t.Helper()
	l.operator.submit(client.Draft{
		Subject: record.MemberSubject(u.identity().DID()),
		Body:    &record.Member{Roles: append([]string{}, roles...), Tier: tier, StakeholderAddrs: []string{}},
	})
}

// identity is the user's default one.
func (u *user) identity() client.Identity {
	u.t.Helper()
	id, ok := u.registry().Identity()
	if !ok {
		u.t.Fatal("no identity")
	}
	return id
}

// trySubmit signs a record as u and puts it into the log, or says why not.
func (u *user) trySubmit(d client.Draft) (record.ID, error) {
	u.t.Helper()
	done, err := u.registry().SignAndSubmit(context.Background(), d)
	return done.Record, err
}

func (u *user) submit(d client.Draft) record.ID {
	u.t.Helper()
	id, err := u.trySubmit(d)
	if err != nil {
		u.t.Fatalf("submit %s: %v", d.Subject, err)
	}
	return id
}

// envGrant is a grant for subject that allows nothing, as edit changes it.
func (l *ruledLab) envGrant(issuer, subject *user, edit func(*particle.EnvGrant)) []byte {
	l.t.Helper()
	now := time.Now()
	g := particle.EnvGrant{
		Registry: l.origin, Issuer: issuer.identity().DID(), Subject: subject.identity().DID(),
		NotBefore: particle.At(now.Add(-time.Minute)), Expires: particle.At(now.Add(time.Hour)),
		MaxMemMB: 256, MaxDiskMB: 4096 + l.made.Add(1), AllowedCrates: []string{}, Tier: particle.TierGuest,
		AllowedProtocols: []string{"http"}, AllowedEndpoints: []string{strings.TrimPrefix(l.url, "http://")},
	}
	if edit != nil {
		edit(&g)
	}
	raw, err := g.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return raw
}

func grantDraft(raw []byte) client.Draft {
	id := storage.CIDOf(raw)
	return client.Draft{Subject: record.GrantSubject(id), Digest: id.Digest(), Body: &record.Grant{}, Attachments: [][]byte{raw}}
}

// grant puts a grant by the grantor in force and returns its CID.
func (l *ruledLab) grant(subject *user, edit func(*particle.EnvGrant)) storage.CID {
	l.t.Helper()
	raw := l.envGrant(l.grantor, subject, edit)
	l.grantor.submit(grantDraft(raw))
	return storage.CIDOf(raw)
}

// allowing is an edit of a grant to allow just these.
func allowing(releases ...release) func(*particle.EnvGrant) {
	return func(g *particle.EnvGrant) {
		for _, r := range releases {
			g.AllowedCrates = append(g.AllowedCrates, hexDigest(r.crate))
		}
	}
}

// superseding is edit, in the place of another grant.
func superseding(other storage.CID, edit func(*particle.EnvGrant)) func(*particle.EnvGrant) {
	return func(g *particle.EnvGrant) {
		g.Supersedes = &other
		edit(g)
	}
}

func (l *ruledLab) revoke(grant storage.CID) {
	l.t.Helper()
	l.grantor.submit(client.Draft{Subject: record.GrantSubject(grant), Digest: grant.Digest(), Body: &record.Revoke{Reason: "the test ends it"}})
}

// rule is what a reviewer makes; the zero rule denies, enforced.
func (l *ruledLab) rule(id string, q particle.QuarantineRule) record.ID {
	l.t.Helper()
	q.Effect = cmp.Or(q.Effect, particle.EffectDeny)
	q.Mode = cmp.Or(q.Mode, particle.ModeEnforce)
	q.Reason = cmp.Or(q.Reason, "a rule of the tests")
	for i := range q.Match {
		m := &q.Match[i]
		m.Names, m.Hashes, m.Sources, m.Content = some(m.Names), some(m.Hashes), some(m.Sources), some(m.Content)
		m.Publishers = append([]did.DID{}, m.Publishers...)
	}
	return l.reviewers[0].submit(client.Draft{Subject: ruleSubject(l.t, id), Body: &record.Quarantine{QuarantineRule: q}})
}

func ruleSubject(t testing.TB, id string) record.Subject {
	t.Helper()
	subject, err := record.RuleSubject(id)
	if err != nil {
		t.Fatal(err)
	}
	return subject
}

// some is list, never nil: records say every member.
func some(list []string) []string { return append([]string{}, list...) }

// named is the match of these names or patterns.
func named(names ...string) []particle.RuleMatch { return []particle.RuleMatch{{Names: names}} }

// release ends a rule: one proposes, the two others approve.
func (l *ruledLab) release(id string) {
	l.t.Helper()
	proposal := l.propose(id)
	for _, u := range l.reviewers[1:] {
		u.submit(approval(l.t, id, proposal))
	}
}

func (l *ruledLab) propose(id string) record.ID {
	l.t.Helper()
	return l.reviewers[0].submit(client.Draft{Subject: ruleSubject(l.t, id), Body: &record.Release{Reason: "audited"}})
}

func approval(t testing.TB, id string, proposal record.ID) client.Draft {
	t.Helper()
	return client.Draft{Subject: ruleSubject(t, id), Body: &record.Approve{Record: proposal, Verdict: record.VerdictApprove}}
}

// assertion is the request for a session as any program could make it; grant "" names none.
func (u *user) assertion(scope, grant string, edit func(*policy.Assertion)) url.Values {
	u.t.Helper()
	me, word := u.identity(), make([]byte, 16)
	rand.Read(word)
	now := time.Now()
	a := policy.Assertion{
		Issuer: me.DID(), Subject: me.DID(), Audience: u.registry().Pin().URL + "/v1/session",
		IssuedAt: now.Unix(), Expiry: now.Add(policy.MaxAssertion).Unix(), ID: hex.EncodeToString(word), Scope: scope, Grant: grant,
	}
	if edit != nil {
		edit(&a)
	}
	signed, err := policy.SignAssertion(a, me.Algorithm(), me.Signer())
	if err != nil {
		u.t.Fatal(err)
	}
	return url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {signed}}
}

// mint asks for a session.
func (u *user) mint(l *lab, scope, grant string, edit func(*policy.Assertion)) (status int, answer string) {
	u.t.Helper()
	resp, err := http.PostForm(l.reached()+"/v1/session", u.assertion(scope, grant, edit))
	if err != nil {
		u.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, string(body)
	}
	var session struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &session); err != nil || session.Token == "" {
		u.t.Fatalf("%v: %s", err, body)
	}
	return resp.StatusCode, session.Token
}

// token is a read session that names grant, "" for none.
func (u *user) token(l *lab, grant string) string {
	u.t.Helper()
	status, token := u.mint(l, particle.ScopeRead, grant, nil)
	if status != http.StatusOK {
		u.t.Fatalf("no session under %q: %d %s", grant, status, token)
	}
	return token
}

// reply is what a request got.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (a reply) etag() string { return a.header.Get("ETag") }

// ask sends a request whose path is sent as it stands, with header names and
// values taking turns; what comes compressed is not unpacked.
func (l *lab) ask(method, path, token string, header ...string) reply {
	l.t.Helper()
	req, err := http.NewRequest(method, l.url, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	path, query, _ := strings.Cut(path, "?")
	req.URL.Opaque, req.URL.RawQuery = "//"+req.URL.Host+path, query
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := plainTransport.RoundTrip(req)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, body}
}

// plainTransport follows no redirect and unpacks nothing.
var plainTransport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}

// want fails the test unless a request is answered by status, saying words.
func (l *lab) want(status int, path, token string, words ...string) reply {
	l.t.Helper()
	a := l.ask(http.MethodGet, path, token)
	if a.status != status {
		l.t.Errorf("%s: status %d, want %d: %.300q", path, a.status, status, a.body)
		return a
	}
	wantSays(l.t, string(a.body), words...)
	return a
}

func downloadPath(name, version string) string {
	return "/api/v1/crates/" + name + "/" + version + "/download"
}

// indexPath is where cargo looks for a name of three letters or more.
func indexPath(name string) string {
	name = strings.ToLower(name)
	if len(name) == 3 {
		return "/index/3/" + name[:1] + "/" + name
	}
	return "/index/" + name[:2] + "/" + name[2:4] + "/" + name
}

// view is an index file as token gets it: version -> whether it may be picked.
func (l *lab) view(name, token string) map[string]bool {
	l.t.Helper()
	a := l.want(http.StatusOK, indexPath(name), token)
	picked := map[string]bool{}
	for line := range strings.Lines(string(a.body)) {
		var entry struct {
			Vers   string `json:"vers"`
			Yanked bool   `json:"yanked"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			l.t.Fatalf("%v: %s", err, line)
		}
		picked[entry.Vers] = !entry.Yanked
	}
	return picked
}

// crateFiles are what a crate holds, by name.
type crateFiles map[string]string

// packed is a crate of these files; Cargo.toml is made where it is not given.
// deps is the manifest from its dependencies on.
func packed(name, version, deps string, content crateFiles) release {
	all := crateFiles{
		"Cargo.toml": fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\ndescription = \"test crate %s\"\nlicense = \"MIT\"\n%s", name, version, name, deps),
		"src/lib.rs": "pub fn v() -> &'static str { env!(\"CARGO_PKG_VERSION\") }\n",
	}
	for file, text := range content {
		all[file] = text
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	names := make([]string, 0, len(all))
	for file := range all {
		names = append(names, file)
	}
	slices.Sort(names)
	for _, file := range names {
		header := &tar.Header{Name: name + "-" + version + "/" + file, Mode: 0o644, Size: int64(len(all[file])), Format: tar.FormatGNU}
		if err := errors.Join(w.WriteHeader(header), writeAll(w, []byte(all[file]))); err != nil {
			panic(err) // nothing but memory is involved
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		panic(err)
	}
	return release{name: name, version: version, crate: out.Bytes(), cid: storage.CIDOf(out.Bytes())}
}

// needs is the part of a manifest that says what a published crate depends on:
// table is what stands between the braces beside the registry.
func (l *lab) needs(name, table string) string {
	return fmt.Sprintf("[dependencies.%s]\n%s\nregistry-index = \"sparse+%s/index/\"\n", name, table, l.operator.registry().Pin().URL)
}

// uploads publishes crates as the operator, without cargo: it would resolve what
// they need first, and refuse to package what cannot be built.
func (l *lab) uploads(releases ...release) {
	l.t.Helper()
	for _, r := range releases {
		if status, text, err := l.operator.signUpload(r.name, r.version, r.crate).send(l); err != nil || status != http.StatusOK {
			l.t.Fatalf("publish %s %s: %d %s %v", r.name, r.version, status, text, err)
		}
	}
}

// app is a program that depends on crates of the lab, as the lines of its
// [dependencies] say, and prints main's words.
func (u *user) app(l *lab, name, dependencies, main string) string {
	u.t.Helper()
	folder := filepath.Join(u.folder, name)
	writeFiles(u.t, folder, map[string]string{
		"Cargo.toml":  fmt.Sprintf("[package]\nname = %q\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n%s\n[workspace]\n", name, dependencies),
		"src/main.rs": "fn main() { " + main + " }\n",
	})
	u.login(l, folder)
	return folder
}

// locks writes the lock of an app that was made when these could be had, each
// needed by the app itself.
func (u *user) locks(l *lab, folder string, releases ...release) {
	u.t.Helper()
	name := filepath.Base(folder)
	lock := "version = 4\n\n"
	needed, packages := "", ""
	for _, r := range releases {
		needed += fmt.Sprintf(" %q,\n", r.name)
		packages += fmt.Sprintf("[[package]]\nname = %q\nversion = %q\nsource = \"sparse+%s/index/\"\nchecksum = %q\n\n", r.name, r.version, u.registry().Pin().URL, hexDigest(r.crate))
	}
	own := fmt.Sprintf("[[package]]\nname = %q\nversion = \"0.1.0\"\ndependencies = [\n%s]\n\n", name, needed)
	if len(releases) > 0 && name < releases[0].name {
		lock += own + packages
	} else {
		lock += packages + own
	}
	writeFiles(u.t, folder, map[string]string{"Cargo.lock": strings.TrimSuffix(lock, "\n")})
}

// runs builds and runs the app in folder from nothing but what CARGO_HOME holds.
func (u *user) runs(folder string, flags ...string) result {
	u.t.Helper()
	if err := os.RemoveAll(filepath.Join(folder, "target")); err != nil {
		u.t.Fatal(err)
	}
	return u.cargo(folder, append([]string{"run", "-q"}, flags...)...)
}

// prints fails the test unless the app in folder is built and says words.
func (u *user) prints(words, folder string, flags ...string) {
	u.t.Helper()
	if got := strings.TrimSpace(must(u.t, u.runs(folder, flags...)).stdout); got != words {
		u.t.Errorf("%s printed %q, want %q", folder, got, words)
	}
}

// forgets removes what CARGO_HOME holds of crates, packed and unpacked; index
// files stay where they are.
func (u *user) forgets() {
	u.t.Helper()
	for _, part := range []string{"cache", "src"} {
		if err := os.RemoveAll(filepath.Join(u.cargoHome, "registry", part)); err != nil {
			u.t.Fatal(err)
		}
	}
}

// eventually waits for a moment that the clock alone brings.
func eventually(t testing.TB, within time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

// blobFile is where the data folder keeps a blob.
func (l *lab) blobFile(id storage.CID) string {
	l.t.Helper()
	found := ""
	err := filepath.WalkDir(l.data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == id.String() {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		l.t.Fatalf("the blob %s is not in %s: %v", id, l.data, err)
	}
	return found
}

// dids are the users' DIDs.
func dids(users ...*user) []did.DID {
	var all []did.DID
	for _, u := range users {
		all = append(all, u.identity().DID())
	}
	return all
}

// cookie is what a browser sends of the registry with the origin of l's pin, to
// which its user gave token.
func (l *lab) cookie(token string) string {
	sum := sha256.Sum256([]byte(l.operator.registry().Pin().Origin))
	return "aln-session-" + hex.EncodeToString(sum[:4]) + "=" + token
}

// parseJSON reads what a command printed with --json.
func parseJSON(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
}

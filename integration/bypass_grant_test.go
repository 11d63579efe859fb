package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// A session that was minted before a change of what stands behind it is judged by
// the change: there is nothing to wait for, and nothing to use up.
func TestAChangeBindsTheVeryNextRequestOfAnOldSession(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	one, two := packed("able", "1.0.0", "", nil), packed("able", "1.1.0", "", nil)
	l.uploads(one, two)
	guest := l.member(particle.TierGuest, "visitor")
	tokens := map[string]string{"no grant": guest.token(l.lab, "")}
	// check: what of one and two each session gets; rule names the denial.
	check := func(step string, want map[string][2]bool, rule string) {
		t.Helper()
		for name, token := range tokens {
			for i, r := range []release{one, two} {
				got := l.ask(http.MethodGet, downloadPath(r.name, r.version), token)
				allowed := got.status == http.StatusOK && bytes.Equal(got.body, r.crate)
				if allowed != want[name][i] || !allowed && got.status != http.StatusForbidden {
					t.Errorf("%s: %s under %s: status %d, want allowed %t: %.200s", step, r.version, name, got.status, want[name][i], got.body)
				}
				if !allowed && !strings.Contains(string(got.body), rule) {
					t.Errorf("%s: %s under %s is not told of %s: %.300s", step, r.version, name, rule, got.body)
				}
			}
		}
	}
	none, both := [2]bool{}, [2]bool{true, true}
	check("without a grant", nil, "tier-default")

	first := l.grant(guest, allowing(one))
	tokens["the first"] = guest.token(l.lab, first.String())
	check("a grant", map[string][2]bool{"no grant": {true, false}, "the first": {true, false}}, "allowed-crates")

	second := l.grant(guest, superseding(first, allowing(one, two)))
	tokens["the second"] = guest.token(l.lab, second.String())
	check("superseded by a wider one", map[string][2]bool{"no grant": both, "the first": both, "the second": both}, "")

	third := l.grant(guest, superseding(second, allowing(two)))
	narrow := [2]bool{false, true}
	check("superseded by a narrower one", map[string][2]bool{"no grant": narrow, "the first": narrow, "the second": narrow}, "allowed-crates")

	l.admit(l.grantor, particle.TierCoreStakeholder, "publisher")
	check("the issuer lost the role", map[string][2]bool{"no grant": none, "the first": none, "the second": none}, "by rule")
	l.admit(l.grantor, particle.TierCoreStakeholder, "grantor")
	check("the issuer has it again", map[string][2]bool{"no grant": narrow, "the first": narrow, "the second": narrow}, "allowed-crates")

	l.revoke(third)
	check("revoked", nil, "by rule")
	if status, text := guest.mint(l.lab, particle.ScopeRead, third.String(), nil); status != http.StatusForbidden {
		t.Errorf("a session under a revoked grant: %d %s", status, text)
	}

	own := l.grant(guest, allowing(one, two))
	delete(tokens, "the second")
	check("a new chain", map[string][2]bool{"no grant": both, "the first": none}, "grant")
	other := l.grant(guest, allowing(one))
	tokens["the other"] = guest.token(l.lab, other.String())
	check("two and none named", map[string][2]bool{"no grant": none, "the first": none, "the other": {true, false}}, "grant")
	l.revoke(other)
	delete(tokens, "the other")
	check("one again", map[string][2]bool{"no grant": both, "the first": none}, "grant")
	l.revoke(own)
	delete(tokens, "the first")

	l.admit(guest, particle.TierCoreStakeholder, "visitor")
	check("another tier", map[string][2]bool{"no grant": both}, "")
	l.admit(guest, particle.TierCollaborator, "visitor")
	check("the tier before", nil, "tier-default")
	l.admit(guest, particle.TierCoreStakeholder)
	if got := l.ask(http.MethodGet, downloadPath("able", "1.0.0"), tokens["no grant"]); got.status != http.StatusUnauthorized {
		t.Errorf("a removed member: status %d: %s", got.status, got.body)
	}
}

// Nobody makes a grant who may not, and a session names only a grant of its own
// holder that is in force.
func TestGrantsThatNobodyMayMakeOrName(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	able := packed("able", "1.0.0", "", nil)
	l.uploads(able)
	guest, other := l.member(particle.TierGuest, "visitor"), l.member(particle.TierCollaborator, "visitor")
	theirs := l.grant(other, allowing(able))
	all := func(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} }
	with := func(edits ...func(*particle.EnvGrant)) func(*particle.EnvGrant) {
		return func(g *particle.EnvGrant) {
			for _, edit := range edits {
				edit(g)
			}
		}
	}
	for name, c := range map[string]struct {
		issuer, subject, signer *user
		edit                    func(*particle.EnvGrant)
	}{
		"to oneself":               {l.grantor, l.grantor, l.grantor, all},
		"by its own subject":       {guest, guest, guest, all},
		"by a member without role": {other, guest, other, all},
		"by a reviewer":            {l.reviewers[0], guest, l.reviewers[0], all},
		"in another's name":        {l.grantor, guest, l.reviewers[0], all},
		"signed for another":       {l.operator, guest, l.grantor, all},
		"to a stranger":            {l.grantor, strangerOf(l), l.grantor, all},
		"above the tier":           {l.grantor, guest, l.grantor, with(all, func(g *particle.EnvGrant) { g.Tier = particle.TierCollaborator })},
		"of another registry":      {l.grantor, guest, l.grantor, with(all, func(g *particle.EnvGrant) { g.Registry = guest.identity().DID() })},
		"that is over": {l.grantor, guest, l.grantor, with(all, func(g *particle.EnvGrant) {
			g.NotBefore, g.Expires = particle.At(time.Now().Add(-2*time.Hour)), particle.At(time.Now().Add(-time.Hour))
		})},
		"in another's place": {l.grantor, guest, l.grantor, superseding(theirs, all)},
		"in nothing's place": {l.grantor, guest, l.grantor, superseding(storage.CIDOf([]byte("nothing")), all)},
		"of an unknown list": {l.grantor, guest, l.grantor, func(g *particle.EnvGrant) {
			id := storage.CIDOf([]byte("no list"))
			g.AllowedCrates, g.AllowedCratesList = nil, &id
		}},
		"of an unknown pool":     {l.grantor, guest, l.grantor, with(all, func(g *particle.EnvGrant) { id := storage.CIDOf([]byte("no pool")); g.MemoryPool = &id })},
		"of a pool that is none": {l.grantor, guest, l.grantor, with(all, func(g *particle.EnvGrant) { g.MemoryPool = &able.cid })},
		"of an unknown domain":   {l.grantor, guest, l.grantor, with(all, func(g *particle.EnvGrant) { id := storage.CIDOf([]byte("no domain")); g.ExecutionDomain = &id })},
	} {
		size := l.logSize()
		if id, err := c.signer.trySubmit(grantDraft(l.envGrant(c.issuer, c.subject, c.edit))); err == nil {
			t.Errorf("a grant %s was entered as %s", name, id)
		}
		if l.logSize() != size {
			t.Errorf("a grant %s is in the log", name)
		}
	}
	if _, err := guest.trySubmit(client.Draft{Subject: record.GrantSubject(theirs), Digest: theirs.Digest(), Body: &record.Revoke{}}); err == nil {
		t.Error("a guest revoked a grant")
	}
	unentered := l.envGrant(l.grantor, guest, all)
	early := l.grant(guest, with(all, func(g *particle.EnvGrant) {
		g.NotBefore, g.Expires = particle.At(time.Now().Add(time.Hour)), particle.At(time.Now().Add(2*time.Hour))
	}))
	for name, cid := range map[string]string{
		"another's": theirs.String(), "one that is not entered": storage.CIDOf(unentered).String(), "an artifact": able.cid.String(),
		"nonsense": "*", "a path": "../" + theirs.String(), "in capitals": strings.ToUpper(theirs.String()), "one that begins later": early.String(),
	} {
		if status, text := guest.mint(l.lab, particle.ScopeRead, cid, nil); status < 400 || status >= 500 {
			t.Errorf("a session under %s: %d %s", name, status, text)
		}
	}
	if status, text := guest.mint(l.lab, particle.ScopeRead, theirs.String(), nil); status != http.StatusForbidden || strings.Contains(text, string(other.identity().DID())) {
		t.Errorf("a session under another's grant: %d %s", status, text)
	}
	// Before not_before the host has no grant in force: its tier decides.
	l.want(http.StatusForbidden, downloadPath("able", "1.0.0"), guest.token(l.lab, ""), "tier-default")
	for name, edit := range map[string]func(*policy.Assertion){
		"a clock that is slow": func(a *policy.Assertion) { a.IssuedAt -= 300; a.Expiry -= 300 },
		"a clock that is fast": func(a *policy.Assertion) { a.IssuedAt += 300; a.Expiry += 300 },
		"a life too long":      func(a *policy.Assertion) { a.Lifetime = 1801 },
		"another's name":       func(a *policy.Assertion) { a.Subject = other.identity().DID() },
		"audit by who is none": func(a *policy.Assertion) { a.Scope = particle.ScopeAudit },
	} {
		asker := other
		if name == "another's name" {
			asker = guest
		}
		if status, text := asker.mint(l.lab, particle.ScopeRead, theirs.String(), edit); status == http.StatusOK {
			t.Errorf("a session by %s: %d %s", name, status, text)
		}
	}
}

// strangerOf has an identity, and is no member.
func strangerOf(l *ruledLab) *user {
	u := newUser(l.t)
	u.login(l.lab, u.folder)
	return u
}

// What an offshore grant does not list is for its host as if it had never been:
// every route answers about it as about a name that there never was.
func TestAnOffshoreHostCannotTellHiddenFromAbsent(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	const hidden, absent = "hidden-crate", "hidder-crate" // in one folder of the index
	shown, later, secret := packed("shown", "1.0.0", "", nil), packed("shown", "2.0.0", "", nil), packed(hidden, "1.0.0", "", nil)
	l.uploads(shown, later, secret)
	shard := l.shard(hidden, []byte(`{"hidden":true}`))
	guest := l.member(particle.TierGuest, "visitor")
	l.grant(guest, func(g *particle.EnvGrant) { allowing(shown)(g); g.OffshoreFlag = true })
	token := guest.token(l.lab, "")

	if picked := l.view("shown", token); len(picked) != 1 || !picked["1.0.0"] {
		t.Errorf("the view under the grant: %v, want 1.0.0 alone", picked)
	}
	l.want(http.StatusOK, downloadPath("shown", "1.0.0"), token)
	for _, template := range oraclePaths {
		a, b := l.told(template, hidden, token), l.told(template, absent, token)
		if a != b {
			t.Errorf("%s tells them apart:\n%.600s\nand\n%.600s", template, a, b)
		}
		if got := l.ask(http.MethodGet, strings.ReplaceAll(template, "NAME", "x"), token); strings.Contains(string(got.body), "hidden") {
			t.Errorf("%s names it: %.300s", template, got.body)
		}
	}
	for _, cid := range []storage.CID{secret.cid, shard, later.cid} {
		for _, path := range []string{"/ipfs/CID?format=raw", "/v1/records/CID", "/record/CID", "/v1/records/0/attachments/CID"} {
			a, b := l.told(strings.ReplaceAll(path, "CID", "NAME"), cid.String(), token), l.told(strings.ReplaceAll(path, "CID", "NAME"), storage.CIDOf([]byte("nothing")).String(), token)
			if a != b {
				t.Errorf("%s tells %s apart:\n%s\nand\n%s", path, cid, a, b)
			}
		}
	}
	rec := l.recordOf(secret)
	if a, b := l.told("/v1/records/NAME", rec, token), l.told("/v1/records/NAME", strings.Repeat("0", 64), token); a != b {
		t.Errorf("the record of what is hidden:\n%s\nand of nothing:\n%s", a, b)
	}
	// Neither a rule that is tried nor a decision that is asked for is an oracle.
	for _, post := range []struct{ path, body string }{
		{"/v1/rules/test", `{"rule":{"effect":"deny","mode":"enforce","match":[{"names":["NAME"],"versions":"","hashes":[],"publishers":[],"sources":[],"content":[]}],"reason":"x","evidence":null,"expires":null,"grace":null}}`},
		{"/v1/decisions", `{"grant":"","artifacts":[{"name":"NAME","version":"1.0.0","sha256":"` + strings.Repeat("0", 64) + `","source":"hosted"}]}`},
	} {
		a, b := l.posted(post.path, post.body, hidden, token), l.posted(post.path, post.body, absent, token)
		if a != b || !strings.Contains(a, "NAME") && !strings.Contains(a, "total") && !strings.HasPrefix(a, "403") {
			t.Errorf("%s tells them apart:\n%s\nand\n%s", post.path, a, b)
		}
	}
	if list := l.want(http.StatusOK, "/v1/artifacts", token); bytes.Contains(list.body, []byte("hidden")) {
		t.Errorf("listed: %s", list.body)
	}
	core := l.member(particle.TierCoreStakeholder, "visitor").token(l.lab, "")
	if a, b := l.told("/v1/artifacts/crate/NAME", hidden, core), l.told("/v1/artifacts/crate/NAME", absent, core); a == b {
		t.Error("a host without such a grant does not see it either")
	}
}

// oraclePaths are all routes by which a name can be asked about.
var oraclePaths = []string{
	"/index/NA/ME/NAME", "/index/hi/dd/NAME", "/public/index/hi/dd/NAME",
	"/api/v1/crates?q=NAME", "/api/v1/crates?q=NAME&per_page=100", "/api/v1/crates/NAME/1.0.0/download", "/api/v1/crates/NAME/owners",
	"/v1/heads/crate/NAME", "/v1/heads/aln-shard/NAME",
	"/v1/artifacts?q=NAME", "/v1/artifacts/crate?q=NAME", "/v1/artifacts/crate/NAME", "/v1/artifacts/crate/NAME/1.0.0",
	"/v1/artifacts/crate/NAME/1.0.0/content", "/v1/artifacts/crate/NAME/1.0.0/bundle",
	"/v1/artifacts/aln-shard/NAME", "/v1/artifacts/aln-shard/NAME/1.0.0", "/v1/artifacts/aln-shard/NAME/1.0.0/content",
	"/v1/decisions/crate/NAME", "/v1/decisions/crate/NAME/1.0.0", "/v1/decisions/aln-shard/NAME",
	"/search?q=NAME", "/artifacts/crate/NAME", "/artifacts/crate/NAME/1.0.0", "/artifacts/crate/NAME/1.0.0/download", "/artifacts/aln-shard/NAME",
	"/ipfs/NAME", "/mirror/NAME/index/config.json", "/crates-io/index/hi/dd/NAME",
}

// told is all that an answer about name tells, with the name taken out.
func (l *lab) told(template, name, token string) string {
	l.t.Helper()
	return l.ask(http.MethodGet, strings.ReplaceAll(template, "NAME", name), token, "Cookie", l.cookie(token)).told(name)
}

func (a reply) told(name string) string {
	header := a.header.Clone()
	request := header.Get("X-Request-Id")
	for _, varies := range []string{"Date", "X-Request-Id", "ETag"} { // the ETag is the body's hash
		header.Del(varies)
	}
	var text strings.Builder
	fmt.Fprintln(&text, a.status)
	for _, key := range slices.Sorted(maps.Keys(header)) {
		fmt.Fprintln(&text, key, header[key])
	}
	text.Write(a.body)
	told := strings.NewReplacer(name, "NAME", strings.ReplaceAll(name, "-", "_"), "NAME").Replace(text.String())
	if request != "" {
		told = strings.ReplaceAll(told, request, "REQUEST")
	}
	return told
}

func (l *lab) posted(path, body, name, token string) string {
	l.t.Helper()
	req, err := http.NewRequest(http.MethodPost, l.url+path, strings.NewReader(strings.ReplaceAll(body, "NAME", name)))
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		l.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, text.Bytes()}.told(name)
}

// shard publishes an aln-shard as the operator and returns its CID.
func (l *ruledLab) shard(name string, content []byte) storage.CID {
	l.t.Helper()
	u := l.operator
	writeFiles(l.t, u.folder, map[string]string{name + ".json": string(content)})
	must(l.t, u.aln(u.folder, "publish", "--kind", "aln-shard", "--name", name, "--version", "1.0.0", name+".json"))
	return storage.CIDOf(content)
}

// recordOf is the identity of the record that published r.
func (l *lab) recordOf(r release) string {
	l.t.Helper()
	a := l.want(http.StatusOK, "/v1/artifacts/crate/"+r.name+"/"+r.version, l.operator.token(l, ""))
	var told struct {
		Record string `json:"record"`
	}
	if err := json.Unmarshal(a.body, &told); err != nil || told.Record == "" {
		l.t.Fatalf("%v: %s", err, a.body)
	}
	return told.Record
}

// A conditional request is decided before its condition is looked at, and a
// validator of one view says nothing of another's.
func TestConditionsAreLookedAtAfterTheDecision(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	one, two, secret := packed("able", "1.0.0", "", nil), packed("able", "1.1.0", "", nil), packed("secret", "1.0.0", "", nil)
	l.uploads(one, two, secret)
	guest := l.member(particle.TierGuest, "visitor")
	grant := l.grant(guest, func(g *particle.EnvGrant) { allowing(one)(g); g.OffshoreFlag = true })
	wide, narrow := l.operator.token(l.lab, ""), guest.token(l.lab, grant.String())
	path := indexPath("able")
	all, some := l.want(http.StatusOK, path, wide), l.want(http.StatusOK, path, narrow)
	if all.etag() == "" || all.etag() == some.etag() || bytes.Equal(all.body, some.body) {
		t.Errorf("two views, of ETags %s and %s", all.etag(), some.etag())
	}
	for _, a := range []reply{all, some} {
		if !strings.Contains(a.header.Get("Cache-Control"), "private") || !strings.Contains(a.header.Get("Vary"), "Authorization") || a.header.Get("Last-Modified") != "" {
			t.Errorf("a view's headers: %v", a.header)
		}
	}
	hidden := l.want(http.StatusOK, indexPath("secret"), wide)
	file := l.want(http.StatusOK, downloadPath("able", "1.1.0"), wide)
	for _, c := range []struct {
		path, token, condition string
		want                   int
		body                   []byte
	}{
		{path, narrow, all.etag(), http.StatusOK, some.body},
		{path, wide, some.etag(), http.StatusOK, all.body},
		{path, narrow, some.etag(), http.StatusNotModified, nil},
		{path, wide, all.etag(), http.StatusNotModified, nil},
		{path, narrow, all.etag() + ", " + some.etag(), http.StatusNotModified, nil},
		{indexPath("secret"), narrow, hidden.etag(), http.StatusNotFound, nil},
		{indexPath("secret"), narrow, "*", http.StatusNotFound, nil},
		{indexPath("absent"), narrow, "*", http.StatusNotFound, nil},
		{downloadPath("able", "1.1.0"), narrow, file.etag(), http.StatusNotFound, nil},
		{downloadPath("able", "1.1.0"), narrow, "*", http.StatusNotFound, nil},
		{path, "", all.etag(), http.StatusUnauthorized, nil},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := l.ask(method, c.path, c.token, "If-None-Match", c.condition)
			if a.status != c.want || method == http.MethodGet && c.body != nil && !bytes.Equal(a.body, c.body) {
				t.Errorf("%s %s if none matches %s: status %d, want %d: %.200s", method, c.path, c.condition, a.status, c.want, a.body)
			}
			if a.status >= 400 && a.etag() != "" {
				t.Errorf("%s %s is refused with the ETag %s", method, c.path, a.etag())
			}
		}
	}
	l.grant(guest, superseding(grant, func(g *particle.EnvGrant) { allowing(two)(g); g.OffshoreFlag = true }))
	if a := l.ask(http.MethodGet, path, narrow, "If-None-Match", some.etag()); a.status != http.StatusOK || bytes.Equal(a.body, some.body) {
		t.Errorf("the view of the grant before matches after it was superseded: status %d: %s", a.status, a.body)
	}
}

// What cannot be had or read allows nothing, and is looked for again.
func TestAListThatCannotBeHadAllowsNothing(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	one := packed("able", "1.0.0", "", nil)
	l.uploads(one)
	list := l.shard("listed", particle.MarshalList([][32]byte{one.cid.Digest()}))
	guest := l.member(particle.TierGuest, "visitor")
	l.grant(guest, func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &list })
	token := guest.token(l.lab, "")
	l.want(http.StatusOK, downloadPath("able", "1.0.0"), token)

	l.stop()
	file := l.blobFile(list)
	for _, spoil := range []func() error{
		func() error { return os.Rename(file, file+".away") },
		func() error { return os.WriteFile(file, []byte("not the list"), 0o600) },
		func() error { return os.WriteFile(file, nil, 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		l.start()
		l.want(http.StatusForbidden, downloadPath("able", "1.0.0"), token, "able 1.0.0 is denied by rule ", "ask a grantor")
		if picked := l.view("able", token); picked["1.0.0"] {
			t.Error("the view lists what an unreadable list cannot allow")
		}
		l.stop()
	}
	l.start()
	l.want(http.StatusForbidden, downloadPath("able", "1.0.0"), token)
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the list is back", func() bool {
		return l.ask(http.MethodGet, downloadPath("able", "1.0.0"), token).status == http.StatusOK && l.view("able", token)["1.0.0"]
	})
}

// A rule is in force until its last second is over, and not a second longer, by
// the registry's clock and nobody else's.
func TestARuleEndsAtItsSecond(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	one := packed("able", "1.0.0", "", nil)
	l.uploads(one)
	token := l.operator.token(l.lab, "")
	if !l.view("able", token)["1.0.0"] { // so that a view is held
		t.Fatal("denied from the beginning")
	}
	expires := particle.At(time.Now().Add(4 * time.Second))
	l.rule("short", particle.QuarantineRule{Match: named("able"), Expires: &expires})
	denied, allowed := 0, 0
	eventually(t, 30*time.Second, "the rule is over", func() bool {
		before := time.Now()
		got := l.ask(http.MethodGet, downloadPath("able", "1.0.0"), token, "Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		picked := l.view("able", token)["1.0.0"]
		switch after := time.Now(); {
		case after.Before(expires.Time):
			denied++
			if got.status != http.StatusForbidden || picked {
				t.Errorf("%s before its end: status %d, to be picked %t", expires.Sub(after), got.status, picked)
			}
		case !before.Before(expires.Time):
			allowed++
			if got.status != http.StatusOK || !picked {
				t.Errorf("%s after its end: status %d, to be picked %t", before.Sub(expires.Time), got.status, picked)
			}
		}
		return allowed > 3
	})
	if denied == 0 {
		t.Error("the rule was never seen in force")
	}
}

package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// What an asker may see of an artifact, as every route has to say it.
const (
	seesAll     = 'A'
	seesYanked  = 'Y' // allowed, and yanked by its owner
	seesGraced  = 'G' // allowed to whom has it locked
	seesDenied  = 'D' // known and denied
	seesNothing = 'X'
)

// The artifacts of the table, version 1.0.0 each, in the order of its columns.
var judgedNames = []string{"good", "other", "blake3-thing", "hasher", "graced", "young", "pulled", "notes"}

// asked is a row of the table: somebody, and what they see of each artifact.
type asked struct {
	name  string
	token func(l *lab) string
	sees  string
	// gate is the status of all reading, 0 for none; rule names what bars it, or
	// denies what is young and no rule is about.
	gate int
	rule policy.Rule
}

// courtroom is a lab with artifacts, grants and rules.
type courtroom struct {
	*lab
	hosts   map[string]did.PrivateKey
	grants  map[string]storage.CID
	records map[string]record.ID
	etags   map[string]string
}

// blake3Source has the one thing that the implementations of BLAKE3 have in common.
const blake3Source = "const MSG_PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];\n"

func newCourtroom(t *testing.T) *courtroom {
	c := &courtroom{lab: newLab(t, anonymous), hosts: map[string]did.PrivateKey{}, grants: map[string]storage.CID{}, records: map[string]record.ID{}, etags: map[string]string{}}
	hashes := map[string]string{}
	for _, name := range judgedNames {
		content := []byte("notes")
		kind := record.KindALNShard
		if name != "notes" {
			source := "pub fn it() {}\n"
			if name == "hasher" {
				source = blake3Source
			}
			kind, content = record.KindCrate, crateOf(name, source)
			c.publishBytes(name, content)
		} else {
			c.put(c.owner, kind, name, "1.0.0", content).want(t, 200)
		}
		hashes[name] = storage.CIDOf(content).Hex()
		c.etags[name] = `"` + hashes[name] + `"`
		v := must(c.registry.Version(t.Context(), auditing, kind, name, "1.0.0"))
		c.records[name] = v.Record
	}
	c.yank(c.owner, "pulled", "1.0.0")
	c.quarantine("graced", func(q *particle.QuarantineRule) {
		q.Match[0].Names = []string{"graced"}
		end := particle.At(time.Now().Add(30 * 24 * time.Hour))
		q.Grace = &end
	})
	c.quarantine("old-enough", func(q *particle.QuarantineRule) {
		q.Effect = particle.EffectWaiveMinAge
		q.Match[0].Names = []string{"good", "other", "blake3-thing", "hasher", "graced", "pulled", "notes", "two"}
	})
	settings := c.registry.Settings().Registry
	settings.MinAgeDays = 1
	c.submit(c.admin, record.RegistrySubject(), &settings)
	grantor := c.host("grantor", particle.TierCoreStakeholder, "grantor")
	list := func(names ...string) func(*particle.EnvGrant) {
		return func(g *particle.EnvGrant) {
			for _, name := range names {
				g.AllowedCrates = append(g.AllowedCrates, hashes[name])
			}
		}
	}
	most := list("good", "blake3-thing", "hasher", "graced", "young", "pulled")
	give := func(name string, by did.PrivateKey, change func(*particle.EnvGrant)) storage.CID {
		host, ok := c.hosts[name]
		if !ok {
			host = c.host(name, particle.TierGuest, "auditor")
		}
		c.grants[name] = c.grantBy(by, host, change)
		return c.grants[name]
	}
	c.host("core", particle.TierCoreStakeholder, "publisher", "auditor")
	c.host("none", particle.TierGuest, "publisher")
	give("granted", grantor, most)
	give("offshore", c.lab.admin, func(g *particle.EnvGrant) { list("good", "blake3-thing")(g); g.OffshoreFlag = true })
	give("far", c.lab.admin, func(g *particle.EnvGrant) {
		g.AllowedCrates, g.OffshoreFlag = []string{particle.AllCrates}, true
	})
	first := give("superseded", c.lab.admin, most)
	c.grantBy(c.lab.admin, c.hosts["superseded"], func(g *particle.EnvGrant) { list("other")(g); g.Supersedes = &first })
	c.submit(c.lab.admin, record.GrantSubject(give("revoked", c.lab.admin, most)), &record.Revoke{Reason: "over"})
	give("brief", c.lab.admin, func(g *particle.EnvGrant) { most(g); g.Expires = particle.At(time.Now().Add(time.Hour)) })
	fallen := c.host("fallen", particle.TierCoreStakeholder, "grantor")
	give("orphan", fallen, most)
	c.admitTo(particle.TierCoreStakeholder, fallen, "auditor")
	give("two", c.lab.admin, most)
	c.grantBy(c.lab.admin, c.hosts["two"], list("other"))
	return c
}

var auditing = policy.Asker{DID: "did:web:auditor.example", Scopes: []string{particle.ScopeAudit}}

func (c *courtroom) host(name, tier string, roles ...string) did.PrivateKey {
	c.t.Helper()
	key := must(did.GenerateEd25519(zeros{byte(len(c.hosts) + 1)}))
	c.hosts[name] = key
	c.admitTo(tier, key, roles...)
	return key
}

// crateOf is a .crate with one source file.
func crateOf(name, source string) []byte {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	for _, file := range [][2]string{
		{"Cargo.toml", "[package]\nname = \"" + name + "\"\nversion = \"1.0.0\"\nedition = \"2021\"\ndescription = \"about " + name + "\"\n"}, {"src/lib.rs", source},
	} {
		must(0, w.WriteHeader(&tar.Header{Name: name + "-1.0.0/" + file[0], Mode: 0o644, Size: int64(len(file[1]))}))
		must(w.Write([]byte(file[1])))
	}
	must(0, w.Close())
	must(0, z.Close())
	return packed.Bytes()
}

func (c *courtroom) publishBytes(name string, crate []byte) {
	c.t.Helper()
	rec := c.sign(c.owner, versionSubject(name, "1.0.0"), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
	asker := policy.Asker{DID: didOf(c.owner), Scopes: []string{"publish"}}
	if _, err := c.registry.PublishCrate(context.Background(), asker, rec.Envelope(), bytes.NewReader(frame(name, "1.0.0", crate))); err != nil {
		c.t.Fatal(err)
	}
}

// as is the session of a host, with the grant of that name, "" for none.
func (c *courtroom) as(host, scope, grant string) func(*lab) string {
	return func(l *lab) string {
		return l.forge(c.hosts[host], scope, func(t *particle.SessionToken) {
			if t.Roles = []string{"auditor"}; grant != "" {
				t.Grant = c.grants[grant].String()
			}
		})
	}
}

func nobodys(*lab) string { return "" }

// All routes say the same of every artifact to everybody.
func TestAllRoutesAgree(t *testing.T) {
	c := newCourtroom(t)
	now := []asked{
		{"a core stakeholder", c.as("core", "read", ""), "AADDGDYA", 0, ""},
		{"nobody", nobodys, "AADDGDYA", 0, ""},
		{"an auditor", c.as("core", "audit", ""), "AADDGAYA", 0, ""},
		{"an auditor with a grant", c.as("offshore", "audit read", "offshore"), "AADDGAYA", 0, ""},
		{"granted", c.as("granted", "read", ""), "ADDDGDYA", 0, ""},
		{"granted, by name", c.as("granted", "build", "granted"), "ADDDGDYA", 0, ""},
		{"offshore", c.as("offshore", "read", ""), "AXDXXXXX", 0, ""},
		{"offshore with all crates", c.as("far", "read", ""), "AADDGDYX", 0, ""},
		{"superseded", c.as("superseded", "read", "superseded"), "DADDDDDA", 0, policy.RuleAllowed},
		{"no grant", c.as("none", "read", ""), "", 403, policy.RuleTier},
		{"another's grant", c.as("none", "read", "granted"), "", 403, policy.RuleGrant},
		{"another's grant, of a core stakeholder", c.as("core", "read", "granted"), "", 403, policy.RuleGrant},
		{"revoked", c.as("revoked", "read", "revoked"), "", 403, policy.RuleGrant},
		{"revoked, not named", c.as("revoked", "read", ""), "", 403, policy.RuleTier},
		{"two grants and no name", c.as("two", "read", ""), "", 403, policy.RuleGrant},
		{"two grants, one named", c.as("two", "read", "two"), "ADDDGDYA", 0, ""},
		{"the issuer lost the role", c.as("orphan", "read", "orphan"), "", 403, policy.RuleGrant},
		{"the issuer lost the role, not named", c.as("orphan", "read", ""), "", 403, policy.RuleTier},
		{"brief", c.as("brief", "read", "brief"), "ADDDGDYA", 0, ""},
	}
	for _, who := range now {
		t.Run(who.name, func(t *testing.T) { c.checkAgreement(t, who) })
	}
	c.ahead.Store(int64(2 * time.Hour)) // a test of package registry has the very second
	later := asked{"its grant has expired", c.as("brief", "read", "brief"), "", 403, policy.RuleGrant}
	t.Run(later.name, func(t *testing.T) { c.checkAgreement(t, later) })
	c.ahead.Store(int64(25 * time.Hour)) // but old enough, and all other grants are over
	older := asked{"a core stakeholder, a day later", c.as("core", "read", ""), "AADDGAYA", 0, ""}
	t.Run(older.name, func(t *testing.T) { c.checkAgreement(t, older) })
}

// ruleFor is the rule that denies name where it is denied.
func ruleFor(name string) string {
	switch name {
	case "blake3-thing", "hasher":
		return "quarantine blake3"
	case "young":
		return "cooldown"
	}
	return "allowed-crates"
}

func (c *courtroom) checkAgreement(t *testing.T, who asked) {
	token := who.token(c.lab)
	if who.gate != 0 {
		c.checkBarred(t, who, token)
		return
	}
	told, crates := map[string]bool{}, 0
	for i, name := range judgedNames {
		outcome := who.sees[i]
		if told[name] = outcome != seesNothing; told[name] && name != "notes" {
			crates++
		}
		rule := ruleFor(name)
		if who.rule != "" && name == "young" {
			rule = string(who.rule)
		}
		c.checkBytes(t, token, name, outcome, rule)
		c.checkTold(t, token, name, outcome)
		if name != "notes" {
			c.checkCrate(t, token, name, outcome)
		}
	}
	c.checkLists(t, token, told, crates)
}

func kindOfName(name string) string {
	if name == "notes" {
		return "aln-shard"
	}
	return "crate"
}

// checkBarred: who may not read at all is told why, and no name.
func (c *courtroom) checkBarred(t *testing.T, who asked, token string) {
	t.Helper()
	for _, path := range []string{
		"/index/config.json", "/index/go/od/good", "/public/index/go/od/good", "/api/v1/crates?q=good", "/api/v1/crates/good/1.0.0/download", "/api/v1/crates/good/owners",
		"/v1/artifacts", "/v1/artifacts/crate", "/v1/artifacts/crate/good", "/v1/artifacts/crate/good/1.0.0", "/v1/artifacts/crate/good/1.0.0/content",
		"/v1/artifacts/crate/good/1.0.0/bundle", "/v1/records/" + string(c.records["good"]), "/v1/artifacts/crate/none", "/index/no/ne/none",
	} {
		a := ask{method: http.MethodGet, path: path, token: token, header: http.Header{"If-None-Match": {c.etags["good"], "*"}}}
		r := c.do(a)
		if r.status != who.gate || strings.Contains(string(r.body), "good") {
			t.Errorf("%s: %s", path, r)
		}
		if path != "/index/config.json" && strings.HasPrefix(path, "/v1") && !strings.Contains(string(r.body), `"code":"`+string(who.rule)+`"`) {
			t.Errorf("%s does not name the rule %s: %s", path, who.rule, r.body)
		}
	}
}

// checkBytes: the bytes leave by all ways or by none, and conditions do not matter.
func (c *courtroom) checkBytes(t *testing.T, token, name string, outcome byte, rule string) {
	t.Helper()
	paths := []string{"/v1/artifacts/" + kindOfName(name) + "/" + name + "/1.0.0/content"}
	if name != "notes" {
		paths = append(paths, "/api/v1/crates/"+name+"/1.0.0/download")
	}
	for _, path := range paths {
		for _, way := range []struct {
			method string
			header http.Header
			status int
		}{
			{http.MethodGet, nil, 200}, {http.MethodHead, nil, 200}, {http.MethodGet, http.Header{"Range": {"bytes=0-3"}}, 206},
			{http.MethodGet, http.Header{"If-None-Match": {c.etags[name]}}, 304}, {http.MethodHead, http.Header{"If-None-Match": {"*"}}, 304},
		} {
			want := way.status
			switch outcome {
			case seesDenied:
				want = 403
			case seesNothing:
				want = 404
			}
			r := c.do(ask{method: way.method, path: path, token: token, header: way.header})
			if r.status != want || want >= 400 && r.header.Get("ETag") != "" {
				t.Errorf("%s %s %v: %d, not %d: %s", way.method, path, way.header, r.status, want, r)
			}
			sentence := name + " 1.0.0 is denied by rule " + rule
			if want == 403 && way.method == http.MethodGet && !strings.Contains(string(r.body), sentence) {
				t.Errorf("%s says %s, not %s", path, r.body, sentence)
			}
		}
	}
}

// checkTold: what tells of a version tells of those that may be known of, and what is denied.
func (c *courtroom) checkTold(t *testing.T, token, name string, outcome byte) {
	t.Helper()
	artifact := "/v1/artifacts/" + kindOfName(name) + "/" + name
	status := 200
	if outcome == seesNothing {
		status = 404
	}
	for _, path := range []string{artifact, artifact + "/1.0.0", "/v1/records/" + string(c.records[name])} {
		r := c.get(path, token)
		if r.status != status {
			t.Errorf("%s: %d, not %d: %s", path, r.status, status, r.body)
		}
		denied := outcome == seesDenied || outcome == seesGraced
		if says := strings.Contains(string(r.body), `"decision":{`); status == 200 && strings.HasPrefix(path, artifact) && says != denied {
			t.Errorf("%s: %s", path, r.body)
		}
	}
	if token == "" {
		return
	}
	if r := c.get(artifact+"/1.0.0/bundle", token); r.status != status {
		t.Errorf("bundle of %s: %d, not %d", name, r.status, status)
	}
	var heads struct {
		Prev *string `json:"prev"`
	}
	r := c.get("/v1/heads/"+kindOfName(name)+"/"+name, token).want(t, 200)
	if err := json.Unmarshal(r.body, &heads); err != nil || (heads.Prev == nil) != (outcome == seesNothing) && !strings.Contains(string(r.body), `"by":null`) {
		t.Errorf("heads of %s: %s, %v", name, r.body, err)
	}
}

// checkCrate: the index file, by both roots, and the owners.
func (c *courtroom) checkCrate(t *testing.T, token, name string, outcome byte) {
	t.Helper()
	roots := []string{"/public/index/"}
	if token != "" {
		roots = append(roots, "/index/")
	}
	for _, root := range roots {
		r := c.get(root+cargo.IndexPath(name), token)
		if outcome == seesNothing {
			if r.status != 404 {
				t.Errorf("%s of %s: %s", root, name, r)
			}
			continue
		}
		line, err := cargo.ParseLine(bytes.TrimSuffix(r.body, nil))
		if r.status != 200 || err != nil || line.Yanked != (outcome != seesAll) {
			t.Errorf("%s of %s, which is %c: %s %v", root, name, outcome, r, err)
		}
	}
	if r := c.get("/api/v1/crates/"+name+"/owners", token); (r.status == 404) != (outcome == seesNothing) || r.status != 200 && r.status != 404 {
		t.Errorf("owners of %s: %s", name, r)
	}
}

// checkLists: lists and searches hold what may be known of, and count nothing else.
func (c *courtroom) checkLists(t *testing.T, token string, told map[string]bool, crates int) {
	t.Helper()
	all := c.get("/v1/artifacts?limit=100", token).want(t, 200)
	search := c.get("/api/v1/crates?q=&per_page=100", token).want(t, 200)
	var found struct {
		Crates []struct{ Name string } `json:"crates"`
		Meta   struct{ Total int }     `json:"meta"`
	}
	if err := json.Unmarshal(search.body, &found, json.MatchCaseInsensitiveNames(true)); err != nil || found.Meta.Total != crates || len(found.Crates) != crates {
		t.Errorf("%d crates are told of, not %d: %s, %v", found.Meta.Total, crates, search.body, err)
	}
	for _, name := range judgedNames {
		for path, r := range map[string]reply{
			"all": all, "kind": c.get("/v1/artifacts/"+kindOfName(name)+"?limit=100", token), "query": c.get("/v1/artifacts?q="+name, token),
		} {
			if told[name] != strings.Contains(string(r.body), `"name":"`+name+`"`) {
				t.Errorf("%s of %s: %s", path, name, r.body)
			}
		}
		if name != "notes" && told[name] != strings.Contains(string(search.body), `"name":"`+name+`"`) {
			t.Errorf("search: %s: %s", name, search.body)
		}
	}
	// Page by page there is the same.
	var paged []string
	for after := ""; ; {
		var page struct {
			Artifacts []struct {
				Name string `json:"name"`
			} `json:"artifacts"`
			Next string `json:"next"`
		}
		r := c.get("/v1/artifacts?limit=2&after="+after, token).want(t, 200)
		if err := json.Unmarshal(r.body, &page); err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Artifacts {
			paged = append(paged, a.Name)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	n := 0
	for _, name := range judgedNames {
		if told[name] {
			n++
		}
	}
	if len(paged) != n {
		t.Errorf("pages hold %v", paged)
	}
}

// Search and lists name the newest that a resolver may pick.
func TestTheNewestIsOneThatMayBePicked(t *testing.T) {
	l := newLab(t)
	for _, v := range []string{"1.0.0", "1.1.0", "2.0.0"} {
		l.publish(l.owner, "two", v)
	}
	token := l.session(l.member, "read")
	l.get("/api/v1/crates?q=two", token).want(t, 200, `"max_version":"2.0.0"`)
	l.quarantine("two", func(q *particle.QuarantineRule) {
		q.Match[0].Names, q.Match[0].Versions = []string{"two"}, ">=1.1"
	})
	l.get("/api/v1/crates?q=two", token).want(t, 200, `"max_version":"1.0.0"`)
	l.get("/v1/artifacts/crate", token).want(t, 200, `"version_count":3`, `"version":"1.0.0"`)
	l.get("/v1/artifacts/crate/two", token).want(t, 200, `"rule_id":"two"`, `"version_count":3`)
	r := l.get("/index/3/t/two", token).want(t, 200)
	if n := bytes.Count(r.body, []byte(`"yanked":true`)); n != 2 || bytes.Count(r.body, []byte("\n")) != 3 {
		t.Errorf("%s", r.body)
	}
}

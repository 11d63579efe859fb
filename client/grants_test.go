package client

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// grantor lets a fake registry tell of grants, rules, shards and decisions.
type grantor struct {
	*fake
	r      *Registry
	infos  []GrantInfo
	raw    map[storage.CID][]byte
	shards map[string][]byte // by the name of an aln-shard, at version 1.0.0
	rules  []RuleInfo
	// denied crates, by sha256; alter may change the decisions told.
	denied map[string]string
	alter  func([]Decision) []Decision
	dl     string
}

func newGrantor(t *testing.T) *grantor {
	t.Helper()
	f, _, r := loggedIn(t)
	g := &grantor{fake: f, r: r, raw: map[storage.CID][]byte{}, shards: map[string][]byte{}, denied: map[string]string{}, dl: f.server.URL + "/api/v1/crates"}
	f.tamper = g.serve
	return g
}

// env is an EnvGrant that allows nothing.
func (g *grantor) env() particle.EnvGrant {
	return particle.EnvGrant{
		Registry: g.origin.Public().DID(), Issuer: g.r.identity.DID(), Subject: g.r.identity.DID(),
		NotBefore: particle.At(time.Now().Add(-time.Hour)), Expires: particle.At(time.Now().Add(time.Hour)),
		MaxMemMB: 500, MaxDiskMB: 1000, AllowedCrates: []string{}, AllowedProtocols: []string{"http", "sparse"},
		AllowedEndpoints: []string{EndpointOfBase(g.server.URL)}, Tier: particle.TierCollaborator,
	}
}

// grant logs an EnvGrant and tells of it.
func (g *grantor) grant(e particle.EnvGrant) storage.CID {
	g.mu.Lock()
	defer g.mu.Unlock()
	raw := must(e.Marshal())
	id := storage.CIDOf(raw)
	rec := g.sign(g.r.identity.Signer(), record.GrantSubject(id), id.Digest(), record.Header{By: g.records[0].ID()}, &record.Grant{})
	return g.tell(e, raw, rec, true)
}

// tell tells of a grant, and puts its record into the log or only shows it.
func (g *grantor) tell(e particle.EnvGrant, raw []byte, rec *record.Record, logged bool) storage.CID {
	id := storage.CIDOf(raw)
	if logged {
		g.log(rec)
	} else {
		g.records = append(g.records, rec)
	}
	g.raw[id] = raw
	now := time.Now()
	g.infos = append(g.infos, GrantInfo{
		CID: id, Record: rec.ID(), Index: int64(len(g.records) - 1), Issuer: e.Issuer, Subject: e.Subject, From: e.NotBefore, Expires: e.Expires,
		Tier: e.Tier, Supersedes: e.Supersedes, InForce: !now.Before(e.NotBefore.Time) && now.Before(e.Expires.Time),
	})
	g.granted = append(g.granted, policy.HostGrant{CID: id.String(), NotBefore: e.NotBefore.Time, Expires: e.Expires.Time, Entitled: true})
	return id
}

// info is what is told of a grant, to be changed.
func (g *grantor) info(id storage.CID) *GrantInfo {
	return &g.infos[slices.IndexFunc(g.infos, func(i GrantInfo) bool { return i.CID == id })]
}

func (g *grantor) serve(w http.ResponseWriter, r *http.Request) bool {
	path := r.URL.EscapedPath()
	switch id, one := strings.CutPrefix(path, grantsPath+"/"); {
	case path == grantsPath:
		listed := []GrantInfo{}
		for _, i := range g.infos {
			if s := r.FormValue("subject"); (s == "" || s == string(i.Subject)) && (i.InForce || r.FormValue("in_force") == "") {
				listed = append(listed, i)
			}
		}
		writeJSON(w, map[string]any{"grants": listed})
	case one:
		at := slices.IndexFunc(g.infos, func(i GrantInfo) bool { return i.CID.String() == id })
		if at < 0 {
			refuse(w, 404, "not-found", "no such grant")
			return true
		}
		writeJSON(w, g.infos[at])
	case strings.Contains(path, "/attachments/"):
		w.Write(g.raw[must(storage.ParseCID(path[strings.LastIndex(path, "/")+1:]))])
	case path == rulesPath:
		rules, next := slices.DeleteFunc(slices.Clone(g.rules), func(i RuleInfo) bool { return i.ID <= r.FormValue("after") }), ""
		if len(rules) > 2 {
			rules, next = rules[:2], rules[1].ID
		}
		writeJSON(w, map[string]any{"rules": rules, "next": next})
	case path == decisionsPath:
		g.serveDecisions(w, r)
	case path == "/index/config.json":
		writeJSON(w, map[string]any{"dl": g.dl})
	case strings.HasPrefix(path, "/v1/artifacts/"):
		g.serveShards(w, strings.TrimPrefix(path, "/v1/artifacts/"))
	default:
		return false
	}
	return true
}

func (g *grantor) serveDecisions(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Artifacts []Judged `json:"artifacts"`
	}
	json.NewDecoder(r.Body).Decode(&asked)
	decisions := []Decision{}
	for _, a := range asked.Artifacts {
		d := Decision{Kind: "crate", Name: a.Name, Version: a.Version, Known: true, Allow: true, Listed: true}
		if reason, denied := g.denied[a.SHA256]; denied {
			d.Allow, d.Listed, d.Rule, d.RuleID, d.Reason = false, false, "quarantine", "bad", reason
		}
		decisions = append(decisions, d)
	}
	if g.alter != nil {
		decisions = g.alter(decisions)
	}
	writeJSON(w, map[string]any{"decisions": decisions})
}

func (g *grantor) serveShards(w http.ResponseWriter, path string) {
	parts := strings.Split(path, "/")
	artifact := func(name string) map[string]any {
		return map[string]any{"kind": "aln-shard", "name": name, "version": "1.0.0", "cid": storage.CIDOf(g.shards[name])}
	}
	switch {
	case len(parts) == 1 && parts[0] == "aln-shard":
		listed := []map[string]any{}
		for name := range g.shards {
			listed = append(listed, map[string]any{"kind": "aln-shard", "name": name, "version_count": 1, "newest": artifact(name)})
		}
		writeJSON(w, map[string]any{"artifacts": listed, "next": ""})
	case len(parts) == 1:
		writeJSON(w, map[string]any{"artifacts": []any{}, "next": ""})
	case parts[0] != "aln-shard" || g.shards[parts[1]] == nil:
		refuse(w, 404, "not-found", "there is no "+path)
	case len(parts) == 4 && parts[3] == "content":
		w.Write(g.shards[parts[1]])
	default:
		writeJSON(w, artifact(parts[1]))
	}
}

// What a session names is what it was asked for, and sessions of one grant are never
// taken for another.
func TestSessionsAreKeptApartByGrant(t *testing.T) {
	g := newGrantor(t)
	e := g.env()
	first := g.grant(e)
	e.MaxDiskMB++
	second := g.grant(e)
	token := func(r *Registry) string { return must(r.Session(t.Context(), particle.ScopeRead, "", 0)).Token }
	tokens := map[string]string{}
	for name, r := range map[string]*Registry{"": g.r.Bare(), first.String(): g.r.Under(first), second.String(): g.r.Under(second)} {
		tokens[name] = token(r)
		if claims := must(policy.ParseSession(tokens[name])).Claims; claims.Grant != name {
			t.Errorf("asked for a session under %q, got one under %q", name, claims.Grant)
		}
	}
	for name, r := range map[string]*Registry{"": g.r.Bare(), first.String(): g.r.Under(first), second.String(): g.r.Under(second)} {
		if token(r) != tokens[name] {
			t.Errorf("the session under %q was not kept, or is another's", name)
		}
	}
	if found, err := g.r.DropSession(t.Context()); err != nil || !found {
		t.Fatal(found, err)
	}
	for name, r := range map[string]*Registry{"": g.r.Bare(), second.String(): g.r.Under(second)} {
		if token(r) == tokens[name] {
			t.Errorf("the session under %q was kept after logout", name)
		}
	}
}

// A kept session that somebody renamed to another grant's file is not used.
func TestAKeptSessionOfAnotherGrantIsNotUsed(t *testing.T) {
	g := newGrantor(t)
	first := g.grant(g.env())
	under := g.r.Under(first)
	if err := under.store(under.sessionName(), must(g.r.Bare().Session(t.Context(), particle.ScopeRead, "", 0))); err != nil {
		t.Fatal(err)
	}
	other := g.r.Bare()
	if err := other.store(under.sessionName(), must(other.Session(t.Context(), particle.ScopeRead, "", 0))); err != nil {
		t.Fatal(err)
	}
	if claims := must(policy.ParseSession(must(under.Session(t.Context(), particle.ScopeRead, "", 0)).Token)).Claims; claims.Grant != first.String() {
		t.Errorf("a session under %q was handed out for %s", claims.Grant, first)
	}
}

func TestTheProviderNamesTheGrant(t *testing.T) {
	g := newGrantor(t)
	id := g.grant(g.env())
	c := New(Config{Home: g.r.client.home, Grant: id.String(), Now: time.Now, Rand: rand.Reader})
	var out strings.Builder
	line := `{"v":1,"registry":{"index-url":"` + IndexURL(g.server.URL) + `"},"kind":"get","operation":"read"}` + "\n"
	if err := c.Provide(t.Context(), strings.NewReader(line), &out); err != nil {
		t.Fatal(err)
	}
	_, answered, _ := strings.Cut(out.String(), "\n")
	var answer cargoAnswer
	if err := json.Unmarshal([]byte(answered), &answer); err != nil || answer.OK == nil {
		t.Fatal(out.String(), err)
	}
	if claims := must(policy.ParseSession(answer.OK.Token)).Claims; claims.Grant != id.String() {
		t.Errorf("the session is under %q", claims.Grant)
	}
}

func TestAGrantIsBelievedOnlyByItsBytes(t *testing.T) {
	for name, spoil := range map[string]func(g *grantor, id storage.CID){
		"other bytes":        func(g *grantor, id storage.CID) { g.raw[id] = flip(g.raw[id]) },
		"another's record":   func(g *grantor, id storage.CID) { g.info(id).Record = g.records[1].ID() },
		"another subject":    func(g *grantor, id storage.CID) { g.info(id).Subject = "did:web:other.example" },
		"an unknown record":  func(g *grantor, id storage.CID) { g.info(id).Record = record.ID(strings.Repeat("0", 64)) },
		"for other registry": func(g *grantor, _ storage.CID) { g.r.pin.Origin = "did:web:other.example" },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrantor(t)
			id := g.grant(g.env())
			if got, err := g.r.Grant(t.Context(), id); err != nil || got.Env.MaxDiskMB != 1000 {
				t.Fatal(got, err)
			}
			spoil(g, id)
			if got, err := g.r.Grant(t.Context(), id); err == nil {
				t.Errorf("it is believed: %+v", got)
			}
		})
	}
}

func TestOwnGrant(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(g *grantor) (named storage.CID)
		want error
		head bool // the last one made is it
	}{
		"none": {func(*grantor) storage.CID { return storage.CID{} }, ErrNoGrant, false},
		"one":  {func(g *grantor) storage.CID { g.grant(g.env()); return storage.CID{} }, nil, true},
		"several, none named": {func(g *grantor) storage.CID {
			e := g.env()
			g.grant(e)
			e.MinAgeDays = 3
			g.grant(e)
			return storage.CID{}
		}, ErrSeveralGrants, false},
		"several, one named": {func(g *grantor) storage.CID {
			e := g.env()
			g.grant(e)
			e.MinAgeDays = 3
			return g.grant(e)
		}, nil, true},
		"superseded, named": {func(g *grantor) storage.CID {
			e := g.env()
			first := g.grant(e)
			e.Supersedes = &first
			second := g.grant(e)
			g.info(first).SupersededBy, g.info(first).InForce = &second, false
			return first
		}, nil, true},
		"a chain that bites its tail": {func(g *grantor) storage.CID {
			e := g.env()
			first := g.grant(e)
			g.info(first).SupersededBy = &first
			return first
		}, ErrAnswer, false},
		"one that nobody knows": {func(*grantor) storage.CID { return cidOf("nothing") }, ErrUnknownGrant, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrantor(t)
			named := c.set(g)
			got, err := g.r.Under(named).OwnGrant(t.Context())
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatal(err)
			}
			if c.head && got.CID != g.infos[len(g.infos)-1].CID {
				t.Errorf("it is %s", got.CID)
			}
		})
	}
}

// Decisions are taken only for what was asked about, in its order.
func TestDecisionsAboutOtherThingsAreRefused(t *testing.T) {
	asked := []Judged{{Name: "a", Version: "1.0.0", SHA256: strings.Repeat("a", 64), Source: "hosted"}, {Name: "b", Version: "1.0.0", SHA256: strings.Repeat("b", 64), Source: "hosted"}}
	for name, alter := range map[string]func([]Decision) []Decision{
		"one less": func(d []Decision) []Decision { return d[:1] },
		"one more": func(d []Decision) []Decision { return append(d, d[0]) },
		"swapped":  func(d []Decision) []Decision { return []Decision{d[1], d[0]} },
		"another":  func(d []Decision) []Decision { d[1].Version = "2.0.0"; return d },
	} {
		g := newGrantor(t)
		if got, err := g.r.Decide(t.Context(), storage.CID{}, asked); err != nil || len(got) != 2 {
			t.Fatal(got, err)
		}
		g.alter = alter
		if got, err := g.r.Decide(t.Context(), storage.CID{}, asked); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestCharterFetchesWhatTheGrantNames(t *testing.T) {
	hash := storage.CIDOf([]byte("demo"))
	list := particle.MarshalList([][32]byte{hash.Digest()})
	domain := []byte(`{"name":"PhoenixLab.Safe","code_origins":[],"networking":[],"syscalls":[],"attestation":"none"}`)
	pool := []byte(`{"pool_id":"p","owner_did":"did:web:a.example","stakeholder_addrs":[],"max_bytes":104857600,"encryption_scheme":"none","jurisdiction":"EU"}`)
	for name, c := range map[string]struct {
		shards map[string][]byte
		want   []string
		listed bool
	}{
		"all there":          {map[string][]byte{"list-" + storage.CIDOf(list).String(): list, "Safe": domain, "Pool": pool}, nil, true},
		"a list by its name": {map[string][]byte{"crates-of-mine": list, "Safe": domain, "Pool": pool}, nil, true},
		"no list":            {map[string][]byte{"Safe": domain, "Pool": pool}, []string{"list of crates is not to be had"}, false},
		"no domain":          {map[string][]byte{"l": list, "Pool": pool}, []string{"ExecutionDomain"}, true},
		"no pool":            {map[string][]byte{"l": list, "Safe": domain}, []string{"MemoryPoolShard"}, true},
		"nothing":            {map[string][]byte{}, []string{"list of crates", "MemoryPoolShard", "ExecutionDomain"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrantor(t)
			e := g.env()
			listID, domainID, poolID := storage.CIDOf(list), storage.CIDOf(domain), storage.CIDOf(pool)
			e.AllowedCrates, e.AllowedCratesList, e.ExecutionDomain, e.MemoryPool = nil, &listID, &domainID, &poolID
			g.grant(e)
			g.shards = c.shards
			charter, found, ok, err := g.r.Charter(t.Context())
			if err != nil || !ok || len(found) != len(c.want) {
				t.Fatal(charter, found, ok, err)
			}
			for i, f := range found {
				if f.Clause != ClauseShards || !strings.Contains(f.Detail, c.want[i]) || f.Mend == "" {
					t.Errorf("%+v", f)
				}
			}
			if charter.All || charter.Listed[hash.Digest()] != c.listed {
				t.Errorf("listed: %v", charter.Listed)
			}
		})
	}
}

// A shard that is there under its name with other bytes is as good as none.
func TestAShardWithOtherBytesIsMissing(t *testing.T) {
	g := newGrantor(t)
	list := particle.MarshalList([][32]byte{{1}})
	id := storage.CIDOf(list)
	e := g.env()
	e.AllowedCrates, e.AllowedCratesList = nil, &id
	g.grant(e)
	g.shards["l"] = list
	served := g.tamper
	g.tamper = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.EscapedPath(), "/content") {
			w.Write(particle.MarshalList([][32]byte{{1}, {2}}))
			return true
		}
		return served(w, r)
	}
	charter, found, ok, err := g.r.Charter(t.Context())
	if err != nil || !ok || len(found) != 1 || found[0].Clause != ClauseShards || len(charter.Listed) != 0 {
		t.Errorf("%+v, %+v, %v, %v", charter, found, ok, err)
	}
}

func TestCharterSaysWhatIsWrongWithTheGrant(t *testing.T) {
	for name, c := range map[string]struct {
		set          func(g *grantor) storage.CID
		clause, says string
	}{
		"none":    {func(*grantor) storage.CID { return storage.CID{} }, ClauseGrant, "no grant is in force"},
		"unknown": {func(*grantor) storage.CID { return cidOf("x") }, ClauseGrant, "unknown grant"},
		"another's": {func(g *grantor) storage.CID {
			e := g.env()
			e.Subject = "did:web:other.example"
			return g.grant(e)
		}, ClauseGrant, "and you are"},
		"revoked": {func(g *grantor) storage.CID {
			id := g.grant(g.env())
			g.info(id).Revoked, g.info(id).InForce = true, false
			return id
		}, ClauseGrant, "was revoked"},
		"issuer without the role": {func(g *grantor) storage.CID {
			id := g.grant(g.env())
			g.info(id).InForce, g.info(id).Why = false, "whoever issued it may no longer grant"
			return id
		}, ClauseGrant, "may no longer grant"},
		"expired": {func(g *grantor) storage.CID {
			e := g.env()
			e.Expires = particle.At(time.Now().Add(-time.Minute))
			return g.grant(e)
		}, ClauseTime, "expired at"},
		"not yet": {func(g *grantor) storage.CID {
			e := g.env()
			e.NotBefore = particle.At(time.Now().Add(time.Minute))
			return g.grant(e)
		}, ClauseTime, "not in force before"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrantor(t)
			_, found, ok, err := g.r.Under(c.set(g)).Charter(t.Context())
			if err != nil || ok || len(found) != 1 || found[0].Clause != c.clause || !strings.Contains(found[0].Detail, c.says) || found[0].Mend == "" {
				t.Errorf("%+v, %v, %v", found, ok, err)
			}
		})
	}
}

// A registry that says that an expired grant is in force is not believed.
func TestTheTimeOfAGrantIsJudgedHere(t *testing.T) {
	g := newGrantor(t)
	e := g.env()
	e.Expires = particle.At(time.Now().Add(-time.Minute))
	g.info(g.grant(e)).InForce = true
	_, found, ok, err := g.r.Charter(t.Context())
	if err != nil || ok || len(found) != 1 || found[0].Clause != ClauseTime {
		t.Errorf("%+v, %v, %v", found, ok, err)
	}
}

// A rule on a later page binds as well as one on the first.
func TestAllPagesOfRulesAreRead(t *testing.T) {
	g := newGrantor(t)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		g.rules = append(g.rules, RuleInfo{ID: id, State: RuleInForce})
	}
	rules, err := g.r.Rules(t.Context())
	if err != nil || len(rules) != 5 || rules[4].ID != "e" {
		t.Errorf("%+v, %v", rules, err)
	}
	served := g.tamper
	g.tamper = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.EscapedPath() == rulesPath {
			writeJSON(w, map[string]any{"rules": g.rules[:1], "next": "a"})
			return true
		}
		return served(w, r)
	}
	if _, err := g.r.Rules(t.Context()); !errors.Is(err, ErrAnswer) {
		t.Errorf("pages without end: %v", err)
	}
}

func TestEndpointsAreThoseOfTheIndexAndOfItsDownloads(t *testing.T) {
	g := newGrantor(t)
	g.grant(g.env())
	g.dl = "https://cdn.example/{crate}/{version}"
	packages := []Locked{{}, {}, {}, {}}
	packages[0].Name = "mine"
	packages[1].Name, packages[1].Source = "demo", IndexURL(g.server.URL)
	packages[2].Name, packages[2].Source = "serde", cratesIO[0]
	packages[3].Name, packages[3].Source = "alien", "git+ssh://git@git.example:2222/alien"
	if _, err := g.r.Place(packages, nil); err != nil {
		t.Fatal(err)
	}
	ends, err := g.r.Endpoints(t.Context(), packages)
	var hosts []string
	for _, e := range ends {
		hosts = append(hosts, strings.Join(e.Protocols, "+")+" "+e.Host)
	}
	want := []string{
		"sparse+http " + EndpointOfBase(g.server.URL), "https cdn.example", "sparse+https index.crates.io", "https static.crates.io", "git+ssh git.example:2222",
	}
	if err != nil || !slices.Equal(hosts, want) {
		t.Errorf("%v, %v, want %v", hosts, err, want)
	}
}

func TestCratesAreNamedByTheirHashes(t *testing.T) {
	g := newGrantor(t)
	id := cidOf("demo")
	g.tamper = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.EscapedPath() != "/v1/artifacts/crate" {
			return g.serve(w, r)
		}
		writeJSON(w, map[string]any{"artifacts": []any{map[string]any{"kind": "crate", "name": "demo", "version_count": 1, "newest": map[string]any{"kind": "crate", "name": "demo", "version": "1.2.0", "cid": id}}}})
		return true
	}
	names, err := g.r.CrateNames(t.Context(), [][32]byte{id.Digest(), {1}})
	if err != nil || len(names) != 1 || names[id.Digest()] != "demo 1.2.0" {
		t.Errorf("%v, %v", names, err)
	}
}

// A release is voted on in a session that a reviewer can have, and the vote cites the proposal.
func TestAReleaseIsVotedOnWithoutTheScopeAdmin(t *testing.T) {
	g := newGrantor(t)
	subject := must(record.RuleSubject("blake3"))
	release := g.sign(g.r.identity.Signer(), subject, [32]byte{}, record.Header{By: g.members[g.r.identity.DID()]}, &record.Release{Reason: "audited"})
	g.log(release)
	p, err := g.r.ProposalOf(t.Context(), release.ID())
	if err != nil || p.Rule != "blake3" || p.Release.Reason != "audited" {
		t.Fatal(p, err)
	}
	vote, err := g.r.ApproveRelease(t.Context(), p, false, "fine")
	if err != nil || vote.Unsure == nil || vote.Ended {
		t.Fatal(vote, err)
	}
	rec := g.records[vote.Index]
	if body, ok := rec.Body().(*record.Approve); !ok || body.Record != release.ID() || rec.Subject().Rule() != "blake3" {
		t.Errorf("%+v", rec)
	}
	for _, asked := range g.tokens {
		if asked.Rec == string(vote.Record) && asked.Scope != particle.ScopePublish {
			t.Errorf("it was carried in a session with the scope %s", asked.Scope)
		}
	}
	if p, err := g.r.ProposalOf(t.Context(), g.records[0].ID()); err != nil || p.Release != nil {
		t.Errorf("settings: %+v, %v", p, err)
	}
	if _, err := g.r.ProposalOf(t.Context(), g.records[1].ID()); err == nil {
		t.Error("a member record is taken for a proposal")
	}
}

func hexOf(data string) string {
	h := storage.CIDOf([]byte(data)).Digest()
	return hex.EncodeToString(h[:])
}

package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// A crate of another registry is explained by what was seen of it there.
func TestWhyACrateOfAnotherRegistryIsDecidedSo(t *testing.T) {
	l := newLab(t)
	l.demo()
	line := `{"name":"Demo-One","vers":"7.0.0","deps":[],"cksum":"` + hexOf("demo-one", "7.0.0") + `","features":{},"yanked":false}` + "\n"
	for _, upstream := range []string{"crates-io", "lab"} {
		if _, err := l.registry.Import(t.Context(), upstream, "demo-one", []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	l.quarantine("theirs", func(q *particle.QuarantineRule) { named("demo-one")(q); q.Match[0].Sources = []string{"crates-io"} })
	token := l.session(l.member, "read")
	if all := l.why(token, "crate/demo_one?source=crates-io"); len(all) != 1 || all[0].Name != "Demo-One" || all[0].Version != "7.0.0" || all[0].Allow || all[0].RuleID != "theirs" {
		t.Errorf("%+v", all)
	}
	if one := l.why(token, "crate/demo-one/7.0.0?source=upstream/lab"); len(one) != 1 || one[0].RuleID == "theirs" || len(one[0].Steps) == 0 {
		t.Errorf("%+v", one)
	}
	altered := strings.Replace(line, `"deps":[]`, `"deps":[{"name":"a","req":"*"}]`, 1) + strings.Replace(line, hexOf("demo-one", "7.0.0"), hexOf("demo-one", "8.0.0"), 1)
	if _, err := l.registry.Import(t.Context(), "lab", "demo-one", []byte(altered)); err != nil {
		t.Fatal(err)
	}
	if one := l.why(token, "crate/demo-one/7.0.0?source=upstream/lab"); len(one) != 1 || len(one[0].SaidLater) != 2 || one[0].SaidLater[0].Kind != "altered" ||
		one[0].SaidLater[1].Kind != "changed" || one[0].SaidLater[1].Snapshot != storage.CIDOf([]byte(altered)).String() || one[0].Gone.IsZero() || one[0].GoneAs != "changed" {
		t.Errorf("%+v", one)
	}
	if one := l.why(token, "crate/demo-one/7.0.0?source=crates-io"); !one[0].Gone.IsZero() || one[0].GoneAs != "" {
		t.Errorf("%+v", one)
	}
	if ours := l.why(token, "crate/demo-one?source=hosted"); len(ours) != 1 || ours[0].Version != "0.1.0" || !ours[0].Allow {
		t.Errorf("%+v", ours)
	}
	for path, status := range map[string]int{
		"crate/demo-one/0.1.0?source=crates-io": 404, "crate/demo-one?source=upstream/none": 404, "crate/a%2Fb?source=crates-io": 404, "crate/%00?source=crates-io": 404,
		"crate/demo-one?source=nowhere": 400, "crate/demo-one?source=mirror/lab": 400, "crate/demo-one?source=upstream/crates-io": 400, "aln-shard/demo-one?source=crates-io": 400,
	} {
		l.get("/v1/decisions/"+path, token).want(t, status)
	}
	asked := []askedJSON{
		{Name: "demo-one", Version: "7.0.0", SHA256: hexOf("demo-one", "7.0.0"), Source: "crates-io"},
		{Name: "demo-one", Version: "7.0.0", SHA256: hexOf("demo-one", "0.1.0"), Source: "upstream/lab"},
	}
	if told := l.decided(token, "", asked...); told[0].RuleID != "theirs" || told[1].Allow || told[1].Rule != policy.RuleUnknown {
		t.Errorf("%+v", told)
	}
}

// Who first publishes a name that another registry has is warned.
func TestAPublisherIsWarnedOfAnotherRegistrysCrate(t *testing.T) {
	l := newLab(t, func(c *registry.Config) {
		c.KnownUpstream = func(_ context.Context, name string) (has, untold []string) {
			return map[string][]string{"serde": {"crates-io"}}[name], nil
		}
	})
	for _, test := range []struct {
		name, version string
		warned        bool
	}{{"serde", "1.0.0", true}, {"serde", "1.0.1", false}, {"ours", "1.0.0", false}} {
		crate := crateFile(test.name, test.version)
		rec := l.sign(l.owner, versionSubject(test.name, test.version), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(crate))
		token := l.credentialFor(l.session(l.owner, "publish", func(a *policy.Assertion) { a.Rec = string(rec.ID()) }), rec)
		got := l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", token: token, body: frame(test.name, test.version, crate)})
		got.want(t, 200)
		if warned := strings.Contains(string(got.body), "crates-io has a crate named serde too"); warned != test.warned {
			t.Errorf("%s@%s: %s", test.name, test.version, got.body)
		}
	}
}

// question posts a question about many artifacts.
func (l *lab) question(token, grant string, asked ...askedJSON) reply {
	l.t.Helper()
	body := must(json.Marshal(map[string]any{"grant": grant, "artifacts": append([]askedJSON{}, asked...)}))
	return l.do(ask{method: http.MethodPost, path: "/v1/decisions", token: token, body: body})
}

func (l *lab) decided(token, grant string, asked ...askedJSON) []judgementJSON {
	l.t.Helper()
	return read[judgementsJSON](l.t, l.question(token, grant, asked...)).Decisions
}

func (l *lab) why(token, path string) []judgementJSON {
	l.t.Helper()
	return read[judgementsJSON](l.t, l.get("/v1/decisions/"+path, token)).Decisions
}

func hosted(name, version string) askedJSON {
	return askedJSON{Name: name, Version: version, Source: particle.SourceHosted}
}

func hexOf(name, version string) string {
	sum := sha256.Sum256(crateFile(name, version))
	return hex.EncodeToString(sum[:])
}

func TestWhyADecisionIsWhatItIs(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.publish(l.owner, "demo-one", "0.10.0")
	l.publish(l.owner, "demo-one", "0.2.0")
	l.quarantine("old", func(q *particle.QuarantineRule) { named("demo_one")(q); q.Match[0].Versions = "<0.2" })
	l.quarantine("tried", func(q *particle.QuarantineRule) { named("demo-one")(q); q.Mode = particle.ModeDryRun })
	token := l.session(l.member, "read")

	all := l.why(token, "crate/Demo_One")
	if len(all) != 3 || all[0].Version != "0.10.0" || all[1].Version != "0.2.0" || all[2].Version != "0.1.0" {
		t.Fatalf("%+v", all)
	}
	if d := all[0]; !d.Known || !d.Listed || !d.Allow || d.Rule != policy.RuleTier || d.Name != "demo-one" || d.CID == "" {
		t.Errorf("%+v", d)
	}
	one := l.why(token, "crate/demo-one/0.1.0")
	if d := one[0]; len(one) != 1 || !d.Known || d.Listed || d.Allow || d.Rule != policy.RuleQuarantine || d.RuleID != "old" || d.Reason != "it was looked at" || d.ValidUntil == nil {
		t.Errorf("%+v", one)
	}
	outcomes := map[string]string{}
	for _, s := range one[0].Steps {
		outcomes[string(s.Rule)+" "+s.ID] = s.Outcome
	}
	if outcomes["quarantine old"] != "deny" || outcomes["quarantine tried"] != "would_deny" {
		t.Errorf("%+v", one[0].Steps)
	}
	for _, missing := range []string{"crate/none", "crate/demo-one/9.9.9", "crate/demo-one/0.1", "nonsense/demo-one", "aln-shard/demo-one", "crate/%00"} {
		l.get("/v1/decisions/"+missing, token).want(t, 404)
	}
	// What is decided is what the other routes do.
	l.get("/api/v1/crates/demo-one/0.1.0/download", token).want(t, 403, "rule quarantine old")
	l.get("/api/v1/crates/demo-one/0.10.0/download", token).want(t, 200)
}

// By which grants a host may ask to be judged, and who else by them.
func TestWhoMayAskByWhichGrant(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	listed := hexOf("demo-one", "0.1.0")
	host := l.newHost(particle.TierGuest, "builder")
	full := l.grant(host, func(g *particle.EnvGrant) { g.AllowedCrates = []string{listed} }).String()
	none := l.grant(host, func(g *particle.EnvGrant) { g.OffshoreFlag = true }).String()
	foreign := l.offshoreGrant().String()
	grantor, reviewer, auditor, mirror := l.newHost(particle.TierCoreStakeholder, "grantor"), l.newHost(particle.TierCoreStakeholder, "reviewer"), l.newHost(particle.TierGuest, "auditor"), l.newHost(particle.TierCoreStakeholder, "mirror")
	for name, c := range map[string]struct {
		token, grant string
		status       int
		allow, known bool
	}{
		"a host with several names one":          {l.session(host, "read"), full, 200, true, true},
		"a host that may not know of it":         {l.session(host, "read"), none, 404, false, false},
		"a host with several names none":         {l.session(host, "read"), "", 403, false, false},
		"a host asks by another's":               {l.session(host, "read"), foreign, 403, false, false},
		"a member asks by another's":             {l.session(l.member, "read"), full, 403, false, false},
		"a publisher who mirrors, to read":       {l.session(mirror, "read"), full, 403, false, false},
		"a grantor":                              {l.session(grantor, "read"), full, 200, true, true},
		"a grantor, of what the host cannot see": {l.session(grantor, "read"), none, 200, false, false},
		"a reviewer":                             {l.session(reviewer, "read"), foreign, 200, false, false},
		"an admin":                               {l.session(l.admin, "read"), full, 200, true, true},
		"an auditor who audits":                  {l.session(auditor, "audit"), none, 200, false, false},
		"an auditor without a grant, to read":    {l.session(auditor, "read"), full, 403, false, false},
		"no such grant":                          {l.session(l.admin, "read"), storage.CIDOf([]byte("x")).String(), 404, false, false},
		"no grant at all":                        {l.session(l.admin, "read"), "zz", 400, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/v1/decisions/crate/demo-one/0.1.0"
			if c.grant != "" {
				path += "?grant=" + c.grant
			}
			r := l.get(path, c.token).want(t, c.status)
			many := l.question(c.token, c.grant, hosted("demo-one", "0.1.0"))
			if c.status == http.StatusNotFound && len(c.grant) > 10 && c.token != l.session(l.admin, "read") && strings.HasPrefix(name, "a host") {
				c.status = http.StatusOK // of many, what is not known of is told as that
			}
			many.want(t, c.status)
			if c.status != http.StatusOK || r.status != http.StatusOK {
				return
			}
			for _, d := range []judgementJSON{read[judgementsJSON](t, r).Decisions[0], read[judgementsJSON](t, many).Decisions[0]} {
				if d.Allow != c.allow || d.Known != c.known {
					t.Errorf("%+v", d)
				}
			}
		})
	}
}

// What an asker may not know of cannot be told from what there is not, whatever
// they say of it.
func TestHiddenArtifactsCannotBeFoundOut(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	token := l.session(l.offshore, "read")
	for _, sum := range []string{"", hexOf("demo-one", "0.1.0"), strings.Repeat("ab", 32)} {
		for _, source := range []string{"hosted", "crates-io", "mirror/lab", "upstream/lab"} {
			there := l.question(token, "", askedJSON{"demo-one", "0.1.0", sum, source}).want(t, 200)
			missing := l.question(token, "", askedJSON{"demo-two", "0.1.0", sum, source}).want(t, 200)
			if want := bytes.ReplaceAll(missing.body, []byte("demo-two"), []byte("demo-one")); !bytes.Equal(there.body, want) {
				t.Errorf("%s %.8s:\n%s\n%s", source, sum, there.body, want)
			}
		}
	}
	there, missing := l.get("/v1/decisions/crate/demo-one/0.1.0", token).want(t, 404), l.get("/v1/decisions/crate/demo-two/0.1.0", token).want(t, 404)
	if want := bytes.ReplaceAll(missing.body, []byte("demo-two"), []byte("demo-one")); !bytes.Equal(there.body, want) {
		t.Errorf("\n%s\n%s", there.body, want)
	}
	// Nor can a grantor under such a grant find it out by way of another's.
	grantor := l.newHost(particle.TierGuest, "grantor")
	l.grant(grantor, func(g *particle.EnvGrant) { g.OffshoreFlag = true })
	host := l.newHost(particle.TierGuest, "builder")
	open := l.grant(host, allowing).String()
	token = l.session(grantor, "read")
	l.get("/v1/decisions/crate/demo-one/0.1.0?grant="+open, token).want(t, 404)
	if d := l.decided(token, open, hosted("demo-one", "0.1.0"), hosted("demo-two", "0.1.0")); d[0].Known || d[0].Reason != d[1].Reason || d[0].CID != d[1].CID {
		t.Errorf("%+v", d)
	}
}

func TestManyAreDecidedInTheirOrder(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.publish(l.owner, "blake3", "1.0.0")
	token := l.session(l.member, "read")
	asked := []askedJSON{
		{"serde", "1.0.0", strings.Repeat("ab", 32), "crates-io"}, hosted("demo-one", "0.1.0"), {"demo-one", "0.1.0", hexOf("demo-one", "0.1.0"), "hosted"},
		{"demo-one", "0.1.0", strings.Repeat("cd", 32), "hosted"}, hosted("none", "1.0.0"), hosted("blake3", "1.0.0"), hosted("demo-one", "0.1.0+build"), {"other", "1.0.0", "", "mirror/lab"},
		{"same-bytes", "9.0.0", hexOf("demo-one", "0.1.0"), "crates-io"}, {"alloc", "1.0.0", strings.Repeat("ab", 32), "crates-io"},
	}
	got := l.decided(token, "", asked...)
	for i, want := range []struct {
		known, listed, allow bool
		rule                 policy.Rule
	}{
		{true, true, false, policy.RuleQuarantine}, // nobody has looked inside
		{true, true, true, policy.RuleTier}, {true, true, true, policy.RuleTier},
		{true, false, false, policy.RuleUnknown}, // other bytes
		{false, false, false, policy.RuleUnknown}, {true, false, false, policy.RuleQuarantine}, {false, false, false, policy.RuleUnknown},
		{false, false, false, policy.RuleUnknown}, // too little is said
		{true, true, true, policy.RuleTier},       // the bytes are here, and were looked at
		{true, true, false, policy.RuleQuarantine},
	} {
		d := got[i]
		if d.Name != asked[i].Name || d.Version != asked[i].Version || d.Known != want.known || d.Listed != want.listed || d.Allow != want.allow || d.Rule != want.rule || d.Reason == "" || len(d.Steps) != 0 {
			t.Errorf("%d: %+v", i, d)
		}
	}
	if none := l.decided(token, ""); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestQuestionsAreStrict(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	post := func(body string) reply {
		return l.do(ask{method: http.MethodPost, path: "/v1/decisions", token: token, body: []byte(body)})
	}
	for _, bad := range []askedJSON{
		{"", "1.0.0", "", "hosted"}, {strings.Repeat("a", 65), "1.0.0", "", "hosted"}, {"a/b", "1.0.0", "", "hosted"}, {"a", "1", "", "hosted"},
		{"a", "1.0.0", "AB", "hosted"}, {"a", "1.0.0", strings.Repeat("AB", 32), "hosted"}, {"a", "1.0.0", "", ""}, {"a", "1.0.0", "", "git"}, {"a", "1.0.0", "", "mirror/../x"},
	} {
		l.question(token, "", hosted("fine", "1.0.0"), bad).want(t, 400, "artifacts[1]")
	}
	for _, body := range []string{"", "[]", `{"grant":"","artifacts":[],"more":1}`, `{"grant":"","grant":"","artifacts":[]}`, `{"Grant":"","artifacts":[]}`, `{"grant":"","artifacts":[{"name":"a","version":"1.0.0","sha256":"","source":"hosted","x":1}]}`} {
		post(body).want(t, 400)
	}
	item := `{"name":"a","version":"1.0.0","sha256":"","source":"hosted"},`
	post(`{"grant":"","artifacts":[`+strings.TrimSuffix(strings.Repeat(item, mostAsked+1), ",")+`]}`).want(t, 400, "at most 20000")
	post(`{"grant":"`+strings.Repeat("x", maxQuestion)+`","artifacts":[]}`).want(t, 413)
}

// A whole lockfile, and more, is decided at once.
func TestTwentyThousandAreDecidedAtOnce(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read")
	asked := make([]askedJSON, mostAsked)
	for i := range asked {
		asked[i] = hosted(fmt.Sprint("crate-", i), "1.0.0")
	}
	asked[12_345] = hosted("demo-one", "0.1.0")
	// The machine may be busy: what a tenth of them takes is what all are held against.
	start := time.Now()
	l.decided(token, "", asked[:mostAsked/10]...)
	tenth := time.Since(start)
	start = time.Now()
	got := l.decided(token, "", asked...)
	if took := time.Since(start); took > 10*tenth*3 {
		t.Errorf("all took %s, a tenth of them %s", took, tenth)
	}
	for i, d := range got {
		if d.Allow != (i == 12_345) {
			t.Fatalf("%d: %+v", i, d)
		}
	}
}

package integration

import (
	"crypto/rand"
	"crypto/sha256"
	endian "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
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

const (
	// benchListed is how many hashes the measured grant lists.
	benchListed = 100_000
	// benchRules is how many rules are in force beside the shipped ones.
	benchRules = 100
	// benchGrants rotate, each of a host of its own, over a cache that holds fewer views.
	benchGrants   = 1000
	benchVersions = 500
	benchCacheMB  = "64"
)

// asked is a question with everything in it, to which the answer is yes.
type asked struct {
	asker policy.Asker
	terms policy.Terms
	facts []policy.Facts
	grant particle.EnvGrant
	list  []byte
	// listed is what the grant is compared with: a plain map of the same hashes.
	listed map[[32]byte]struct{}
}

func benchAsked(b *testing.B, now time.Time) asked {
	b.Helper()
	q := asked{listed: map[[32]byte]struct{}{}}
	hashes := make([][32]byte, benchListed)
	for i := range hashes {
		hashes[i] = sha256.Sum256(endian.BigEndian.AppendUint64(nil, uint64(i)))
		q.listed[hashes[i]] = struct{}{}
	}
	q.list = particle.MarshalList(hashes)
	id := storage.CIDOf(q.list)
	host := did.DID("did:web:host.example")
	q.grant = particle.EnvGrant{
		Registry: "did:web:lab.example", Issuer: "did:web:grantor.example", Subject: host, AllowedCratesList: &id, MinAgeDays: 3,
		NotBefore: particle.At(now.Add(-time.Hour)), Expires: particle.At(now.Add(time.Hour)), Tier: particle.TierGuest,
		AllowedProtocols: []string{}, AllowedEndpoints: []string{},
	}
	grant := policy.CompileGrant("bafkrei-bench", q.grant, q.list, true)
	if grant.Listed() != benchListed {
		b.Fatal(grant.Unreadable())
	}
	q.asker = policy.Asker{DID: host, Tier: particle.TierGuest, Scopes: []string{particle.ScopeBuild}, Until: now.Add(time.Hour), Grant: grant, GrantUntil: q.grant.Expires.Time}
	var rules []policy.NamedRule
	for _, r := range particle.ShippedRules() {
		rules = append(rules, policy.NamedRule{ID: r.ID, QuarantineRule: r.QuarantineRule})
	}
	for i := range benchRules {
		rules = append(rules, policy.NamedRule{ID: fmt.Sprintf("rule-%d", i), QuarantineRule: particle.QuarantineRule{
			Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "bench",
			Match: []particle.RuleMatch{{Names: []string{fmt.Sprintf("bad-%d", i)}, Versions: "<1.2.3"}},
		}})
	}
	set, err := policy.CompileRules(rules)
	if err != nil {
		b.Fatal(err)
	}
	q.terms = policy.Terms{MinAgeDays: 7, Rules: set}
	for i := range 1024 {
		q.facts = append(q.facts, policy.Facts{
			Kind: policy.KindCrate, Name: fmt.Sprintf("crate_%d", i), Version: "1.0.0", Digest: hashes[i*97], Publisher: "did:web:publisher.example",
			Source: particle.SourceHosted, Since: now.Add(-30 * 24 * time.Hour), Scanned: true,
		})
	}
	return q
}

// BenchmarkPolicyDecision: nanoseconds per decision under a grant of 100,000
// hashes and 101 rules, against a look-up in a map of the same hashes; and the
// making ready of such a grant, against the making of that map.
func BenchmarkPolicyDecision(b *testing.B) {
	now := time.Now()
	q := benchAsked(b, now)
	const n = 1_000_000
	var took, ratio, compile, compileRatio series
	for b.Loop() {
		took, ratio, compile, compileRatio = nil, nil, nil, nil
		for range benchRounds {
			ours, theirs := q.decide(b, now, n), q.lookUp(b, n)
			took, ratio = append(took, float64(ours.Nanoseconds())/n), append(ratio, float64(ours)/float64(theirs))
			ours, theirs = q.compile(b), q.makeMap(b)
			compile, compileRatio = append(compile, ours.Seconds()*1000), append(compileRatio, float64(ours)/float64(theirs))
		}
	}
	say(b, "decision, grant of %d hashes, %d rules", benchListed, benchRules+len(particle.ShippedRules()))
	machine(b)
	against(b, "ns per decision", took, 50, true)
	say(b, "  %-34s %s", "of a look-up in a map of them", ratio)
	i := 0
	say(b, "  %-34s %v", "allocations per decision", testing.AllocsPerRun(1000, func() {
		i++
		policy.Decide(&q.asker, &q.terms, &q.facts[i&1023], now)
	}))
	say(b, "  %-34s %s", "ms to make the grant ready", compile)
	say(b, "  %-34s %s", "of making the map", compileRatio)
}

func (q *asked) decide(b *testing.B, now time.Time, n int) time.Duration {
	b.Helper()
	start := time.Now()
	for i := range n {
		if d := policy.Decide(&q.asker, &q.terms, &q.facts[i&1023], now); !d.Allow {
			b.Fatal(d.Reason())
		}
	}
	return time.Since(start)
}

func (q *asked) lookUp(b *testing.B, n int) time.Duration {
	b.Helper()
	start := time.Now()
	for i := range n {
		if _, ok := q.listed[q.facts[i&1023].Digest]; !ok {
			b.Fatal("not in the map")
		}
	}
	return time.Since(start)
}

func (q *asked) compile(b *testing.B) time.Duration {
	b.Helper()
	start := time.Now()
	if g := policy.CompileGrant("bafkrei-bench", q.grant, q.list, true); g.Listed() != benchListed {
		b.Fatal(g.Unreadable())
	}
	return time.Since(start)
}

// makeMap makes a map of the list's lines, as simply as can be.
func (q *asked) makeMap(b *testing.B) time.Duration {
	b.Helper()
	start := time.Now()
	made := map[[32]byte]struct{}{}
	for line := range strings.Lines(string(q.list)) {
		var h [32]byte
		if _, err := hex.Decode(h[:], []byte(line[:64])); err != nil {
			b.Fatal(err)
		}
		made[h] = struct{}{}
	}
	if len(made) != benchListed {
		b.Fatal(len(made))
	}
	return time.Since(start)
}

// BenchmarkPolicyIndex: an index file under a grant of 100,000 hashes against the
// same file under none, warm; and cold, 1,000 grants taking turns over a cache that
// holds fewer views than that.
func BenchmarkPolicyIndex(b *testing.B) {
	l := ruled(benchServer(b, "--cache-mb", benchCacheMB))
	rng := mathrand.New(mathrand.NewPCG(5, 6))
	var hashes [][32]byte
	for _, name := range []string{"bench-many", "bench-some"} {
		for i := range map[string]int{"bench-many": benchVersions, "bench-some": 12}[name] {
			r := newRelease(rng, 0, name, fmt.Sprintf("0.1.%d", i), 100)
			sent(b, l.lab, l.operator.signUpload(name, r.version, r.crate))
			hashes = append(hashes, r.cid.Digest())
		}
	}
	many := hashes[:benchVersions]
	for i := len(hashes); i < benchListed; i++ {
		hashes = append(hashes, sha256.Sum256(endian.BigEndian.AppendUint64(nil, uint64(i))))
	}
	list := l.shard("bench-list", particle.MarshalList(hashes))
	guest := l.member(particle.TierGuest, "visitor")
	l.grant(guest, func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &list })
	free, bound := l.operator.token(l.lab, ""), guest.token(l.lab, "")
	for _, name := range []string{"bench-some", "bench-many"} {
		b.Run(name+", warm", func(b *testing.B) { l.warm(b, name, free, bound) })
	}
	b.Run("bench-many, cold", func(b *testing.B) { l.cold(b, "bench-many", free, many) })
}

func (l *ruledLab) warm(b *testing.B, name, free, bound string) {
	path := indexPath(name)
	body, _ := fetched(b, l.url+path, bound)
	unfiltered := asking(l.url, path, http.StatusOK, "Authorization", free)
	filtered := asking(l.url, path, http.StatusOK, "Authorization", bound)
	const n = 10_000
	var rate, cpu series
	for b.Loop() {
		rate, cpu = nil, nil
		load(b, l.url, filtered, n/4)
		load(b, l.url, unfiltered, n/4)
		for range benchRounds {
			plain, plainCPU := l.timed(b, func() time.Duration { return load(b, l.url, unfiltered, n) })
			took, tookCPU := l.timed(b, func() time.Duration { return load(b, l.url, filtered, n) })
			rate, cpu = append(rate, float64(plain)/float64(took)), append(cpu, float64(tookCPU)/float64(plainCPU))
		}
	}
	say(b, "index GET under a grant of %d hashes, warm, %d bytes", benchListed, len(body))
	machine(b)
	against(b, "requests/s, of those without grant", rate, 0.95, false)
	say(b, "  %-34s %s", "CPU, of the same", cpu)
}

// timed is how long do says that it took, and the server's CPU time meanwhile.
func (l *ruledLab) timed(b *testing.B, do func() time.Duration) (took, cpu time.Duration) {
	b.Helper()
	before := l.process().cpu(b)
	took = do()
	return took, l.process().cpu(b) - before
}

func (l *ruledLab) cold(b *testing.B, name, free string, versions [][32]byte) {
	path := indexPath(name)
	var requests []request
	for _, token := range l.grantedHosts(b, benchGrants, versions) {
		requests = append(requests, asking(l.url, path, http.StatusOK, "Authorization", token))
	}
	unfiltered := asking(l.url, path, http.StatusOK, "Authorization", free)
	var ratio, each series
	for b.Loop() {
		ratio, each = nil, nil
		l.rotate(b, requests)
		for range benchRounds {
			_, plain := l.timed(b, func() time.Duration { return load(b, l.url, unfiltered, len(requests)) })
			_, cold := l.timed(b, func() time.Duration { return l.rotate(b, requests) })
			ratio, each = append(ratio, float64(cold)/float64(plain)), append(each, float64(cold.Microseconds())/float64(len(requests)))
		}
	}
	say(b, "index GET of a file of %d versions, %d grants of every other one taking turns, cache of %s MiB", len(versions), len(requests), benchCacheMB)
	machine(b)
	say(b, "  %-34s %s", "µs of CPU per request, cold", each)
	say(b, "  %-34s %s", "CPU, of those without grant, warm", ratio)
	say(b, "  %-34s %d MiB", "memory of the server at most", memory(b, l.lab, "VmHWM")>>20)
	b.ReportMetric(0, "ns/op")
}

// rotate asks each once, over a few connections.
func (l *ruledLab) rotate(b *testing.B, requests []request) time.Duration {
	b.Helper()
	var next atomic.Int64
	var clients sync.WaitGroup
	start := time.Now()
	for range benchClients {
		clients.Go(func() {
			err := askEach(strings.TrimPrefix(l.url, "http://"), func() (request, bool) {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return request{}, false
				}
				return requests[i], true
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	clients.Wait()
	return time.Since(start)
}

// grantedHosts admits n hosts with a grant of every other version each, so that
// their views are not the file, and returns a session of each.
func (l *ruledLab) grantedHosts(b *testing.B, n int, versions [][32]byte) []string {
	b.Helper()
	var tokens, half []string
	for i := 0; i < len(versions); i += 2 {
		half = append(half, hex.EncodeToString(versions[i][:]))
	}
	issuer := l.grantor.identity().DID()
	for range n {
		key, err := did.GenerateEd25519(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		host := key.Public().DID()
		l.operator.submit(client.Draft{Subject: record.MemberSubject(host), Body: &record.Member{Roles: []string{"visitor"}, Tier: particle.TierGuest, StakeholderAddrs: []string{}}})
		now := time.Now()
		raw, err := particle.EnvGrant{
			Registry: l.origin, Issuer: issuer, Subject: host, NotBefore: particle.At(now.Add(-time.Minute)), Expires: particle.At(now.Add(time.Hour)),
			AllowedCrates: half, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
		}.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		l.grantor.submit(grantDraft(raw))
		tokens = append(tokens, l.sessionOf(b, key))
	}
	return tokens
}

// sessionOf is a read session of half an hour for whoever has key.
func (l *ruledLab) sessionOf(b *testing.B, key did.PrivateKey) string {
	b.Helper()
	host, word, now := key.Public().DID(), make([]byte, 16), time.Now()
	rand.Read(word)
	signed, err := policy.SignAssertion(policy.Assertion{
		Issuer: host, Subject: host, Audience: l.url + "/v1/session", IssuedAt: now.Unix(), Expiry: now.Add(policy.MaxAssertion).Unix(),
		ID: hex.EncodeToString(word), Scope: particle.ScopeRead, Lifetime: int64(policy.MaxSession / time.Second),
	}, did.EdDSA, key.Signer(key.Public().URL()))
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.PostForm(l.url+"/v1/session", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {signed}})
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	var session struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &session); err != nil || session.Token == "" {
		b.Fatalf("%d %v: %s", resp.StatusCode, err, body)
	}
	return session.Token
}

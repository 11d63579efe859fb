package server

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// newHost is somebody new in a tier.
func (l *lab) newHost(tier string, roles ...string) did.PrivateKey {
	l.t.Helper()
	key := must(did.GenerateEd25519(rand.Reader))
	l.admitTo(tier, key, roles...)
	return key
}

// allowing lists all crates.
func allowing(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} }

// read is the JSON of an answer.
func read[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	r.want(t, http.StatusOK)
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	return v
}

type grantsAnswer struct {
	Grants []grantJSON `json:"grants"`
	Next   string      `json:"next"`
}

func TestGrantsSayWhetherTheyAreInForce(t *testing.T) {
	l := newLab(t)
	l.admitBound()
	grantor, host := l.newHost(particle.TierCoreStakeholder, "grantor"), l.newHost(particle.TierGuest, "builder")
	token := l.session(host, "read")
	plain := l.grant(host, nil)
	old := l.grant(host, func(g *particle.EnvGrant) { g.MaxDiskMB = 1 })
	next := l.grant(host, func(g *particle.EnvGrant) { g.Supersedes = &old })
	revoked := l.grant(host, func(g *particle.EnvGrant) { g.MaxDiskMB = 2 })
	l.submit(l.admin, record.GrantSubject(revoked), &record.Revoke{Reason: "a mistake"})
	later := l.grant(host, func(g *particle.EnvGrant) { g.NotBefore = particle.At(time.Now().Add(time.Hour)) })
	soon := l.grant(host, func(g *particle.EnvGrant) { g.Expires = particle.At(time.Now().Add(time.Minute)) })
	lost := l.grantBy(grantor, host, nil)
	l.submit(l.admin, record.MemberSubject(didOf(grantor)), &record.Member{Roles: []string{"publisher"}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	l.ahead.Store(int64(2 * time.Minute))

	why := map[storage.CID]string{
		plain: "", next: "", old: "superseded by " + next.String(), revoked: "revoked by", later: "not before", soon: "expired", lost: "its issuer",
	}
	answer := read[grantsAnswer](t, l.get("/v1/grants?subject="+url.QueryEscape(string(didOf(host))), token))
	if len(answer.Grants) != len(why) || answer.Next != "" {
		t.Fatalf("%d grants: %+v", len(answer.Grants), answer)
	}
	for _, g := range answer.Grants {
		if reason, ok := why[g.CID]; !ok || !strings.HasPrefix(g.Why, reason) || (reason == "") != (g.Why == "") || g.InForce != (reason == "") || g.Revoked != (g.CID == revoked) {
			t.Errorf("%s: %+v", reason, g)
		}
	}
	for query, want := range map[string][]storage.CID{
		"?in_force=true": {plain, next, l.offshoreGrant()}, "?in_force=true&subject=" + url.QueryEscape(string(didOf(host))): {plain, next},
		"?in_force=false&subject=" + url.QueryEscape(string(didOf(l.admin))): nil, "?subject=" + url.QueryEscape(string(didOf(l.offshore))): {l.offshoreGrant()},
	} {
		var got []string
		for _, g := range read[grantsAnswer](t, l.get("/v1/grants"+query, token)).Grants {
			got = append(got, g.CID.String())
		}
		if !slices.Equal(got, inOrder(want)) {
			t.Errorf("%s: %v, not %v", query, got, inOrder(want))
		}
	}
	whole := read[struct {
		grantJSON
		Grant particle.EnvGrant `json:"grant"`
	}](t, l.get("/v1/grants/"+old.String(), token))
	if whole.CID != old || *whole.SupersededBy != next || whole.Grant.MaxDiskMB != 1 || whole.Grant.Subject != didOf(host) {
		t.Errorf("%+v", whole)
	}
	blob := must(whole.Grant.Marshal())
	if storage.CIDOf(blob) != old {
		t.Error("what is told is not what was granted")
	}
	l.get("/v1/records/"+string(whole.Record)+"/attachments/"+old.String(), token).want(t, 200)
	for path, status := range map[string]int{
		"/v1/grants/" + storage.CIDOf([]byte("none")).String(): 404, "/v1/grants/zz": 404, "/v1/grants?in_force=yes": 400, "/v1/grants?subject=me": 400,
		"/v1/grants?limit=0": 400, "/v1/grants?limit=1001": 400, "/v1/grants?after=zz": 400,
	} {
		l.get(path, token).want(t, status)
	}
}

// offshoreGrant is the grant of the lab's offshore host.
func (l *lab) offshoreGrant() storage.CID {
	return read[grantsAnswer](l.t, l.get("/v1/grants?subject="+url.QueryEscape(string(didOf(l.offshore))), l.session(l.admin, "read"))).Grants[0].CID
}

func inOrder(ids []storage.CID) (texts []string) {
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	slices.Sort(texts)
	return texts
}

func TestGrantsAreTurnedOver(t *testing.T) {
	l := newLab(t)
	hosts := []did.PrivateKey{l.newHost(particle.TierGuest, "builder"), l.newHost(particle.TierGuest, "builder")}
	for n := range 9 {
		l.grant(hosts[n%2], func(g *particle.EnvGrant) { g.MaxDiskMB = int64(n) })
	}
	token := l.session(l.member, "read")
	for _, query := range []string{"", "&in_force=true", "&subject=" + url.QueryEscape(string(didOf(hosts[0]))), "&in_force=true&subject=" + url.QueryEscape(string(didOf(hosts[0])))} {
		want := len(read[grantsAnswer](t, l.get("/v1/grants?limit=1000"+query, token)).Grants)
		seen := map[storage.CID]bool{}
		for after, pages := "", 0; ; pages++ {
			page := read[grantsAnswer](t, l.get("/v1/grants?limit=2"+query+"&after="+after, token))
			for _, g := range page.Grants {
				seen[g.CID] = true
			}
			if after = page.Next; after == "" {
				break
			}
			if len(page.Grants) != 2 || pages > 10 {
				t.Fatalf("page %d: %+v", pages, page)
			}
		}
		if len(seen) != want || want < 5 {
			t.Errorf("%q: %d grants on pages, %d at once", query, len(seen), want)
		}
	}
}

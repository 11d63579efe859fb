package server

import (
	"net/http"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// Who wants only what is here already has nobody asked for it, and is told 504 where that is
// nothing: whatever is there that they may not know of.
func TestOnlyIfCachedAsksNoUpstream(t *testing.T) {
	l := newLab(t)
	l.admitBound()
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0")
	token := l.session(l.member, "read")
	const index = "/index/re/mo/remote"
	only := func(path, token string) reply {
		return l.getWith(path, token, "Cache-Control", "no-transform, Only-If-Cached")
	}
	for _, base := range []string{"/crates-io", "/upstream/lab"} {
		only(base+"/index/config.json", token).want(t, 200)
		only(base+index, token).want(t, 504, "only-if-cached")
		only(remoteDL(base), token).want(t, 504, "only-if-cached")
	}
	if len(l.upstreams.asked) > 0 {
		t.Fatalf("asked: %v", l.upstreams.asked)
	}

	l.get("/crates-io"+index, token).want(t, 200)
	asked := len(l.upstreams.asked)
	file := only("/crates-io"+index, token).want(t, 200)
	if string(file.body) != l.upstreams.files["remote"] {
		t.Errorf("not what is known: %s", file)
	}
	unheld := only(remoteDL("/crates-io"), token).want(t, 504)
	l.do(ask{method: http.MethodHead, path: remoteDL("/crates-io"), token: token, header: http.Header{"Cache-Control": {"only-if-cached"}}}).want(t, 504)
	only("/upstream/lab"+index, token).want(t, 504)
	offshore := l.token(offshore, particle.ScopeRead, nil)
	hidden, unknown := only("/crates-io"+index, offshore).want(t, 504), only("/crates-io/index/no/ne/none", offshore).want(t, 504)
	if string(hidden.body) != string(unknown.body) || string(unheld.body) != string(unknown.body) {
		t.Errorf("what is hidden looks like %s, what there is not like %s", hidden, unknown)
	}
	only(remoteDL("/crates-io"), offshore).want(t, 504)
	only("/crates-io"+index, "").want(t, 401)
	if len(l.upstreams.asked) != asked {
		t.Errorf("asked: %v", l.upstreams.asked[asked:])
	}

	crate := crateFile("remote", "1.0.0")
	if _, err := l.upstreams.Hold(t.Context(), "crates-io", UpstreamCrate{Name: "remote", Version: "1.0.0", ID: storage.CIDOf(crate)}); err != nil {
		t.Fatal(err)
	}
	asked = len(l.upstreams.asked)
	if r := only(remoteDL("/crates-io"), token).want(t, 200); string(r.body) != string(crate) || len(l.upstreams.asked) != asked {
		t.Errorf("%s; asked: %v", r, l.upstreams.asked[asked:])
	}
}

// A held crate that a rule looks into is judged by what it holds, and a denied one refused.
func TestOnlyIfCachedIsJudgedLikeAnyOther(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	l.upstreams.offer("bad", "1.0.0")
	l.quarantine("bad", func(q *particle.QuarantineRule) {
		q.Match[0].Names, q.Match[0].Sources = []string{"bad"}, []string{particle.SourceCratesIO}
	})
	token := l.session(l.member, "read")
	bad := "/crates-io/dl/bad/1.0.0/" + hashOf(crateFile("bad", "1.0.0"))
	l.get(bad, token).want(t, 403)
	l.getWith(bad, token, "Cache-Control", "only-if-cached").want(t, 403, "it was looked at")
	l.get(remoteDL("/crates-io"), token).want(t, 200) // fetched, and looked into
	l.getWith(remoteDL("/crates-io"), token, "Cache-Control", "only-if-cached").want(t, 200)
}

// The bundle of a crate of an upstream is its import records with what they saw, for members
// who may know of all that these tell.
func TestBundlesOfUpstreamsCrates(t *testing.T) {
	l := newLab(t)
	l.admitBound()
	l.upstreams.offer("remote", "1.0.0", "1.1.0")
	token := l.session(l.member, "read")
	const bundle = "/v1/artifacts/crate/remote/1.0.0/bundle"
	l.get(bundle+"?source=crates-io", token).want(t, 404)
	if len(l.upstreams.asked) > 0 {
		t.Fatalf("asked: %v", l.upstreams.asked)
	}
	l.get("/crates-io/index/re/mo/remote", token).want(t, 200)
	l.get(bundle+"?source=crates-io", token).want(t, 200, `"attachments":["`)
	l.get(bundle+"?source=upstream/lab", token).want(t, 404)
	l.get(bundle, token).want(t, 404)
	l.get(bundle+"?source=mirror/x", token).want(t, 400)
	l.get("/v1/artifacts/manifest/remote/1.0.0/bundle?source=crates-io", token).want(t, 400)
	l.get("/v1/artifacts/crate/remote/9.0.0/bundle?source=crates-io", token).want(t, 404)
	l.get(bundle+"?source=crates-io", l.token(offshore, particle.ScopeRead, nil)).want(t, 404)
	l.get(bundle+"?source=crates-io", "").want(t, 401)
}

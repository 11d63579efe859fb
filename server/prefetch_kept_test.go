package server

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What a lock names and is not to be had is noted, with why, until it is held; what it no longer
// names is forgotten. Nobody is told of it who may not know of it.
func TestWhatALockLacksIsNoted(t *testing.T) {
	l := newLab(t)
	l.admitBound()
	for _, name := range []string{"remote", "bad", "later"} {
		l.upstreams.offer(name, "1.0.0")
	}
	l.quarantine("bad", func(q *particle.QuarantineRule) {
		q.Match[0].Names, q.Match[0].Sources = []string{"bad"}, []string{particle.SourceCratesIO}
	})
	crate := func(name string) string {
		return `{"name":"` + name + `","version":"1.0.0","checksum":"` + hashOf(crateFile(name, "1.0.0")) + `"}`
	}
	token := l.session(l.member, "publish read")
	post := func(body string) map[string]string {
		return outcomes(t, l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(body)}).want(t, 200))
	}
	lacks := func(want string) {
		t.Helper()
		if got := strings.TrimSpace(string(l.get("/v1/locks/ci/main", token).want(t, 200).body)); got != `{"lock":"ci/main","lacking":[`+want+`],"denied":[]}` {
			t.Errorf("it lacks %s", got)
		}
	}
	const (
		bad    = `{"upstream":"crates-io","name":"bad","version":"1.0.0","why":"denied"}`
		later  = `{"upstream":"crates-io","name":"later","version":"1.0.0","why":""}`
		none   = `{"upstream":"crates-io","name":"none","version":"1.0.0","why":"absent"}`
		nobody = `{"upstream":"crates-io","name":"nobody","version":"","why":"absent"}`
	)
	post(`{"lock":"ci/main","crates":[` + crate("remote") + `,` + crate("bad") + `,{"name":"none","version":"1.0.0"}],"lacking":[` + crate("later") + `]}`)
	lacks(bad + "," + later + "," + none)
	l.get("/v1/locks", token).want(t, 200, `"pins":1,`, `"lacking":3,`)

	// The next part of the list, and all versions of what is not there.
	post(`{"lock":"ci/main","crates":[` + crate("later") + `],"all_versions_of":["nobody"]}`)
	lacks(bad + "," + nobody + "," + none)
	l.upstreams.offer("nobody", "1.0.0")
	l.upstreams.offer("none", "1.0.0")
	post(`{"lock":"ci/main","crates":[{"name":"none","version":"1.0.0"}],"all_versions_of":["nobody"]}`)
	lacks(bad)
	l.get("/v1/locks", token).want(t, 200, `"pins":4,`, `"lacking":1,`)

	// All versions of a crate lack until the last was asked for.
	const more = `{"upstream":"crates-io","name":"more","version":"","why":""}`
	l.upstreams.offer("many", "1.0.0", "2.0.0")
	unasked := map[string]bool{}
	l.upstreams.during = func() { // as it stays where the list is cut
		noted, err := l.registry.Catalog.UpstreamLacks(t.Context(), catalog.UpstreamLack{Lock: "ci/main"}, 10)
		for _, n := range noted {
			unasked[n.Name+n.Version+n.Why] = true
		}
		if err != nil {
			t.Error(err)
		}
	}
	post(`{"lock":"ci/main","all_versions_of":["many"],"lacking":[` + crate("bad") + `,{"name":"more","version":""}]}`)
	l.upstreams.during = nil
	if !unasked["many"] || !unasked["more"] || !unasked["bad1.0.0"] {
		t.Errorf("noted before anything was asked for are %v", unasked)
	}
	lacks(strings.Replace(bad, "denied", "", 1) + "," + more)
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main", token: token}).want(t, 200)
	post(`{"lock":"ci/main","crates":[` + crate("bad") + `,` + crate("remote") + `,` + crate("later") + `,{"name":"none","version":"1.0.0"}],"all_versions_of":["nobody"]}`)
	lacks(bad)

	// Others are told as far as they may know.
	l.get("/v1/locks/ci/main", l.session(l.admin, "read")).want(t, 200, bad)
	if r := l.get("/v1/locks/ci/main", l.token(offshore, particle.ScopeRead, nil)).want(t, 200); strings.Contains(string(r.body), "bad") {
		t.Errorf("a host from which crates are hidden is told: %s", r)
	}
	l.get("/v1/locks/ci%20main", token).want(t, 404)
	l.get("/v1/locks/other", token).want(t, 200, `"lacking":[]`)
	settings := l.registry.Settings().Registry
	settings.PrivateNames = []string{"bad"}
	l.submit(l.admin, record.RegistrySubject(), &settings)
	lacks("")
	settings.PrivateNames = []string{}
	l.submit(l.admin, record.RegistrySubject(), &settings)
	lacks(bad)

	// Without a name nothing is noted, and a list in place of the one before forgets.
	post(`{"crates":[` + crate("bad") + `],"lacking":[` + crate("later") + `]}`)
	lacks(bad)
	post(`{"lock":"ci/main","crates":[` + crate("remote") + `],"lacking":[]}`)
	lacks("")
	post(`{"lock":"ci/main","crates":[` + crate("bad") + `]}`)
	lacks(bad)
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main", token: token}).want(t, 200, `{"unpinned":5}`)
	lacks("")
	// What it keeps and a rule denies since is told apart, as far as it is held.
	post(`{"lock":"ci/main","crates":[` + crate("remote") + `,` + crate("later") + `]}`)
	b := catalog.UpstreamBlob{CID: storage.CIDOf(crateFile("remote", "1.0.0")), Upstream: "crates-io", Name: "remote", Version: "1.0.0", Size: 1, Used: time.Unix(1_800_000_000, 0)}
	err := l.registry.Catalog.Update(t.Context(), func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(t.Context(), []catalog.UpstreamBlob{b}) })
	if err != nil {
		t.Fatal(err)
	}
	l.get("/v1/locks", token).want(t, 200, `"held":1,`, `"denied":0}`)
	l.quarantine("later", func(q *particle.QuarantineRule) {
		q.Match[0].Names, q.Match[0].Sources = []string{"remote"}, []string{particle.SourceCratesIO}
	})
	l.get("/v1/locks", token).want(t, 200, `"held":1,`, `"denied":1}`)
	l.get("/v1/locks/ci/main", token).want(t, 200, `"denied":[{"upstream":"crates-io","name":"remote","version":"1.0.0","why":"quarantine later"}]`)
	l.get("/v1/locks", l.token(offshore, particle.ScopeRead, nil)).want(t, 200, `"denied":0}`)
	l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(`{"lock":"ci","crates":[` + crate("bad") + `],"lacking":[{"name":"x","version":"1.0.0","checksum":"1"}]}`)}).want(t, 400)
}

// Names that keep very much end a page of them early, held or not, since all of it is looked at.
func TestALargeLockEndsAPage(t *testing.T) {
	l := newLab(t)
	for _, lock := range []string{"a", "b"} {
		var ids []storage.CID
		for n := range 4000 {
			ids = append(ids, storage.CIDOf(fmt.Append(nil, n)))
		}
		if err := l.registry.Catalog.PinUpstream(t.Context(), lock, "did:key:a", ids, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	token := l.session(l.member, "read")
	if r := l.get("/v1/locks", token).want(t, 200, `"lock":"a"`, `"next":"a"`); strings.Contains(string(r.body), `"lock":"b"`) {
		t.Errorf("one page: %s", r)
	}
	l.get("/v1/locks?after=a", token).want(t, 200, `"lock":"b"`, `"next":""`)
}

// What is no crate's name or version lacks for ever, and keeps nothing else of its list from being kept.
func TestWhatIsNoCrateKeepsNothingElseFromBeingKept(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	hash := hashOf(crateFile("remote", "1.0.0"))
	token := l.session(l.member, "publish read")
	body := `{"lock":"ci","crates":[{"name":"","version":"1.0.0"},{"name":"a b","version":"1.0.0","checksum":"` + hash + `"},` +
		`{"name":"none","version":"\u0000"},{"name":"remote","version":"1.0.0","checksum":"` + hash + `"}],` +
		`"lacking":[{"name":"","version":"1.0.0","checksum":"` + hash + `"}]}`
	l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(body)}).want(t, 200, `"error":""`, `"pinned":1`)
	l.get("/v1/locks", token).want(t, 200, `"pins":1,`, `"lacking":0,`)
}

// A list of all versions of a crate that is cut in the middle is not told to be whole.
func TestAllVersionsOfACrateLackUntilAllWereTried(t *testing.T) {
	l := newLab(t)
	var versions []string
	for n := range pinBatch + 1 {
		versions = append(versions, fmt.Sprintf("1.0.%d", n))
	}
	l.upstreams.offer("many", versions...)
	last, goOn := crateFile("many", versions[pinBatch]), make(chan struct{})
	l.upstreams.crates[storage.CIDOf(last)] = []part{{data: string(last), wait: goOn}}
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	token, done := l.session(l.member, "publish read"), make(chan reply, 1)
	go func() {
		done <- l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(`{"lock":"ci","all_versions_of":["many"]}`)})
	}()
	eventually(t, func() bool {
		return strings.Contains(string(l.get("/v1/locks", token).want(t, 200).body), fmt.Sprintf(`"pins":%d`, pinBatch))
	})
	l.get("/v1/locks/ci", token).want(t, 200, `"lacking":[{"upstream":"crates-io","name":"many","version":"","why":""}]`)
	release()
	(<-done).want(t, 200, `"error":""`)
	l.get("/v1/locks", token).want(t, 200, fmt.Sprintf(`"pins":%d`, pinBatch+1), `"lacking":0,`)
}

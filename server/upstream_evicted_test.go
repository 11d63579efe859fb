package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

// What has to be looked into before it is sent, and is evicted before that, is fetched again;
// whoever asks gets it.
func TestWhatIsEvictedBeforeItIsLookedIntoIsFetchedAgain(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	l.upstreams.offer("other", "1.0.0")
	evictions := 0
	if _, err := l.upstreams.Hold(t.Context(), cratesIO, UpstreamCrate{"remote", "1.0.0", storage.CIDOf(crateFile("remote", "1.0.0"))}); err != nil {
		t.Fatal(err)
	}
	l.upstreams.evict = func(UpstreamCrate) bool { evictions++; return evictions%mostLooks != 0 }
	read, publish := l.session(l.member, "read"), l.session(l.member, "publish read")
	if got := l.get(remoteDL("/crates-io"), read).want(t, 200); string(got.body) != string(crateFile("remote", "1.0.0")) || evictions != 1 {
		t.Errorf("%d bytes after %d evictions", len(got.body), evictions)
	}
	evictions = 0
	list := `{"crates":[{"name":"other","version":"1.0.0"}]}`
	answer := l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: publish, body: []byte(list)}).want(t, 200)
	if got := outcomes(t, answer); got["other@1.0.0"] != prefetchFetched || evictions != mostLooks {
		t.Errorf("%v after %d evictions", got, evictions)
	}
}

// What has to be looked into and rots before that is fetched again, too; who wants only what is
// held has nobody asked for it.
func TestWhatRotsBeforeItIsLookedIntoIsFetchedAgain(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	rotten := 0
	rot := func(of UpstreamCrate) bool {
		if rotten++; rotten > 1 {
			return false
		}
		name := of.ID.String()
		if err := os.WriteFile(filepath.Join(l.folder, "store", "blobs", name[len(name)-3:len(name)-1], name), []byte("rotten"), 0o600); err != nil {
			t.Error(err)
		}
		return false
	}
	l.upstreams.evict = rot
	publish := l.session(l.member, "publish read")
	list := `{"crates":[{"name":"remote","version":"1.0.0"}]}`
	answer := l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: publish, body: []byte(list)}).want(t, 200)
	if got := outcomes(t, answer); got["remote@1.0.0"] != prefetchFetched || rotten != 2 {
		t.Errorf("%v, held %d times", got, rotten)
	}
	rotten = 0
	rot(UpstreamCrate{ID: storage.CIDOf(crateFile("remote", "1.0.0"))})
	asked := len(l.upstreams.asked)
	l.do(ask{method: http.MethodGet, path: remoteDL("/crates-io"), token: publish, header: http.Header{"Cache-Control": {"only-if-cached"}}}).want(t, 504)
	if got := l.upstreams.asked[asked:]; len(got) > 0 {
		t.Errorf("upstream was asked for %q", got)
	}
	if got := l.get(remoteDL("/crates-io"), publish).want(t, 200); string(got.body) != string(crateFile("remote", "1.0.0")) {
		t.Errorf("%d bytes", len(got.body))
	}
}

// What prefetch pins is held then, though it was evicted before it was pinned.
func TestWhatIsPinnedIsHeld(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0")
	evictions := 0
	l.upstreams.evict = func(UpstreamCrate) bool { evictions++; return evictions == 1 }
	token := l.session(l.member, "publish read")
	list := `{"lock":"ci","crates":[{"name":"remote","version":"1.0.0"}]}`
	answer := l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(list)}).want(t, 200)
	if got := outcomes(t, answer); got["done"] != "of 1 held 0 fetched 1 denied 0 absent 0 failed 0 pinned 1 " || evictions != 2 || !l.upstreams.held[storage.CIDOf(crateFile("remote", "1.0.0"))] {
		t.Errorf("%v after %d evictions", got, evictions)
	}
}

// What cannot be kept for some minutes is looked into as it comes, and sent; what is wrong
// inside is found all the same, and who wants it kept is told when.
func TestWhatCannotBeKeptYetIsLookedIntoAsItComes(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	l.upstreams.unheld = fmt.Errorf("%w: in 12m they can be stored again", registry.ErrRemoving)
	token := l.session(l.member, "publish read")
	if got := l.get(remoteDL("/crates-io"), token).want(t, 200); string(got.body) != string(crateFile("remote", "1.0.0")) {
		t.Errorf("%d bytes", len(got.body))
	}
	cut := storage.CIDOf(crateFile("other", "1.0.0"))
	l.upstreams.offer("other", "1.0.0")
	l.upstreams.crates[cut] = []part{{data: "\x1f"}, {err: fmt.Errorf("crates-io: %w", ErrUpstreamBroken)}}
	path := "/crates-io/dl/other/1.0.0/" + cut.Hex()
	l.get(path, token).want(t, 502)
	l.upstreams.offer("other", "1.0.0") // what was cut has left no finding
	l.get(path, token).want(t, 200)
	answer := l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(`{"crates":[{"name":"remote","version":"1.0.0"}]}`)}).want(t, 200, "in 12m")
	if got := outcomes(t, answer); got["remote@1.0.0"] != prefetchFailed {
		t.Errorf("%v", got)
	}
}

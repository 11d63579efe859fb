package server

import (
	"io"
	"net/http"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// What upstream sends a few bytes at a time goes on a few bytes at a time, also by a proxy that
// would wait for more: cargo gives up on who says nothing for half a minute.
func TestWhatUpstreamSendsSlowlyGoesOnAtOnce(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0")
	crate := string(crateFile("remote", "1.0.0"))
	gate := make(chan struct{})
	l.upstreams.crates[storage.CIDOf([]byte(crate))] = []part{{data: crate[:100]}, {data: crate[100:], wait: gate}}
	request := must(http.NewRequest(http.MethodGet, l.url+remoteDL("/crates-io"), nil))
	request.Header.Set("Authorization", l.session(l.member, "read"))
	began := make(chan *http.Response, 1)
	go func() {
		if resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request); err == nil {
			began <- resp
		}
	}()
	select {
	case resp := <-began:
		defer resp.Body.Close()
		if resp.Header.Get("X-Accel-Buffering") != "no" {
			t.Errorf("nginx is not told: %v", resp.Header)
		}
		first := make([]byte, 100)
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != crate[:100] {
			t.Errorf("%q, %v", first, err)
		}
		close(gate)
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != crate[100:] {
			t.Errorf("%d bytes more, %v", len(rest), err)
		}
	case <-time.After(20 * time.Second):
		close(gate)
		t.Fatal("nothing is sent before all is there")
	}
	if r := l.do(prefetchingRemote(l, member)); r.header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("prefetch: %s", r)
	}
	if r := l.get("/crates-io/index/re/mo/remote", l.session(l.member, "read")).want(t, 200); r.header.Get("X-Accel-Buffering") != "" {
		t.Errorf("what is whole may be kept: %v", r.header)
	}
}

// Who has a crate locked that is not held is told that nobody is asked for it: there may be one.
func TestOfflineIsToldToWhoHasACrateLocked(t *testing.T) {
	upstreams := newFakeUpstreams()
	upstreams.offline, upstreams.down = true, registry.ErrNotFound
	l := newLabWith(t, upstreams)
	token := l.session(l.member, "read")
	const says = "it is not held, and this registry is offline"
	a := l.get(remoteDL("/crates-io"), token).want(t, 404, says)
	l.submitPrivate("secret-")
	b := l.get("/crates-io/dl/secret-one/1.0.0/"+hashOf(nil), token).want(t, 404, says)
	if string(a.body) != string(b.body) {
		t.Errorf("a private name is told otherwise:\n%s\n%s", a.body, b.body)
	}
}

// submitPrivate makes names that begin so private.
func (l *lab) submitPrivate(prefix string) {
	l.t.Helper()
	settings := l.registry.Settings().Registry
	settings.PrivateNames = []string{prefix}
	l.submit(l.admin, record.RegistrySubject(), &settings)
}

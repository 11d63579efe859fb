package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// Who has all their downloads under way is told at once to come again, and nobody
// else is; what is in memory needs no place.
func TestDownloadsOfOneAskerLeaveOthersRoom(t *testing.T) {
	l := newLab(t, anonymous)
	for name, size := range map[string]int{"small": 100, "large": 9 << 20} { // too large for memory
		l.put(l.owner, record.KindEvidenceBundle, name, "1.0.0", []byte(strings.Repeat("x", size))).want(t, 200)
	}
	s := newServer(Config{Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now})
	handler := s.routes()
	get := func(name, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("/v1/artifacts/evidence-bundle/%s/1.0.0/content", name), nil)
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	member, owner := l.session(l.member, "read"), l.session(l.owner, "read")
	if w := get("small", owner); w.Code != http.StatusOK { // into memory
		t.Fatalf("HTTP %d: %s", w.Code, w.Body)
	}
	for who, asker := range map[string]did.DID{member: didOf(l.member), "": unnamed} {
		var taken []func()
		for range maxDownloadsEach {
			taken = append(taken, must(s.downloads.take(t.Context(), asker)))
		}
		begin := time.Now()
		w := get("large", who)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || time.Since(begin) > downloadWait {
			t.Errorf("%q: one download more: HTTP %d after %s", asker, w.Code, time.Since(begin))
		}
		if w := get("small", who); w.Code != http.StatusOK {
			t.Errorf("%q: from memory: HTTP %d", asker, w.Code)
		}
		if w := get("large", owner); w.Code != http.StatusOK || w.Body.Len() != 9<<20 {
			t.Errorf("another's download: HTTP %d, %d bytes", w.Code, w.Body.Len())
		}
		for _, release := range taken {
			release()
		}
		if w := get("large", who); w.Code != http.StatusOK {
			t.Errorf("%q: when there is room again: HTTP %d", asker, w.Code)
		}
	}
	s.downloads.wait = 10 * time.Millisecond // with all places taken nobody waits for long
	var all []func()
	for i := range maxDownloads {
		all = append(all, must(s.downloads.take(t.Context(), did.DID(fmt.Sprint("did:key:", i)))))
	}
	if w := get("large", owner); w.Code != http.StatusServiceUnavailable || s.downloads.turnedAway.Load() != 3 {
		t.Errorf("one download more than all: HTTP %d; %d were turned away", w.Code, s.downloads.turnedAway.Load())
	}
	for _, release := range all {
		release()
	}
	if len(s.downloads.free) != 0 || len(s.downloads.taken) != 0 {
		t.Errorf("places are not given back: %d, %v", len(s.downloads.free), s.downloads.taken)
	}
}

package server

import (
	"context"
	"errors"
	"fmt"
	"github.com/go-chi/chi/v5"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

func TestErrorsHaveTheirStatus(t *testing.T) {
	want := []struct {
		err    error
		status int
		shown  bool
	}{
		{registry.ErrNoRecord, 403, true}, {registry.ErrUnauthenticated, 401, true}, {registry.ErrNotFound, 404, true}, {errMethod, 405, true}, {errSlow, 408, true},
		{state.ErrMissing, 404, true}, {state.ErrNotEntitled, 403, true}, {state.ErrStale, 409, true}, {state.ErrTaken, 409, true},
		{state.ErrNoChange, 409, true}, {state.ErrInvalid, 400, true}, {record.ErrMalformed, 400, true}, {record.ErrUnknownType, 400, true},
		{registry.ErrTooLarge, 413, true}, {cargo.ErrTooLarge, 413, true}, {cargo.ErrForeignRegistry, 400, true}, {cargo.ErrName, 400, true}, {cargo.ErrVersion, 400, true},
		{cargo.ErrFrame, 400, true}, {cargo.ErrTarball, 400, true}, {cargo.ErrManifest, 400, true}, {registry.ErrRequest, 400, true},
		{storage.ErrFull, 507, false}, {fmt.Errorf("%w: %w", registry.ErrUnavailable, storage.ErrFull), 507, false},
		{registry.ErrUnpublished, 503, false}, {fmt.Errorf("%w: %v", registry.ErrUnpublished, storage.ErrFull), 503, false}, {errDraining, 503, true}, {errNotReady, 503, true},
		{context.Canceled, 503, false}, {context.DeadlineExceeded, 503, false}, {registry.ErrUnavailable, 503, false},
		{registry.ErrNoDatabase, 503, false}, {storage.ErrUnavailable, 503, false}, {registry.ErrRemoving, 503, true},
		{ErrHeldDamaged, 503, true}, {ErrUpstreamDown, 503, true}, {ErrUpstreamBusy, 503, true}, {ErrUpstreamRefused, 502, true}, {ErrUpstreamBroken, 502, true}, {notHeld{registry.ErrNotFound}, 504, true},
	}
	if len(want)-2 != len(table) { // two of them twice
		t.Errorf("%d errors are tested, the table has %d", len(want), len(table))
	}
	want = append(want, []struct {
		err    error
		status int
		shown  bool
	}{
		{&policy.Denial{Rule: policy.RuleAnonymous}, 401, true}, {&policy.Denial{Rule: policy.RuleScope}, 403, true},
		{&policy.Denial{Rule: policy.RuleMember}, 403, true}, {&http.MaxBytesError{Limit: 1}, 413, true},
		{fmt.Errorf("%w: %w", registry.ErrUnauthenticated, &policy.Denial{Rule: policy.RuleMember}), 401, true},
		{registry.ErrFork, 500, false}, {registry.ErrBehind, 500, false}, {errors.New("disk on fire at /secret/path"), 500, false},
	}...)
	for _, c := range want {
		for _, err := range []error{c.err, fmt.Errorf("doing something: %w", c.err)} {
			if out := classify(err); out.status != c.status || out.shown != c.shown || out.code == "" {
				t.Errorf("%v: %+v, want %d", err, out, c.status)
			}
		}
	}
	for _, row := range table {
		if row.status == http.StatusGone || row.status == http.StatusUnavailableForLegalReasons {
			t.Errorf("%v is answered by %d, which cargo does not take for not found", row.err, row.status)
		}
	}
}

// What is not for the asker goes to the operator's log, with the request's id.
func TestInnerErrorsAreNotShown(t *testing.T) {
	l := newLab(t)
	s := newServer(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now})
	for family, render := range map[string]renderer{"text/plain": asText, "application/json": asCargo, "application/json;": asJSON} {
		for status, err := range map[int]error{500: errors.New("disk on fire at /secret/path"), 503: fmt.Errorf("%w: /secret/path", registry.ErrUnavailable)} {
			w := httptest.NewRecorder()
			s.observe(chi.NewRouter(), s.handle(render, func(http.ResponseWriter, *http.Request) error { return err })).ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
			id := w.Header().Get("X-Request-Id")
			if w.Code != status || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), id) || id == "" {
				t.Errorf("%s: %d %s", family, w.Code, w.Body)
			}
			if !strings.HasPrefix(w.Header().Get("Content-Type"), strings.TrimSuffix(family, ";")) {
				t.Errorf("%s: %s", family, w.Header().Get("Content-Type"))
			}
			if status == 503 && w.Header().Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			if !strings.Contains(l.log.String(), "request="+id) {
				t.Error("the operator finds nothing under the request's id")
			}
		}
	}
	l.get("/healthz", "").want(t, 200, "ok")
}

type troubled time.Duration

func (t troubled) Error() string             { return "in trouble" }
func (t troubled) RetryAfter() time.Duration { return time.Duration(t) }

// Who is told to come again does so after what was said, and not all at once.
func TestRetryAfterIsABitLaterForEverybody(t *testing.T) {
	for wait, c := range map[time.Duration]struct{ least, most string }{
		0: {"2", "3"}, 10 * time.Second: {"10", "13"}, 10*time.Second + 1: {"11", "13"}, 40 * time.Second: {"40", "50"}, time.Hour: {"48", "60"},
	} {
		for random, want := range map[float64]string{0: c.least, 0.999: c.most} {
			if got := retryAfter(fmt.Errorf("upstream: %w", troubled(wait)), func() float64 { return random }); got != want {
				t.Errorf("of %s, %v: Retry-After %s, want %s", wait, random, got, want)
			}
		}
	}
	if got := retryAfter(errors.New("in trouble"), func() float64 { return 0.9 }); got != "2" {
		t.Errorf("of nothing said: %s", got)
	}
}

func TestPanicIsA500(t *testing.T) {
	l := newLab(t)
	s := newServer(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now})
	w := httptest.NewRecorder()
	s.observe(chi.NewRouter(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a secret") })).ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "a secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	l.get("/healthz", "").want(t, 200)
}

// Each family words a refusal in its own form: cargo shows plain text of the
// index and of downloads word for word, and JSON of its web API.
func TestRefusalsInTheFormOfTheirFamily(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	for path, want := range map[string]string{
		"/index/no/th/nothing":                  "not found\n",
		"/api/v1/crates/nothing/0.1.0/download": "not found: there is no crate/nothing@0.1.0\n",
		"/api/v1/crates/nothing/owners":         `{"errors":[{"detail":"not found: there is no crate named \"nothing\""}]}` + "\n",
		"/v1/artifacts/crate/nothing/0.1.0":     `{"error":{"code":"not-found","detail":"not found: there is no crate/nothing@0.1.0"}}` + "\n",
	} {
		if r := l.get(path, token).want(t, 404); string(r.body) != want {
			t.Errorf("%s: %q", path, r.body)
		}
	}
	if r := l.do(ask{method: http.MethodPost, path: "/index/config.json", token: token}); r.status != http.StatusMethodNotAllowed {
		t.Errorf("POST to the index: %s", r)
	}
}

// cargo shows the first half KiB of a refusal: the command that shows more has to be in it, also
// behind two digests.
func TestAdviceOfWrongBytesIsShortAndNamesTheirAlarm(t *testing.T) {
	if said := advice["upstream-broken"]; len(said) > 200 || !strings.Contains(said, "aln-registry upstream alarms UPSTREAM") {
		t.Errorf("%d bytes: %s", len(said), said)
	}
}

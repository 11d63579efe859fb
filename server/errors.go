package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// outcome is what an error means over HTTP.
type outcome struct {
	status int
	code   string
	// shown: the error's text is for the asker; otherwise only the request id is.
	shown bool
}

// codeUnpublished is the one refusal that may have changed something.
const codeUnpublished = "unpublished"

// errMethod: the path is there, but not for this method.
var errMethod = errors.New("this path does not take that method")

// table is the one place that turns errors into statuses; the first match wins.
// 410 and 451 are never sent: cargo takes only 404 for "not found".
var table = []struct {
	err error
	outcome
}{
	{registry.ErrNoRecord, outcome{http.StatusForbidden, "no-record", true}},
	{registry.ErrUnauthenticated, outcome{http.StatusUnauthorized, "unauthenticated", true}},
	{errSlow, outcome{http.StatusRequestTimeout, "slow", true}},
	{errMethod, outcome{http.StatusMethodNotAllowed, "method", true}},
	{errNotHeld, outcome{http.StatusGatewayTimeout, "not-held", true}}, // before what it stands for
	{registry.ErrNotFound, outcome{http.StatusNotFound, "not-found", true}},
	{state.ErrMissing, outcome{http.StatusNotFound, "not-found", true}},
	{state.ErrNotEntitled, outcome{http.StatusForbidden, "not-entitled", true}},
	{state.ErrStale, outcome{http.StatusConflict, "stale", true}},
	{state.ErrTaken, outcome{http.StatusConflict, "taken", true}},
	{state.ErrNoChange, outcome{http.StatusConflict, "no-change", true}},
	{state.ErrInvalid, outcome{http.StatusBadRequest, "refused", true}},
	{record.ErrMalformed, outcome{http.StatusBadRequest, "malformed-record", true}},
	{record.ErrUnknownType, outcome{http.StatusBadRequest, "unknown-record-type", true}},
	{registry.ErrTooLarge, outcome{http.StatusRequestEntityTooLarge, "too-large", true}},
	{cargo.ErrTooLarge, outcome{http.StatusRequestEntityTooLarge, "too-large", true}},
	{cargo.ErrForeignRegistry, outcome{http.StatusBadRequest, "foreign-registry", true}},
	{cargo.ErrName, outcome{http.StatusBadRequest, "crate-name", true}},
	{cargo.ErrVersion, outcome{http.StatusBadRequest, "crate-version", true}},
	{cargo.ErrFrame, outcome{http.StatusBadRequest, "publish-request", true}},
	{cargo.ErrTarball, outcome{http.StatusBadRequest, "crate-tarball", true}},
	{cargo.ErrManifest, outcome{http.StatusBadRequest, "crate-manifest", true}},
	{registry.ErrRequest, outcome{http.StatusBadRequest, "bad-request", true}},
	{registry.ErrUnpublished, outcome{http.StatusServiceUnavailable, codeUnpublished, false}},
	{ErrHeldDamaged, outcome{http.StatusServiceUnavailable, "held-damaged", true}},
	{ErrUpstreamDown, outcome{http.StatusServiceUnavailable, "upstream-down", true}},
	{ErrUpstreamBusy, outcome{http.StatusServiceUnavailable, "upstream-busy", true}},
	{ErrUpstreamRefused, outcome{http.StatusBadGateway, "upstream-refused", true}},
	{ErrUpstreamBroken, outcome{http.StatusBadGateway, "upstream-broken", true}},
	{errNotReady, outcome{http.StatusServiceUnavailable, "unavailable", true}},
	{errDraining, outcome{http.StatusServiceUnavailable, "draining", true}},
	{storage.ErrFull, outcome{http.StatusInsufficientStorage, "disk-full", false}},
	{context.Canceled, outcome{http.StatusServiceUnavailable, "canceled", false}},
	{context.DeadlineExceeded, outcome{http.StatusServiceUnavailable, "timeout", false}},
	{registry.ErrRemoving, outcome{http.StatusServiceUnavailable, "removing", true}},
	{registry.ErrUnavailable, outcome{http.StatusServiceUnavailable, "unavailable", false}},
	{registry.ErrNoDatabase, outcome{http.StatusServiceUnavailable, "unavailable", false}},
	{storage.ErrUnavailable, outcome{http.StatusServiceUnavailable, "unavailable", false}},
}

func classify(err error) outcome {
	var denial *policy.Denial
	if errors.As(err, &denial) {
		if denial.Rule == policy.RuleAnonymous || errors.Is(err, registry.ErrUnauthenticated) {
			return outcome{http.StatusUnauthorized, string(denial.Rule), true}
		}
		return outcome{http.StatusForbidden, string(denial.Rule), true}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return outcome{http.StatusRequestEntityTooLarge, "too-large", true}
	}
	for _, row := range table {
		if errors.Is(err, row.err) {
			return row.outcome
		}
	}
	return outcome{http.StatusInternalServerError, "internal", false}
}

// renderer writes a refusal in the form that a family of routes promises.
type renderer func(w http.ResponseWriter, status int, code, detail string)

func asText(w http.ResponseWriter, status int, _, detail string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(detail + "\n"))
}

// asCargo is the error form of Cargo's web API.
func asCargo(w http.ResponseWriter, status int, _, detail string) {
	type item struct {
		Detail string `json:"detail"`
	}
	writeJSON(w, status, struct {
		Errors []item `json:"errors"`
	}{[]item{{detail}}})
}

func asJSON(w http.ResponseWriter, status int, code, detail string) {
	type body struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	writeJSON(w, status, struct {
		Error body `json:"error"`
	}{body{code, detail}})
}

// advice is what who asks can do about trouble that is not this registry's, by code.
var advice = map[string]string{
	"held-damaged":     "tell the operator of this registry: `aln-registry fsck` finds all that is damaged",
	"upstream-down":    "what is held here is served meanwhile, and this is not: try again later",
	"upstream-refused": "tell the operator of this registry",
	"upstream-broken":  "nothing of it was kept; try again later, and tell this registry's operator (aln-registry upstream alarms UPSTREAM shows wrong bytes and index files, aln-registry upstream list what else is wrong)",
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, render renderer, err error) {
	o := observed(r.Context())
	if o.body != nil && o.body.failed != nil { // whatever the one who read it made of that
		err = o.body.failed
	}
	out := classify(err)
	o.code = out.code
	s.metrics.refused(out.code)
	s.noteDenial(w, r, err)
	detail := err.Error()
	if more := advice[out.code]; more != "" {
		detail += "; " + more
	}
	if !out.shown {
		if !errors.Is(err, context.Canceled) { // a client that went away is not a failure
			s.log.Error("request failed", "request", o.id, "code", out.code, "error", err)
		}
		detail = "internal error; the operator finds it in the log under request " + o.id
		switch {
		case out.code == codeUnpublished:
			detail = "the registry's storage does not take all of this now; it may be in the log already and come into force in a moment: look before you send it again (request " + o.id + ")"
		case out.status == http.StatusInsufficientStorage:
			detail = "the registry's disk is full, so nothing was changed; tell its operator to make room, then try again (request " + o.id + ")"
		case out.status == http.StatusServiceUnavailable:
			detail = "the registry cannot do this now; try again in a moment (request " + o.id + ")"
		}
	}
	switch out.status {
	case http.StatusUnauthorized:
		// Quoted and absolute, or cargo does not show it.
		w.Header().Set("WWW-Authenticate", `Cargo login_url="`+s.registry.PublicURL+`/me"`)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", retryAfter(err, s.random))
	}
	w.Header().Del("ETag")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	render(w, out.status, out.code, detail)
}

// retryAfter is when to try again, in seconds: as err says, within bounds and a bit later, so that
// not all who are told it come at once; otherwise soon.
func retryAfter(err error, random func() float64) string {
	wait := leastRetry
	var told interface{ RetryAfter() time.Duration }
	if errors.As(err, &told) {
		wait = min(max(told.RetryAfter(), leastRetry), mostRetry*4/5)
		wait += time.Duration(random() * float64(max(wait/4, time.Second)))
	}
	return strconv.Itoa(int((wait + time.Second - 1) / time.Second))
}

const leastRetry, mostRetry = 2 * time.Second, 60 * time.Second

// writeJSON answers with v, which is one of this package's own types.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// answer sends v as JSON, with an ETag, or 304 where the client has it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return s.revalidated(w, r, append(body, '\n'))
}

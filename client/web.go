package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
)

// Bounds on answers, in bytes and time.
const (
	maxAnswer   = 1 << 20  // one JSON answer
	maxBundle   = 32 << 20 // the records about one name, and lists
	maxError    = 64 << 10
	callTimeout = 30 * time.Second
	// downloadTimeout bounds the transfer of one artifact.
	downloadTimeout = 30 * time.Minute
	maxRedirects    = 3

	// clockTolerance is how far clocks may differ without being corrected,
	// clockLimit how far they may at all.
	clockTolerance = 30 * time.Second
	clockLimit     = 24 * time.Hour
)

// APIError is a refusal by the registry.
type APIError struct {
	// Status is the HTTP status.
	Status int
	// Code names the refusal for programs ("" where the route has no codes).
	Code string
	// Detail says it to people; it comes from the registry.
	Detail string
	// RetryAfter is when the registry wants to be asked again (Retry-After, in whole
	// seconds); 0: it does not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *APIError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the registry answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return "the registry refused: " + e.Detail
}

// web sends requests to one base URL with every bound applied.
type web struct {
	base    string
	client  *http.Client
	now     func() time.Time
	sleep   func(context.Context, time.Duration) error
	version string
	// offset is how far the registry's clock is ahead of ours, in nanoseconds,
	// as of the last answer; 0 while within clockTolerance.
	offset *atomic.Int64
}

func newWeb(transport http.RoundTripper, now func() time.Time, pause func(context.Context, time.Duration) error, version string) web {
	if pause == nil {
		pause = sleep
	}
	return web{client: &http.Client{Transport: transport, CheckRedirect: sameHost}, now: now, sleep: pause, version: version, offset: new(atomic.Int64)}
}

// of returns w for another base URL, its clock not measured yet.
func (w web) of(base string) web {
	w.base, w.offset = base, new(atomic.Int64)
	return w
}

// sameHost stops a redirect that leaves the registry: what answers there is not what was asked.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		return fmt.Errorf("%w: it redirects to another host, %.200q", ErrAnswer, req.URL.Host)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", ErrAnswer, maxRedirects)
	}
	return nil
}

// call is one request. Path begins with a slash and is escaped already.
type call struct {
	method, path string
	token        string
	contentType  string
	body         []byte
	// content is sent in place of body where it is not nil: size bytes, once the registry asks for them.
	content io.Reader
	size    int64
	// onlyCached: the registry is to answer with what it has, and to ask no other one.
	onlyCached bool
}

// send sends c and returns the response of a success, its body open; anything
// else is an *APIError or a failure to reach the registry. A GET that the registry
// cannot answer now is sent again when it says so.
func (w web) send(ctx context.Context, c call) (resp *http.Response, err error) {
	if c.method != http.MethodGet {
		return w.sendOnce(ctx, c)
	}
	err = w.untilReady(ctx, func() error {
		resp, err = w.sendOnce(ctx, c) //nolint:bodyclose // who called closes it
		return err
	})
	return resp, err
}

func (w web) sendOnce(ctx context.Context, c call) (*http.Response, error) {
	resp, err := w.request(ctx, c)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	return nil, readError(resp)
}

// request sends c and returns the response, whatever it says, its body open.
func (w web) request(ctx context.Context, c call) (*http.Response, error) {
	var body io.Reader = bytes.NewReader(c.body)
	if c.content != nil {
		body = c.content
	}
	req, err := http.NewRequestWithContext(ctx, c.method, w.base+c.path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	if c.content != nil {
		req.ContentLength = c.size
		req.Header.Set("Expect", "100-continue")
	}
	req.Header.Set("User-Agent", "aln-registry/"+w.version)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.onlyCached {
		req.Header.Set("Cache-Control", "only-if-cached")
	}
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	sent := w.now()
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, w.unreachable(unwrapURL(err))
	}
	w.measure(resp, sent, w.now())
	return resp, nil
}

// challenge asks for the index as nobody and returns what the refusal says of
// how to log in (WWW-Authenticate); "" where it says nothing.
func (w web) challenge(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := w.request(ctx, call{method: http.MethodGet, path: "/index/config.json"})
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return resp.Header.Get("WWW-Authenticate"), nil
}

// unreachable says why there was no answer, and what to look after.
func (w web) unreachable(err error) error {
	hint := ""
	switch {
	case errors.Is(err, ErrAnswer): // a redirect that is not followed
		return fmt.Errorf("ask %s: %w", w.base, err)
	case errors.Is(err, errRefused):
		hint = "; is it running?"
	case isUntrustedCert(err):
		hint = "; if your lab signs certificates itself, type `aln-registry login " + w.base + " --ca-file FILE` with its authority's certificate"
	case errors.Is(err, http.ErrSchemeMismatch):
		hint = "; it speaks plain http"
		if u, err := url.Parse(w.base); err == nil && isLoopback(u.Hostname()) {
			hint += ": write http://" + strings.TrimPrefix(w.base, "https://")
		}
	}
	return fmt.Errorf("%w at %s: %w%s", ErrUnreachable, w.base, err, hint)
}

// unwrapURL takes the URL, which stands in the message already, off the error of http.Client.
func unwrapURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// measure notes how far the registry's clock is ahead, from its Date header
// (whole seconds, RFC 9110 §6.6.1) and the middle of the exchange.
func (w web) measure(resp *http.Response, sent, received time.Time) {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	middle := sent.Add(received.Sub(sent) / 2)
	offset := date.Add(500 * time.Millisecond).Sub(middle)
	if offset.Abs() <= clockTolerance {
		offset = 0
	}
	w.offset.Store(int64(offset))
}

// registryTime is the time to sign with: ours, corrected when the registry's
// was seen to differ by more than clockTolerance. ErrClock beyond clockLimit.
func (w web) registryTime() (time.Time, error) {
	offset := time.Duration(w.offset.Load())
	if offset.Abs() > clockLimit {
		return time.Time{}, fmt.Errorf("%w: this computer's and the registry's differ by %s; set the clock", ErrClock, offset.Round(time.Minute))
	}
	return w.now().Add(offset).UTC().Truncate(time.Second), nil
}

// readError makes an *APIError of a refusal in any of the three forms in which
// the registry words one.
func readError(resp *http.Response) error {
	e := &APIError{Status: resp.StatusCode}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return e
	}
	var ours struct {
		Error struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
		} `json:"error"`
	}
	var cargos struct {
		Errors []struct {
			Detail string `json:"detail"`
		} `json:"errors"`
	}
	switch {
	case json.Unmarshal(body, &ours) == nil && ours.Error.Detail != "":
		e.Code, e.Detail = ours.Error.Code, ours.Error.Detail
	case json.Unmarshal(body, &cargos) == nil && len(cargos.Errors) > 0:
		e.Detail = cargos.Errors[0].Detail
	case strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain"):
		e.Detail = string(body)
	}
	e.Code, e.Detail = printable(e.Code), printable(e.Detail)
	return e
}

// printable keeps foreign text from moving a terminal's cursor, and short.
func printable(s string) string {
	const most = 2000
	s = strings.TrimSpace(strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) { // no controls, no marks that turn the direction of writing
			return r
		}
		return ' '
	}, s)
	s = strings.ReplaceAll(s, "\n", "\n    ") // no line of its own for what another computer says
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// bytes does c within callTimeout and returns the whole answer of at most limit bytes.
func (w web) bytes(ctx context.Context, c call, limit int64) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := w.send(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: read the answer of %s%s: %w", ErrUnreachable, w.base, c.path, err)
	}
	if int64(len(data)) > limit {
		return nil, nil, fmt.Errorf("%w: %s%s is longer than %d bytes", ErrAnswer, w.base, c.path, limit)
	}
	return data, resp.Header, nil
}

// json does c and decodes the answer into into. Members that into does not know
// are let pass: a newer registry may say more.
func (w web) json(ctx context.Context, c call, limit int64, into any) error {
	data, _, err := w.bytes(ctx, c, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w: %s%s: %w", ErrAnswer, w.base, c.path, err)
	}
	return nil
}

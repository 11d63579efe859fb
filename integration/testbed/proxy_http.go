package testbed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// serveHTTP hands on one request after the other. Each gets a connection to the
// engine of its own: an engine that was restarted meanwhile is not the proxy's doing.
func (p *Proxy) serveHTTP(l *link) {
	requests := bufio.NewReader(l.client)
	for {
		req, err := http.ReadRequest(requests)
		if err != nil || !p.pass() {
			return
		}
		_ = l.client.SetDeadline(time.Now().Add(longestExchange))
		if !p.exchange(l, req) {
			return
		}
		_ = l.client.SetDeadline(time.Time{})
	}
}

// suitsHTTP: a false 412 is for what is sent on a condition, a false 404 for
// what is read.
func suitsHTTP(req *http.Request) func(Harm) bool {
	return func(h Harm) bool {
		switch h {
		case Exists:
			return req.Header.Get("If-None-Match") != ""
		case Absent:
			return req.Method == http.MethodGet || req.Method == http.MethodHead
		case Shorten:
			return req.Method == http.MethodGet
		default:
			return true
		}
	}
}

// answers are the proxy's own, as S3 words them.
var answers = map[Harm]struct {
	status int
	code   string
}{
	Fail:     {http.StatusInternalServerError, "InternalError"},
	SlowDown: {http.StatusServiceUnavailable, "SlowDown"},
	Exists:   {http.StatusPreconditionFailed, "PreconditionFailed"},
	Absent:   {http.StatusNotFound, "NoSuchKey"},
	Lose:     {http.StatusInternalServerError, "InternalError"},
}

// exchange hands on a request and its response; false ends the connection.
func (p *Proxy) exchange(l *link, req *http.Request) bool {
	f := p.draw(req, suitsHTTP(req))
	if !p.hold(f) {
		return false
	}
	if req.Header.Get("Expect") != "" { // the client waits for leave to send the body
		if _, err := io.WriteString(l.client, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return false
		}
	}
	own, answered := answers[f.harm]
	if answered && !f.is(Lose) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return false
		}
		return answer(l, req, own.status, own.code)
	}
	resp, ok := p.ask(l, req, f)
	if !ok {
		return false
	}
	defer func() { _ = errors.Join(l.engine.Close(), resp.Body.Close()) }()
	// The whole answer is read even if it goes nowhere: the engine has done its work.
	switch {
	case f.is(CutBefore):
		_, _ = io.Copy(io.Discard, resp.Body)
		l.reset()
		return false
	case f.is(Lose):
		_, _ = io.Copy(io.Discard, resp.Body)
		return answer(l, req, own.status, own.code)
	}
	return p.respond(l, req, resp, f) && p.pass()
}

// ask sends the request on and reads the head of the response.
func (p *Proxy) ask(l *link, req *http.Request, f fate) (*http.Response, bool) {
	if !p.dial(l) {
		return nil, false
	}
	engine := l.engine
	_ = engine.SetDeadline(time.Now().Add(longestExchange))
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "") // Write sets its own otherwise
	}
	req.Close = true
	head, err := httputil.DumpRequest(req, false)
	if err != nil {
		l.reset()
		return nil, false
	}
	to := &harmed{to: engine, pass: p.pass, cut: -1, flip: -1, bit: f.bit}
	size := len(head) + int(max(0, req.ContentLength))
	switch {
	case f.is(CutRequest):
		to.cut = f.within(size)
	case f.is(FlipRequest):
		to.flip = f.within(size)
	}
	if err := req.Write(to); err != nil {
		l.reset()
		return nil, false
	}
	for responses := bufio.NewReader(engine); ; {
		resp, err := http.ReadResponse(responses, req)
		if err != nil {
			l.reset()
			return nil, false
		}
		if resp.StatusCode >= 200 {
			return resp, p.pass()
		}
	}
}

// respond hands the response on.
func (p *Proxy) respond(l *link, req *http.Request, resp *http.Response, f fate) bool {
	resp.Close, resp.Request = false, req
	resp.Header.Del("Connection")
	if f.is(Shorten) || f.harm < harms && resp.ContentLength < 0 {
		if err := measure(resp, f); err != nil {
			l.reset()
			return false
		}
	}
	head, err := httputil.DumpResponse(resp, false)
	if err != nil {
		l.reset()
		return false
	}
	size := len(head) + int(max(0, resp.ContentLength))
	if req.Method == http.MethodHead {
		size = len(head)
	}
	to := &harmed{to: l.client, pass: p.pass, cut: -1, flip: -1, bit: f.bit}
	switch {
	case f.is(CutResponse), f.is(Truncate):
		to.cut = f.within(size)
	case f.is(FlipResponse):
		to.flip = f.within(size)
	}
	buffered := bufio.NewWriter(to)
	if err = errors.Join(resp.Write(buffered), buffered.Flush()); err == nil {
		return true
	}
	if f.is(Truncate) && errors.Is(err, errCut) {
		return false // closed in an orderly way
	}
	l.reset()
	return false
}

// measure gives resp a body whose length is known, for Shorten a part of it.
func measure(resp *http.Response, f fate) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if f.is(Shorten) && len(body) > 0 {
		body = body[:f.within(len(body))]
	}
	resp.Body, resp.ContentLength, resp.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	resp.Header.Del("Content-Length")
	return nil
}

// answer is the proxy's own response.
func answer(l *link, req *http.Request, status int, code string) bool {
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>the proxy says so</Message></Error>`, code)
	resp := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(body)),
	}
	return resp.Write(l.client) == nil
}

var errCut = errors.New("cut here")

// harmed is a writer of one message that comes to harm; -1 is nowhere.
type harmed struct {
	to        io.Writer
	pass      func() bool
	at        int
	cut, flip int
	bit       byte
}

func (h *harmed) Write(data []byte) (int, error) {
	if !h.pass() {
		return 0, errCut
	}
	begin, end := h.at, h.at+len(data)
	h.at = end
	if begin <= h.flip && h.flip < end {
		data = append([]byte(nil), data...)
		data[h.flip-begin] ^= h.bit
	}
	if h.cut >= begin && h.cut < end {
		n, _ := h.to.Write(data[:h.cut-begin])
		return n, errCut
	}
	return h.to.Write(data)
}

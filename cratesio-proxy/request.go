package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	mostRetries = 3
	firstPause  = 200 * time.Millisecond
	// longestWait is how long a host that asked for it is left alone: a mistaken header is not to
	// keep a lab from its upstream for a day.
	longestWait = time.Hour
	// longestSpread is for how long after a pause those come who waited for its end.
	longestSpread = 30 * time.Second
	// tryTime is how long after the first attempt, or after something came, another may
	// begin: cargo gives up on who says nothing for 30 seconds, and then shows that, and not
	// what is wrong.
	tryTime = 12 * time.Second

	drainBytes = 16 << 10 // of an answer that is not used, so that its connection is
	drainTime  = time.Second

	// A body may take graceTime, and beyond that the time that it takes at slowest.
	graceTime = time.Minute
	slowest   = 16 << 10 // bytes a second
)

var (
	errStalled = errors.New("its answer stopped")
	errSlow    = errors.New("its answer is too slow")
)

// try makes attempts until one succeeds, or fails for good: what upstream is only
// unavailable for is tried again, after pauses that grow and are never those of others, or
// as long as upstream said, while whoever asked still waits. came is when the last came, by
// Elapsed, of what a further attempt need not bring. An attempt is alone where another was
// ended by what may have been the answer to somebody else.
func (u *Upstream) try(ctx context.Context, came func() time.Duration, attempt func(ctx context.Context, alone bool) error) error {
	begun, alone := u.proxy.Elapsed(), false
	for tries := 1; ; tries++ {
		err := attempt(ctx, alone)
		if err == nil || !errors.Is(err, ErrUnavailable) || tries > mostRetries || ctx.Err() != nil {
			return err
		}
		alone = alone || errors.Is(err, errProtocol)
		var open *openError
		wait := max(pause(tries, u.proxy.Random), u.later(RetryAfter(err)))
		if errors.As(err, &open) && open.dead || u.proxy.Elapsed()+wait-max(begun, came()) > tryTime {
			return err
		}
		u.proxy.counts.retries.Add(1)
		if u.proxy.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

// never: of an answer that is not whole nothing is of use.
func never() time.Duration { return 0 }

// pause is how long to wait after so many tries.
func pause(tries int, random func() float64) time.Duration {
	d := firstPause << (tries - 1)
	return d/2 + time.Duration(random()*float64(d/2))
}

// later is d and a bit, so that not all who wait for the end of a pause come at once then; 0 for 0.
func (u *Upstream) later(d time.Duration) time.Duration {
	return d + time.Duration(u.proxy.Random()*float64(min(d/4, longestSpread)))
}

// question is a request to be made.
type question struct {
	host   *circuit
	url    string
	header http.Header
	open   bool // it goes without the token
	alone  bool // it goes over a connection that nobody else uses
	probe  bool // it finds out whether a host that is taken for dead lives again
}

// ask makes one attempt at q, and gives what is answered with 200, 206 or 304 to use,
// with a body that is cut when it makes no progress. Everything else is an error of
// this package. What happens once it has answered does not count against the host: others
// are not to suffer from one file that it does not send.
func (u *Upstream) ask(ctx context.Context, q question, use func(*http.Response, *watched) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, q.url, nil)
	if err != nil { // it would say the URL
		return u.say(fmt.Errorf("%w: it names an address that is no URL", ErrBroken))
	}
	if q.header != nil {
		request.Header = q.header
	}
	request.Header.Set("User-Agent", u.proxy.agent())
	if !q.open {
		token, err := u.setting.token()
		if err != nil { // it says where the file is, which is not for everybody
			u.proxy.Log.Error("an upstream cannot be asked", "upstream", u.setting.Name, "error", err)
			return u.say(fmt.Errorf("%w: its token_file cannot be used now; this registry's log says why", ErrUnavailable))
		}
		if token != "" {
			request.Header.Set("Authorization", token)
		}
	}
	begun, found, err := u.connect(ctx, &q)
	if err != nil {
		return u.say(err)
	}
	defer found()
	client := u.client
	if q.alone {
		client = u.alone
	}
	u.proxy.counts.requests.Add(1)
	request = request.WithContext(seeking(ctx, u.dialling(q), u.greet(), found))
	return u.say(u.exchange(client, request, func(resp *http.Response, err error) {
		if resp != nil && !q.alone {
			q.host.spoke(resp.ProtoMajor, resp.Request.URL.Host == request.URL.Host)
		}
		if ctx.Err() == nil {
			u.troubled(err)
		}
		switch {
		case ctx.Err() != nil: // whoever asked has left, or it took too long in all
		case err == nil || isAnswer(err):
			q.host.succeeded()
			q.host.leave(RetryAfter(err))
		case errors.Is(err, errProtocol), errors.Is(err, errNonsense): // it lives
		case errors.Is(err, errNoTurn): // so far only others have heard whether it does
		case errors.Is(err, ErrUnavailable):
			q.host.failed(begun)
		}
	}, use))
}

// connect returns when q may begin, and what connect of its host does. Of a host that is taken for
// dead nobody waits behind those who find out whether it is: that may take as long as a proxy keeps
// silent. Who finds out waits for nobody, since there is one at the end of each rest.
func (u *Upstream) connect(ctx context.Context, q *question) (begun time.Duration, found func(), err error) {
	q.probe = q.host.isDead()
	if begun, err = q.host.begin(); err != nil || q.probe || q.alone {
		return begun, func() {}, err
	}
	if found, err = q.host.connect(ctx); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if begun, err = q.host.begin(); err != nil { // it was found dead meanwhile
		found()
	}
	return begun, found, err
}

// dialling has the places for connections that are opened for q, nil where each is used.
func (u *Upstream) dialling(q question) chan struct{} {
	if q.alone || q.probe || q.host.apart.Load() || q.host.beyond.Load() || u.setting.isPlain() {
		return nil
	}
	return q.host.dialling
}

// greet is how long a connection may be of no use: plain ones are of use at once.
func (u *Upstream) greet() time.Duration {
	if u.setting.isPlain() {
		return 0
	}
	return greetTime
}

// say puts the upstream's name before what is said of it.
func (u *Upstream) say(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", u.setting.Name, err)
}

// isAnswer reports whether err is what a living host said. A gateway without anything behind
// it is none.
func isAnswer(err error) bool {
	var a *answered
	if !errors.As(err, &a) {
		return false
	}
	switch a.status {
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return false
	case http.StatusServiceUnavailable:
		return a.after > 0
	}
	return true
}

// exchange sends the request and reads the answer. It says whether it was one before it
// reads more than its headers.
func (u *Upstream) exchange(client *http.Client, request *http.Request, said func(*http.Response, error), use func(*http.Response, *watched) error) error {
	ctx, cancel := context.WithCancelCause(request.Context())
	defer cancel(nil)
	resp, err := client.Do(request.WithContext(ctx))
	if err != nil {
		err = network(ctx, err)
		said(nil, err)
		return err
	}
	defer resp.Body.Close()
	err = u.judge(resp)
	said(resp, err)
	if err != nil {
		if resp.ProtoMajor == 1 && resp.ContentLength >= 0 && resp.ContentLength <= drainBytes {
			// So that the connection is used again, if that is quick; what comes of it is no matter.
			_, _ = io.Copy(io.Discard, watch(ctx, resp.Body, drainTime, cancel))
		}
		return err
	}
	return use(resp, watch(ctx, resp.Body, u.proxy.Stall, cancel))
}

// judge is nil for an answer of use.
func (u *Upstream) judge(resp *http.Response) error {
	if sizeOf(resp.Header) > headerBytes {
		return errHeader
	}
	a := &answered{status: resp.StatusCode}
	switch s := resp.StatusCode; {
	case s == http.StatusOK, s == http.StatusPartialContent, s == http.StatusNotModified:
		return nil
	case s == http.StatusNotFound, s == http.StatusGone, s == http.StatusUnavailableForLegalReasons:
		a.kind = ErrNotFound
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusProxyAuthRequired:
		a.kind = ErrRefused
	case s == http.StatusTooManyRequests, s == http.StatusRequestTimeout, s >= 500:
		a.kind, a.after = ErrUnavailable, retryAfter(resp.Header.Get("Retry-After"), u.proxy.Clock())
	default:
		a.kind = ErrBroken
	}
	return a
}

// retryAfter reads the header: seconds or a date (RFC 9110 §10.2.3), 0 for neither.
func retryAfter(value string, now time.Time) time.Duration {
	const most = 24 * time.Hour
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, most)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}

// agent says who asks, as crates.io wants to know of everybody.
func (p *Proxy) agent() string {
	text := "aln-registry"
	if p.Version != "" {
		text += "/" + p.Version
	}
	if p.PublicURL != "" {
		text += " (+" + p.PublicURL + ")"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
}

// watched is a body that is cut where it makes no progress, or too little in all. The time
// between reads, which is ours, does not count.
type watched struct {
	ctx    context.Context // what cancel ends
	body   io.Reader
	stall  time.Duration
	cancel context.CancelCauseFunc
	spent  time.Duration // in reads
	n      int64
}

func watch(ctx context.Context, body io.Reader, stall time.Duration, cancel context.CancelCauseFunc) *watched {
	return &watched{ctx: ctx, body: body, stall: stall, cancel: cancel}
}

// Read implements io.Reader. Its errors but for io.EOF are ErrUnavailable.
func (w *watched) Read(p []byte) (int, error) {
	begun := time.Now()
	timer := time.AfterFunc(w.stall, func() { w.cancel(errStalled) })
	n, err := w.body.Read(p)
	timer.Stop()
	w.spent += time.Since(begun)
	w.n += int64(n)
	if w.spent > graceTime+time.Duration(w.n/slowest)*time.Second {
		w.cancel(errSlow)
		return n, fmt.Errorf("%w: %w", ErrUnavailable, errSlow)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, network(w.ctx, err)
	}
	return n, err
}

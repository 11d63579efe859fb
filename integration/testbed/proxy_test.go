package testbed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// engine is an HTTP server that answers each GET with the same body and keeps
// what is PUT; and a client without patience or retries in front of it.
type engine struct {
	*httptest.Server
	proxy  *Proxy
	client *http.Client
	asked  atomic.Int64
	kept   atomic.Pointer[[]byte]
}

var stored = bytes.Repeat([]byte("stored "), 3000)

func newEngine(t *testing.T, seed uint64) *engine {
	t.Helper()
	e := &engine{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		e.asked.Add(1)
		if r.Method == http.MethodPut {
			e.kept.Store(&body)
			return
		}
		w.Write(stored)
	}))
	t.Cleanup(e.Close)
	e.proxy = NewHTTPProxy(t, e.Listener.Addr().String(), seed)
	e.client = &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
	t.Cleanup(e.client.CloseIdleConnections)
	return e
}

// do is one exchange through the proxy.
func (e *engine) do(method string, body []byte) (status int, got []byte, err error) {
	req, err := http.NewRequest(method, "http://"+e.proxy.Address()+"/object", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("If-None-Match", "*")
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	got, err = io.ReadAll(resp.Body)
	return resp.StatusCode, got, err
}

func differing(a, b []byte) int {
	if len(a) != len(b) {
		return -1
	}
	n := 0
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

func TestHTTPIsHandedOnAsItIs(t *testing.T) {
	e := newEngine(t, 1)
	sent := bytes.Repeat([]byte{0, 1, 2, 255}, 100_000)
	for range 3 {
		if status, _, err := e.do(http.MethodPut, sent); err != nil || status != http.StatusOK || !bytes.Equal(*e.kept.Load(), sent) {
			t.Fatalf("PUT: %d %v", status, err)
		}
		if status, got, err := e.do(http.MethodGet, nil); err != nil || status != http.StatusOK || !bytes.Equal(got, stored) {
			t.Fatalf("GET: %d %v, %d bytes", status, err, len(got))
		}
	}
	if e.proxy.Exchanges() != 6 {
		t.Error(e.proxy)
	}
}

func TestHarmToHTTP(t *testing.T) {
	for _, c := range []struct {
		harm   Harm
		method string
		asked  bool // the engine got the request whole
		broken bool // the client gets an error, not an answer
		status int
	}{
		{Delay, http.MethodGet, true, false, 200},
		{CutRequest, http.MethodPut, false, true, 0},
		{CutBefore, http.MethodPut, true, true, 0},
		{CutResponse, http.MethodGet, true, true, 0},
		{Truncate, http.MethodGet, true, true, 0},
		{Fail, http.MethodPut, false, false, 500},
		{SlowDown, http.MethodPut, false, false, 503},
		{SlowDown, http.MethodGet, false, false, 503},
		{Exists, http.MethodPut, false, false, 412},
		{Absent, http.MethodGet, false, false, 404},
		{Lose, http.MethodPut, true, false, 500},
	} {
		t.Run(fmt.Sprintf("%s of %s", c.harm, c.method), func(t *testing.T) {
			for seed := range uint64(20) {
				e := newEngine(t, seed)
				e.proxy.Use(Plan{Chance: map[Harm]float64{c.harm: 1}, Longest: 20 * time.Millisecond})
				status, _, err := e.do(c.method, stored)
				if (err != nil) != c.broken || !c.broken && status != c.status {
					t.Errorf("seed %d: %d %v", seed, status, err)
				}
				// An answer that was cut was given: the engine may end a moment later.
				for deadline := time.Now().Add(time.Second); c.asked && e.asked.Load() == 0 && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
				if asked := e.asked.Load() == 1; asked != c.asked || e.proxy.Did(c.harm) != 1 {
					t.Errorf("seed %d: the engine was asked: %t; %s", seed, asked, e.proxy)
				}
			}
		})
	}
}

func TestOneBitIsFlipped(t *testing.T) {
	var bodies, heads int
	for seed := range uint64(60) {
		e := newEngine(t, seed)
		e.client.Timeout = 300 * time.Millisecond // a length that is too long is waited for
		e.proxy.Use(Plan{Chance: map[Harm]float64{FlipRequest: 1}})
		short := stored[:200] // about as long as the head
		_, _, err := e.do(http.MethodPut, short)
		if kept := e.kept.Load(); err == nil && kept != nil && differing(*kept, short) == 1 {
			bodies++
		} else {
			heads++ // in the request's line or headers, with whatever that leads to
		}
		e.proxy.Use(Plan{Chance: map[Harm]float64{FlipResponse: 1}})
		if _, got, err := e.do(http.MethodGet, nil); err == nil && differing(got, stored) == 1 {
			bodies++
		} else {
			heads++
		}
	}
	if bodies < 70 || heads < 10 {
		t.Errorf("%d bodies came with one bit changed, %d heads", bodies, heads)
	}
}

func TestAShortenedBodyPassesForWhole(t *testing.T) {
	for seed := range uint64(20) {
		e := newEngine(t, seed)
		e.proxy.Use(Plan{Chance: map[Harm]float64{Shorten: 1}})
		status, got, err := e.do(http.MethodGet, nil)
		if err != nil || status != http.StatusOK || len(got) >= len(stored) || !bytes.HasPrefix(stored, got) {
			t.Errorf("seed %d: %d %v, %d bytes", seed, status, err, len(got))
		}
	}
}

func TestOnlyWhatThePlanMeansComesToHarm(t *testing.T) {
	e := newEngine(t, 1)
	e.proxy.Use(Plan{Chance: map[Harm]float64{Fail: 1}, Where: func(r *http.Request) bool { return r.Method == http.MethodPut }})
	if status, _, err := e.do(http.MethodGet, nil); err != nil || status != http.StatusOK {
		t.Errorf("GET: %d %v", status, err)
	}
	if status, _, err := e.do(http.MethodPut, nil); err != nil || status != http.StatusInternalServerError {
		t.Errorf("PUT: %d %v", status, err)
	}
	// A false 404 does not suit what is written: nothing happens.
	e.proxy.Use(Plan{Chance: map[Harm]float64{Absent: 1}})
	if status, _, err := e.do(http.MethodPut, nil); err != nil || status != http.StatusOK || e.proxy.Did(Absent) != 0 {
		t.Errorf("PUT: %d %v; %s", status, err, e.proxy)
	}
}

func TestTheSameSeedDoesTheSame(t *testing.T) {
	plan := Plan{Chance: map[Harm]float64{Fail: 0.2, SlowDown: 0.2, Absent: 0.2, Shorten: 0.2}}
	run := func(seed uint64) (did string) {
		e := newEngine(t, seed)
		e.proxy.Use(plan)
		for range 50 {
			status, got, _ := e.do(http.MethodGet, nil)
			did += fmt.Sprint(status, len(got), " ")
		}
		return did
	}
	if first := run(7); first != run(7) || first == run(8) {
		t.Error("a seed does not repeat what happened, or seeds do not differ")
	}
}

// echo answers each line with it, quoted.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintf(conn, "> %s\n", lines.Text())
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// talk says n lines over one connection and returns the answers before anything went wrong.
func talk(p *Proxy, n int) (answers []string, err error) {
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	lines := bufio.NewReader(conn)
	for i := range n {
		if _, err := fmt.Fprintf(conn, "this is line %d\n", i); err != nil {
			return answers, err
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return answers, err
		}
		answers = append(answers, strings.TrimSuffix(line, "\n"))
	}
	return answers, nil
}

func TestHarmToTurns(t *testing.T) {
	p := NewProxy(t, echo(t), 3)
	if answers, err := talk(p, 10); err != nil || len(answers) != 10 || answers[9] != "> this is line 9" {
		t.Fatal(answers, err)
	}
	for _, harm := range []Harm{CutRequest, CutBefore, CutResponse, Truncate} {
		p.Use(Plan{Chance: map[Harm]float64{harm: 0.5}})
		did := p.Did(harm)
		for range 10 {
			answers, err := talk(p, 20)
			if err == nil || len(answers) == 20 {
				t.Errorf("%s: %d answers", harm, len(answers))
			}
			if harm == Truncate && !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", harm, err)
			}
		}
		if p.Did(harm) != did+10 {
			t.Errorf("%s: %s", harm, p)
		}
	}
	for _, harm := range []Harm{FlipRequest, FlipResponse} {
		p.Use(Plan{Chance: map[Harm]float64{harm: 1}})
		for range 10 {
			// A bit of the line's end makes one line of two, so that the answer may be missing.
			if answers, err := talk(p, 1); err == nil && answers[0] == "> this is line 0" {
				t.Errorf("%s: nothing was", harm)
			}
			p.CutAll()
		}
	}
	p.Use(Plan{Chance: map[Harm]float64{Delay: 1}, Longest: 20 * time.Millisecond})
	if answers, err := talk(p, 10); err != nil || len(answers) != 10 {
		t.Error(answers, err)
	}
}

func TestHostsApartHearEachOtherAgain(t *testing.T) {
	p := NewProxy(t, echo(t), 3)
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	say := func(line string) (string, error) {
		conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		fmt.Fprintln(conn, line)
		return lines.ReadString('\n')
	}
	if _, err := say("one"); err != nil {
		t.Fatal(err)
	}
	p.Use(Plan{Apart: true})
	if got, err := say("two"); err == nil {
		t.Errorf("apart: %q", got)
	}
	p.Use(Plan{})
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if got, err := lines.ReadString('\n'); err != nil || got != "> two\n" {
		t.Errorf("together again: %q %v", got, err)
	}
	p.Use(Plan{Refused: true})
	if answers, err := talk(p, 1); err == nil {
		t.Errorf("refused: %q", answers)
	}
	p.CutAll()
	if _, err := say("three"); err == nil {
		t.Error("a connection outlived the cut")
	}
}

// Whatever the proxy is at, it ends with its test and leaves nothing running.
func TestAProxyEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("with connections that hang", func(t *testing.T) {
		p, web := NewProxy(t, echo(t), 3), NewHTTPProxy(t, echo(t), 3)
		for _, plan := range []Plan{{}, {Apart: true}, {Chance: map[Harm]float64{Delay: 1}, Longest: time.Hour}} {
			for _, proxy := range []*Proxy{p, web} {
				proxy.Use(plan)
				conn, err := net.Dial("tcp", proxy.Address())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			}
		}
	})
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

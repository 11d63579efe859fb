package cratesioproxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tunnels is an HTTP proxy that lets CONNECT through.
type tunnels struct {
	listener net.Listener
	refusal  string // what it answers in place of that
	mu       sync.Mutex
	asked    []string
	dialled  map[string]bool // by the addresses from which it did
}

func newTunnels(t *testing.T) *tunnels {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tunnels{listener: listener, dialled: map[string]bool{}}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); group.Wait() })
	return p
}

func (p *tunnels) serve(conn net.Conn) {
	defer conn.Close()
	from := bufio.NewReader(conn)
	request, err := http.ReadRequest(from)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, request.Method+" "+request.Host)
	refusal := p.refusal
	p.mu.Unlock()
	if refusal != "" || request.Method != http.MethodConnect {
		io.WriteString(conn, refusal)
		return
	}
	to, err := net.Dial("tcp", request.Host)
	if err != nil {
		return
	}
	defer to.Close()
	p.mu.Lock()
	p.dialled[to.LocalAddr().String()] = true
	p.mu.Unlock()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	ended := make(chan struct{})
	go func() { io.Copy(to, from); to.Close(); close(ended) }()
	io.Copy(conn, to)
	conn.Close()
	<-ended
}

func (p *tunnels) url() string { return "http://" + p.listener.Addr().String() }

// Nothing goes round an upstream's proxy: neither index nor config.json, crates on another host,
// redirects, what is fetched ahead, asked again or asked alone; whatever the environment says.
func TestNothingGoesRoundAnUpstreamsProxy(t *testing.T) {
	t.Setenv("NO_PROXY", "*")
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1:9")
	p := newTunnels(t)
	l := newLab(t, func(c *Config) { c.Ahead = 2 })
	var mu sync.Mutex
	var accepted []string
	seen := func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew {
			mu.Lock()
			defer mu.Unlock()
			accepted = append(accepted, conn.RemoteAddr().String())
		}
	}
	server := l.overTLS(t, true, func(s *httptest.Server) { s.Config.ConnState = seen })
	files := httptest.NewUnstartedServer(l) // with the same certificate, as is httptest's way
	files.EnableHTTP2, files.Config.ConnState = true, seen
	files.StartTLS()
	defer files.Close()
	l.reach(t, Setting{Name: CratesIO, Index: server.URL + "/", CA: certificateOf(t, server), Proxy: p.url()})
	l.on("/config.json", text(`{"dl":"`+files.URL+`/dl/{crate}/{version}"}`))
	tries := 0
	l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries == 1 {
			status(503)(w, r)
			return
		}
		tagged(line("some", "1.0.0", "ahead"), `"1"`)(w, r)
	})
	l.on("/ah/ea/ahead", text(line("ahead", "1.0.0")))
	l.on("/mo/ve/moved", http.RedirectHandler(files.URL+"/elsewhere", http.StatusFound).ServeHTTP)
	l.on("/elsewhere", text(line("moved", "1.0.0")))
	l.on("/br/ok/broken", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 200 {
			w.Header().Set(fmt.Sprintf("X-Large-%d", i), strings.Repeat("x", 4<<10))
		}
	})
	data, want := crate("some", 5000)
	l.on(dlPath(want), sends(data))
	cut, again := crate("cut", 200_000)
	first := true
	l.on(dlPath(again), func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(cut)))
			w.Write(cut[:100_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		sends(cut)(w, r)
	})
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("an index file, after a try", l.refresh("some"))
	until(t, "what it needs is fetched ahead", func() bool { return l.requests("/ah/ea/ahead") == 1 })
	check("a redirect", l.refresh("moved"))
	if err := l.refresh("broken"); !errors.Is(err, ErrBroken) || l.requests("/br/ok/broken") != 2 {
		t.Errorf("far too large headers: %v, asked %d times", err, l.requests("/br/ok/broken"))
	}
	l.pass(DefaultFresh)
	check("whether it has changed", l.refresh("some"))
	_, err := l.read(want)
	check("a crate", err)
	_, err = l.read(again)
	check("a crate that was cut", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	for _, address := range accepted {
		if !p.dialled[address] {
			t.Errorf("a connection from %s was not dialled by the proxy", address)
		}
	}
	for _, host := range []string{server.Listener.Addr().String(), files.Listener.Addr().String()} {
		if !slices.Contains(p.asked, "CONNECT "+host) {
			t.Errorf("the proxy was never asked for %s: %q", host, p.asked)
		}
	}
}

// What a proxy answers may be anything, and is repeated nowhere.
func TestWhatAProxyAnswersIsNotRepeated(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 403 s3cr3t\r\nX-Why: s3cr3t\r\nContent-Length: 6\r\n\r\ns3cr3t":                        "the proxy on the way to it answers HTTP 403 Forbidden",
		"HTTP/1.1 407 s3cr3t\r\nProxy-Authenticate: Basic realm=\"s3cr3t\"\r\nContent-Length: 0\r\n\r\n": "answers HTTP 407",
		"HTTP/1.1 799 s3cr3t\r\n\r\n":                           "answers HTTP 799",
		"s3cr3t s3cr3t\r\n\r\n":                                 "cannot be reached",
		"HTTP/1.1 200 s3cr3t\r\nContent-Length: s3cr3t\r\n\r\n": "cannot be reached",
	} {
		t.Run(want, func(t *testing.T) {
			p := newTunnels(t)
			p.refusal = answer
			var log lockedBuffer
			l := newLab(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			l.reach(t, Setting{Name: CratesIO, Index: "https://index.example/", Proxy: p.url()})
			err := l.refresh("some")
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", answer, err)
			}
			trouble, _ := l.upstream.LastTrouble()
			for _, said := range []string{fmt.Sprint(err), log.String(), trouble.What} {
				if strings.Contains(said, "s3cr3t") || said == "" {
					t.Errorf("%q: %s", answer, said)
				}
			}
		})
	}
}

// HTTPS_PROXY and NO_PROXY say by which proxy an upstream is asked that has none of its own, but
// for one of this computer.
func TestTheEnvironmentSaysWhichProxyAnUpstreamHasWithoutItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		setting, proxy, not string
		want                string // "" for none
	}{
		"nothing said":         {"https://index.example/", "", "", ""},
		"a proxy":              {"https://index.example/", "http://u:p@proxy.example:3128", "", "http://u:p@proxy.example:3128"},
		"its host and port":    {"https://index.example/", "proxy.example:3128", "", "http://proxy.example:3128"},
		"not for this host":    {"https://index.example/", "http://proxy.example:3128", "other.example,index.example", ""},
		"not for its domain":   {"https://index.example/", "http://proxy.example:3128", ".example", ""},
		"not for another host": {"https://index.example/", "http://proxy.example:3128", "dex.example", "http://proxy.example:3128"},
		"for none":             {"https://index.example/", "http://proxy.example:3128", "*", ""},
		"one of its own":       {"https://index.example/?proxy=socks5://own.example:1080", "http://proxy.example:3128", "*", "socks5://own.example:1080"},
		"on this computer":     {"http://127.0.0.1:8000/", "http://proxy.example:3128", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, lower := range []bool{false, true} {
				for variable, value := range map[string]string{"HTTPS_PROXY": c.proxy, "NO_PROXY": c.not, "HTTP_PROXY": "http://plain.example:3128", "ALL_PROXY": "http://all.example:1"} {
					t.Setenv(variable, "")
					t.Setenv(strings.ToLower(variable), "")
					if lower {
						variable = strings.ToLower(variable)
					}
					t.Setenv(variable, value)
				}
				s, err := ParseSetting("a=sparse+" + c.setting)
				if err != nil {
					t.Fatal(err)
				}
				transport, err := newTransport(s)
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				if transport.Proxy != nil {
					url, err := transport.Proxy(httptest.NewRequest(http.MethodGet, s.Index, nil))
					if err != nil {
						t.Fatal(err)
					}
					if url != nil {
						got = url.String()
					}
				}
				if got != c.want {
					t.Errorf("asked by %q, want %q", got, c.want)
				}
				if alone := aloneOf(transport); (alone.Proxy == nil) != (transport.Proxy == nil) {
					t.Error("what is asked alone goes another way")
				}
			}
		})
	}
}

// What cannot be read keeps the registry from starting, and says what to do; nobody goes
// without a proxy since its URL is mistyped.
func TestWhatCannotBeReadOfASettingIsSaidAtTheStart(t *testing.T) {
	folder := t.TempDir()
	nothing := filepath.Join(folder, "nothing")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		setting Setting
		proxy   string
		want    string
	}{
		"no token file":      {Setting{TokenFile: nothing + ".not"}, "", "name a file that this server may read, with the token in it"},
		"an empty one":       {Setting{TokenFile: nothing}, "", "write the token into it and nothing else"},
		"no CA":              {Setting{CA: nothing + ".not"}, "", "name a file that this server may read, with certificates in PEM"},
		"a folder":           {Setting{CA: folder}, "", "name a file that this server may read, with certificates in PEM"},
		"an empty CA":        {Setting{CA: nothing}, "", "write those to trust into it"},
		"no proxy":           {Setting{}, "http://u:s3cr3t@[proxy:3128", "write it like http://host:3128"},
		"a proxy of gopher":  {Setting{}, "gopher://s3cr3t:70", "write it like http://host:3128"},
		"a proxy and a port": {Setting{}, "http://s3cr3t:port", "write it like http://host:3128"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", c.proxy)
			t.Setenv("https_proxy", "")
			c.setting.Name, c.setting.Index = "acme", "https://index.example/"
			_, err := New(Config{}, []Setting{c.setting})
			if !errors.Is(err, ErrSetting) || !strings.Contains(fmt.Sprint(err), c.want) || strings.Contains(fmt.Sprint(err), "s3cr3t") {
				t.Errorf("got %v", err)
			}
		})
	}
}

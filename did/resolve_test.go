package did

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// nameServer answers every question for an address with the next of its lists,
// the last one for ever after.
type nameServer struct {
	mu      sync.Mutex
	answers [][]netip.Addr
	asked   int
}

// newNameServer runs one on loopback, and returns a resolver that asks it alone.
func newNameServer(t *testing.T, answers ...[]netip.Addr) (*nameServer, *net.Resolver) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{answers: answers}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := s.reply(buf[:n]); reply != nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// reply answers a DNS query (RFC 1035 §4): the header, the question repeated,
// and an A or AAAA record for each address of that kind.
func (s *nameServer) reply(query []byte) []byte {
	end := 12
	for end < len(query) && query[end] != 0 {
		end += int(query[end]) + 1
	}
	if end += 5; end > len(query) {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	s.mu.Lock()
	addresses := s.answers[min(s.asked/2, len(s.answers)-1)] // A and AAAA are asked as a pair
	s.asked++
	s.mu.Unlock()
	reply := append([]byte{}, query[:end]...)
	reply[2], reply[3] = 0x81, 0x80 // a response, no error
	var count uint16
	for _, a := range addresses {
		if a.Is4() != (kind == 1) || kind != 1 && kind != 28 {
			continue
		}
		count++
		raw := a.AsSlice()
		reply = append(reply, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(raw)))
		reply = append(reply, raw...)
	}
	binary.BigEndian.PutUint16(reply[6:], count)
	clear(reply[8:12]) // neither authorities nor additional records
	return reply
}

// publisher is an https server for example.com that publishes documents.
type publisher struct {
	*httptest.Server
	id DID
	// met counts connections, asked requests.
	met, asked atomic.Int64
}

func newPublisher(t *testing.T, address string, answer func(p *publisher, w http.ResponseWriter, r *http.Request)) *publisher {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &publisher{id: DID(fmt.Sprintf("did:web:example.com%%3A%d", listener.Addr().(*net.TCPAddr).Port))}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		answer(p, w, r)
	}))
	p.Listener.Close()
	p.Listener = countingListener{listener, &p.met}
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

type countingListener struct {
	net.Listener
	met *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.met.Add(1)
	}
	return c, err
}

func (p *publisher) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate())
	return pool
}

// published is the right document of id, with one key.
func published(t testing.TB, id DID) []byte {
	t.Helper()
	ed, _ := testKeys(t)
	data, err := NewDocument(id, []DocumentKey{{URL{id, "key-1"}, ed.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

// trusting is a resolver that finds p and is let through to it.
func (p *publisher) trusting(t *testing.T) Resolver {
	_, dns := newNameServer(t, loopback)
	return Resolver{DNS: dns, Roots: p.roots(), Allowed: prefixes("127.0.0.1/32")}
}

func TestResolveFetchesTheDocument(t *testing.T) {
	var got http.Request
	p := newPublisher(t, "127.0.0.1:0", func(p *publisher, w http.ResponseWriter, r *http.Request) {
		got = *r
		id := p.id
		if r.URL.Path != "/.well-known/did.json" {
			id += DID(strings.ReplaceAll(strings.TrimSuffix(r.URL.Path, "/did.json"), "/", ":"))
		}
		w.Header().Set("Content-Type", "text/plain") // as many a plain file is served
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		w.Write(published(t, id))
	})
	t.Setenv("https_proxy", "http://127.0.0.1:9") // asking it would fail
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
	for id, path := range map[DID]string{
		p.id:                    "/.well-known/did.json",
		p.id + ":people:Anna_1": "/people/Anna_1/did.json",
	} {
		data, err := p.trusting(t).Resolve(t.Context(), id)
		if err != nil || string(data) != string(published(t, id)) {
			t.Fatalf("%s: %q, %v", id, data, err)
		}
		for _, name := range []string{"Cookie", "Authorization", "Accept-Encoding", "Referer"} {
			if value := got.Header.Get(name); value != "" {
				t.Errorf("it sends %s: %s", name, value)
			}
		}
		if got.Method != http.MethodGet || got.URL.Path != path || got.URL.RawQuery != "" {
			t.Errorf("it asks %s %s", got.Method, got.URL)
		}
	}
}

func TestResolveRefusesHostileAnswers(t *testing.T) {
	other := newPublisher(t, "127.0.0.1:0", func(p *publisher, w http.ResponseWriter, _ *http.Request) { w.Write(published(t, p.id)) })
	for _, test := range []struct {
		name   string
		answer func(p *publisher, w http.ResponseWriter, r *http.Request)
		err    error
		says   string
	}{
		{"a redirect elsewhere", func(_ *publisher, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/.well-known/did.json", http.StatusFound)
		}, ErrResolve, "redirect"},
		{"a redirect to itself", func(_ *publisher, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/did.json", http.StatusMovedPermanently)
		}, ErrResolve, "redirect"},
		{"a redirect that is permanent, with a document as its body", func(p *publisher, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusPermanentRedirect)
			w.Write(published(t, p.id))
		}, ErrResolve, "redirect"},
		{"nothing", func(_ *publisher, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, ErrResolve, "404"},
		{"an error with a document as its body", func(p *publisher, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write(published(t, p.id))
		}, ErrResolve, "500"},
		{"a part", func(p *publisher, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(published(t, p.id))
		}, ErrResolve, "206"},
		{"one byte too many", func(p *publisher, w http.ResponseWriter, _ *http.Request) {
			w.Write(published(t, p.id))
			w.Write([]byte(strings.Repeat(" ", MaxDocument+1-len(published(t, p.id)))))
		}, ErrResolve, "longer than 65536"},
		{"without end", func(_ *publisher, w http.ResponseWriter, _ *http.Request) {
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 32<<10))
			}
		}, ErrResolve, "longer than 65536"},
		{"a header without end", func(_ *publisher, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", maxHeader))
		}, ErrResolve, "header"},
		{"cut off", func(p *publisher, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			w.Write(published(t, p.id))
		}, ErrResolve, "EOF"},
		{"a bomb in gzip", func(_ *publisher, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(make([]byte, 10<<20))
			z.Close()
		}, ErrResolve, "encoding"},
		{"another DID's document", func(p *publisher, w http.ResponseWriter, _ *http.Request) { w.Write(published(t, p.id+":mallory")) }, ErrDocument, "describes"},
		{"that of another port", func(_ *publisher, w http.ResponseWriter, _ *http.Request) { w.Write(published(t, other.id)) }, ErrDocument, "describes"},
		{"a page", func(_ *publisher, w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, ErrDocument, ""},
		{"nothing in it", func(*publisher, http.ResponseWriter, *http.Request) {}, ErrDocument, ""},
		{"two ids", func(p *publisher, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"id":"did:web:mallory.example","id":%q}`, p.id)
		}, ErrDocument, "duplicate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPublisher(t, "127.0.0.1:0", test.answer)
			data, err := p.trusting(t).Resolve(t.Context(), p.id)
			if data != nil || !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q, %v", data, err)
			}
			if n := p.asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
	t.Cleanup(func() {
		if n := other.met.Load(); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
}

func TestResolveHasAnEndInTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	drip := newPublisher(t, "127.0.0.1:0", func(_ *publisher, w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("{"))
		for r.Context().Err() == nil {
			w.Write([]byte(" "))
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	for name, id := range map[string]DID{
		"a server that never speaks": DID(fmt.Sprintf("did:web:example.com%%3A%d", silent.Addr().(*net.TCPAddr).Port)),
		"a document byte by byte":    drip.id,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := drip.trusting(t).Resolve(t.Context(), id)
			if took := time.Since(start); !errors.Is(err, ErrResolve) || took > resolveTimeout+2*time.Second {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
}

func TestResolveStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := newPublisher(t, "127.0.0.1:0", func(*publisher, http.ResponseWriter, *http.Request) {})
	if _, err := p.trusting(t).Resolve(ctx, p.id); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestResolveRefusesBadTLS(t *testing.T) {
	p := newPublisher(t, "127.0.0.1:0", func(p *publisher, w http.ResponseWriter, _ *http.Request) { w.Write(published(t, p.id)) })
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }))
	t.Cleanup(plain.Close)
	unknown := p.trusting(t)
	unknown.Roots = x509.NewCertPool()
	for _, test := range []struct {
		name     string
		resolver Resolver
		id       DID
		says     string
	}{
		{"an authority that nobody trusts", unknown, p.id, "certificate"},
		{"the system's authorities", Resolver{DNS: unknown.DNS, Allowed: unknown.Allowed}, p.id, "certificate"},
		{"a certificate for another host", p.trusting(t), DID(strings.Replace(string(p.id), "example.com", "mallory.test", 1)), "certificate"},
		{"plain http", p.trusting(t), DID(fmt.Sprintf("did:web:example.com%%3A%d", plain.Listener.Addr().(*net.TCPAddr).Port)), ""},
	} {
		if _, err := test.resolver.Resolve(t.Context(), test.id); !errors.Is(err, ErrResolve) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if n := p.asked.Load(); n != 0 {
		t.Errorf("asked %d times behind a certificate that does not hold", n)
	}
}

// TestResolveDialsNoPrivateAddress: what the name leads to decides, also when it
// leads elsewhere the next time.
func TestResolveDialsNoPrivateAddress(t *testing.T) {
	victim := newPublisher(t, "127.0.0.1:0", func(p *publisher, w http.ResponseWriter, _ *http.Request) { w.Write(published(t, p.id)) })
	refused := func(t *testing.T, r Resolver) {
		t.Helper()
		if _, err := r.Resolve(t.Context(), victim.id); !errors.Is(err, ErrAddress) || !errors.Is(err, ErrResolve) {
			t.Errorf("%v", err)
		}
		if n := victim.met.Load(); n != 0 {
			t.Fatalf("connected %d times", n)
		}
	}
	t.Run("loopback by name", func(t *testing.T) {
		_, dns := newNameServer(t, loopback)
		refused(t, Resolver{DNS: dns, Roots: victim.roots()})
	})
	t.Run("loopback in IPv6's clothes", func(t *testing.T) {
		_, dns := newNameServer(t, []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1"), netip.IPv6Loopback()})
		refused(t, Resolver{DNS: dns, Roots: victim.roots()})
	})
	t.Run("another than the one allowed", func(t *testing.T) {
		_, dns := newNameServer(t, loopback)
		refused(t, Resolver{DNS: dns, Roots: victim.roots(), Allowed: prefixes("127.0.0.2/32", "10.0.0.0/8")})
	})
	t.Run("beside one that is allowed", func(t *testing.T) { // where nobody listens
		_, dns := newNameServer(t, []netip.Addr{netip.MustParseAddr("127.0.0.2"), loopback[0]})
		if _, err := (Resolver{DNS: dns, Roots: victim.roots(), Allowed: prefixes("127.0.0.2/32")}).Resolve(t.Context(), victim.id); !errors.Is(err, ErrResolve) {
			t.Error(err)
		}
		if n := victim.met.Load(); n != 0 {
			t.Fatalf("connected %d times", n)
		}
	})
	t.Run("rebound between two questions", func(t *testing.T) {
		names, dns := newNameServer(t, []netip.Addr{netip.MustParseAddr("127.0.0.2")}, loopback)
		r := Resolver{DNS: dns, Roots: victim.roots(), Allowed: prefixes("127.0.0.2/32")}
		if _, err := r.Resolve(t.Context(), victim.id); !errors.Is(err, ErrResolve) || errors.Is(err, ErrAddress) {
			t.Errorf("the first address is allowed: %v", err)
		}
		refused(t, r)
		names.mu.Lock()
		defer names.mu.Unlock()
		if names.asked < 4 {
			t.Errorf("the name was asked for %d times only", names.asked)
		}
	})
	t.Run("a name that is unknown", func(t *testing.T) {
		_, dns := newNameServer(t, nil)
		if _, err := (Resolver{DNS: dns}).Resolve(t.Context(), victim.id); !errors.Is(err, ErrResolve) {
			t.Error(err)
		}
	})
}

func TestAddressesThatAreNotPublic(t *testing.T) {
	for _, text := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.255.255.255", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
		"198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1",
		"2001:db8::1", "2002:7f00:1::1", "3fff::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "2a00::1%eth0", "fec0::1", "ff02::1", "4000::1",
	} {
		if err := checkAddress(netip.MustParseAddr(text), nil); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := checkAddress(netip.Addr{}, nil); !errors.Is(err, ErrAddress) {
		t.Errorf("no address: %v", err)
	}
	for _, text := range []string{"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "192.1.0.1", "::ffff:8.8.8.8", "2606:4700::1111", "2a00:1450::1"} {
		if err := checkAddress(netip.MustParseAddr(text), nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	everything := prefixes("0.0.0.0/0", "::/0")
	for _, text := range []string{"0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1%eth0"} {
		if err := checkAddress(netip.MustParseAddr(text), everything); !errors.Is(err, ErrAddress) {
			t.Errorf("%s, however much is allowed: %v", text, err)
		}
	}
	for _, text := range []string{"10.1.2.3", "::ffff:10.1.2.3"} {
		if err := checkAddress(netip.MustParseAddr(text), prefixes("10.1.2.0/24")); err != nil {
			t.Errorf("%s is allowed: %v", text, err)
		}
	}
}

func TestWhereADocumentIsPublished(t *testing.T) {
	for _, test := range []struct{ id, url string }{
		{"did:web:example.com", "https://example.com/.well-known/did.json"},
		{"did:web:example.com%3A8443", "https://example.com:8443/.well-known/did.json"},
		{"did:web:example.com:user:alice", "https://example.com/user/alice/did.json"},
		{"did:web:example.com%3A443:a.b", "https://example.com:443/a.b/did.json"},
	} {
		if url, err := DID(test.id).WebURL(); err != nil || url != test.url {
			t.Errorf("%s: %q, %v", test.id, url, err)
		}
	}
	for _, id := range []string{
		"", "did:key:" + exampleEd25519, "did:web:", "did:web:a%2Fb.example", "did:web:host.example%2F..%2Fx", "did:web:user@host.example", "did:web:user%40host.example",
		"did:web:host.example:..:x", "did:web:host.example:.", "did:web:host.example::x", "did:web:host.example:a%2Fb", "did:web:host.example/x", "did:web:host.example?x",
		"did:web:host.example#x", "did:web:127.0.0.1", "did:web:[::1]", "did:web:0x7f000001", "did:web:2130706433", "did:web:127.1", "did:web:host.example%3A0",
		"did:web:host.example%3A65536", "did:web:host.example%3a443", "did:web:HOST.example", "did:web:host.example%3A443%3A444", "did:web:host.example:8443%3A", "did:web:host..example",
		"did:web:host.example\r\nX: y", "did:web:host.example%0d%0a", "did:web:höst.example", "did:web:-a.example",
	} {
		if url, err := DID(id).WebURL(); !errors.Is(err, ErrDID) {
			t.Errorf("%q: %q, %v", id, url, err)
		}
		if _, err := (Resolver{}).Resolve(t.Context(), DID(id)); !errors.Is(err, ErrDID) {
			t.Errorf("resolve %q: %v", id, err)
		}
	}
}

func TestNewDocumentIsRead(t *testing.T) {
	ed, p256 := testKeys(t)
	const id = DID("did:web:host.example")
	one, two := URL{id, "one"}, URL{id, "two"}
	data, err := NewDocument(id, []DocumentKey{{one, ed.Public()}, {two, p256.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDocument(data)
	if err != nil {
		t.Fatal(err)
	}
	for u, want := range map[URL]PublicKey{one: ed.Public(), two: p256.Public()} {
		for _, rel := range []Relationship{Authentication, AssertionMethod, CapabilityInvocation} {
			if key, err := ResolveKey(u, rel, d); err != nil || key != want {
				t.Errorf("%s for %s: %v, %v", u, rel, key, err)
			}
		}
		if !d.Holds(want) {
			t.Errorf("does not hold %s", want)
		}
	}
	if stranger, _ := ParseMultikey(exampleEd25519); d.Holds(stranger) || d.Holds(PublicKey{}) {
		t.Error("holds a key that it does not")
	}
	if n := len(d.Keys()); n != 2 {
		t.Errorf("%d keys", n)
	}
	again, err := NewDocument(id, []DocumentKey{{two, p256.Public()}, {one, ed.Public()}, {URL{id, "three"}, ed.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParseDocument(again)
	if list := d.PublicKeys(); err != nil || len(list) != 2 || !slices.Equal(list, other.PublicKeys()) || !d.Holds(list[0]) || !d.Holds(list[1]) {
		t.Errorf("%v, %v, %v", list, other.PublicKeys(), err)
	}
	if _, err := NewDocument("did:web:other.example", []DocumentKey{{one, ed.Public()}}); !errors.Is(err, ErrDocument) {
		t.Errorf("another's key: %v", err)
	}
	if _, err := NewDocument(id, []DocumentKey{{one, ed.Public()}, {one, p256.Public()}}); !errors.Is(err, ErrDocument) {
		t.Errorf("two keys of one name: %v", err)
	}
}

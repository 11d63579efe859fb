package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// liar is a proxy in front of a store that does to requests and answers what
// networks, proxies and overloaded stores do.
type liar struct {
	target string
	client http.RoundTripper

	mu     sync.Mutex
	random *rand.Rand
	// often is how many of a hundred requests something is done to.
	often int
	// only, if not empty, is what is done; else it is drawn.
	only []string
	did  map[string]int
}

// faults are what is done.
var faults = []string{
	"delay", "cut before", "cut request", "lost answer", "500", "503 done", "412", "404 of nobody", "cut answer", "truncate", "flip answer", "flip request",
}

func newLiar(t *testing.T, server *testbed.S3Server, seed uint64) (*liar, string) {
	t.Helper()
	l := &liar{
		target: strings.TrimPrefix(server.Endpoint, "http://"), client: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
		random: rand.New(rand.NewPCG(seed, 1)), did: map[string]int{},
	}
	proxy := httptest.NewServer(l)
	t.Cleanup(func() {
		proxy.CloseClientConnections()
		proxy.Close()
		l.client.(*http.Transport).CloseIdleConnections()
	})
	return l, proxy.URL
}

// draw is what is done to the next request, "" for nothing, and a number.
func (l *liar) draw() (fault string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.random.IntN(100) >= l.often {
		return "", 0
	}
	among := faults
	if len(l.only) > 0 {
		among = l.only
	}
	fault = among[l.random.IntN(len(among))]
	l.did[fault]++
	return fault, l.random.IntN(1 << 30)
}

func (l *liar) set(often int, only ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.often, l.only = often, only
}

// ServeHTTP implements http.Handler.
func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, n := l.draw()
	switch fault {
	case "delay":
		time.Sleep(time.Duration(n%100) * time.Millisecond)
	case "cut before":
		panic(http.ErrAbortHandler)
	case "500", "412", "404 of nobody":
		io.Copy(io.Discard, r.Body)
		l.answer(w, fault)
		return
	}
	answer := l.forward(r, fault, n)
	if answer == nil || fault == "lost answer" {
		panic(http.ErrAbortHandler)
	}
	if fault == "503 done" {
		l.answer(w, fault)
		return
	}
	l.reply(w, answer, fault, n)
}

// answer is one that the store has not given.
func (l *liar) answer(w http.ResponseWriter, fault string) {
	code := map[string]string{"412": "PreconditionFailed", "500": "InternalError", "503 done": "SlowDown", "404 of nobody": "NoSuchKey"}[fault]
	if fault != "404 of nobody" {
		w.Header().Set("X-Amz-Request-Id", "1")
	}
	w.Header().Set("Content-Type", "application/xml")
	status, _ := strconv.Atoi(fault[:3])
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", code)
}

// forward sends the request on; nil where the store did not get all of it.
func (l *liar) forward(r *http.Request, fault string, n int) *http.Response {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", l.target, ""
	if fault == "flip request" {
		body = flipRequest(out, body, n)
	}
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if fault == "cut request" {
		out.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), cutReader{}))
	}
	if len(body) == 0 {
		out.Body = nil
	}
	answer, err := l.client.RoundTrip(out)
	if err != nil {
		return nil
	}
	return answer
}

type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, errors.New("cut") }

// flipRequest changes a bit of the body, the path or a header.
func flipRequest(r *http.Request, body []byte, n int) []byte {
	if len(body) > 0 && n%2 == 0 {
		body[n/2%len(body)] ^= 1 << (n % 7)
		return body
	}
	var names []string
	for name := range r.Header {
		if name != "Content-Length" && name != "Accept-Encoding" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	name := names[n/2%len(names)]
	value := []byte(r.Header.Get(name))
	if len(value) == 0 {
		return body
	}
	value[n/16%len(value)] ^= 1 << (n % 5)
	r.Header.Set(name, strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, string(value)))
	return body
}

// reply writes the store's answer, or most of it, bit by bit.
func (l *liar) reply(w http.ResponseWriter, answer *http.Response, fault string, n int) {
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if fault == "truncate" && len(body) > 0 && answer.Request.Method != http.MethodHead {
		body = body[:n%len(body)]
		answer.Header.Set("Content-Length", strconv.Itoa(len(body)))
		answer.ContentLength = int64(len(body))
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	text, err := httputil.DumpResponse(answer, true)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	switch fault {
	case "cut answer":
		text = text[:n%len(text)]
	case "flip answer":
		text[n%len(text)] ^= 1 << (n % 7)
	}
	connection.Write(text)
}

// through is a store behind the liar, and one that sees what is really there.
func through(t *testing.T, seed uint64) (l *liar, lied, direct *Store) {
	t.Helper()
	server := testbed.SharedMinIO(t)
	bucket := server.NewBucket(t)
	l, address := newLiar(t, server, seed)
	lied, err := newStore("s3://"+bucket+"/faulty?endpoint="+url.QueryEscape(address), Options{
		AccessKey: server.AccessKey, SecretKey: server.SecretKey, Spool: t.TempDir(), Patience: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lied.Close() })
	return l, lied, open(t, server, bucket+"/faulty")
}

// payload is seeded bytes of a few sizes.
func payload(n int) []byte {
	sizes := []int{7, 200, 70 << 10, 1<<20 + 1, 3 << 20}
	data := make([]byte, sizes[n%len(sizes)])
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(data)
	return data
}

// Whatever is done to a third of all requests: what is said to be stored is,
// what is handed out is right, and nothing else is said but that the store is
// not available.
func TestFaultsNeverLie(t *testing.T) {
	l, lied, direct := through(t, 1)
	l.set(35)
	const count = 60
	stored, taken := make([]bool, count), make([][]byte, count)
	var group sync.WaitGroup
	for worker := range 6 {
		group.Go(func() {
			for i := worker; i < count; i += 6 {
				stored[i] = putAndOpen(t, lied, i)
				taken[i] = createAndRead(t, lied, i)
			}
		})
	}
	group.Wait()
	l.set(0)
	acknowledged := 0
	for i := range count {
		for _, b := range taken[i] {
			if got, err := direct.Read(t.Context(), entry(i)); err != nil || got[0] == b {
				t.Errorf("Create %d by %c was told that others' bytes are there: %.1q, %v", i, b, got, err)
			}
		}
		if !stored[i] {
			continue
		}
		acknowledged++
		if data, err := read(t, direct, storage.CIDOf(payload(i))); err != nil || !bytes.Equal(data, payload(i)) {
			t.Errorf("blob %d was acknowledged: %d bytes, %v", i, len(data), err)
		}
	}
	if acknowledged < count/2 {
		t.Errorf("%d of %d were stored: it gives up too early", acknowledged, count)
	}
	for _, fault := range faults {
		if l.did[fault] == 0 {
			t.Errorf("nothing was done of %q", fault)
		}
	}
	t.Logf("%d of %d stored; done: %v", acknowledged, count, l.did)
}

func read(t *testing.T, s *Store, id storage.CID) ([]byte, error) {
	t.Helper()
	blob, err := s.Open(t.Context(), id)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return io.ReadAll(blob)
}

func putAndOpen(t *testing.T, s *Store, i int) bool {
	t.Helper()
	data := payload(i)
	id := storage.CIDOf(data)
	var r io.Reader = bytes.NewReader(data)
	if i%2 == 0 {
		r = io.MultiReader(r) // that cannot go back
	}
	err := s.Put(t.Context(), id, int64(len(data)), r)
	if err != nil && !unavailable(err) {
		t.Errorf("Put %d: %v", i, err)
	}
	acknowledged := err == nil
	got, err := read(t, s, id)
	switch {
	case err == nil && !bytes.Equal(got, data):
		t.Errorf("Open %d hands out other bytes", i)
	case err != nil && !unavailable(err) && (acknowledged || !errors.Is(err, storage.ErrNotFound)):
		t.Errorf("Open %d, acknowledged: %t: %v", i, acknowledged, err)
	}
	size, err := s.Stat(t.Context(), id)
	switch {
	case err == nil && size != int64(len(data)):
		t.Errorf("Stat %d says %d bytes, want %d", i, size, len(data))
	case err != nil && !unavailable(err) && (acknowledged || !errors.Is(err, storage.ErrNotFound)):
		t.Errorf("Stat %d, acknowledged: %t: %v", i, acknowledged, err)
	}
	return acknowledged
}

func entry(i int) string { return fmt.Sprintf("log/entry/%016d", i) }

// createAndRead has three create one key with other bytes each, and returns the
// letters of those that were told that other bytes are there.
func createAndRead(t *testing.T, s *Store, i int) (taken []byte) {
	t.Helper()
	content := func(n int) []byte { return bytes.Repeat([]byte{byte('a' + n)}, 100+i) }
	failures := make([]error, 3)
	var group sync.WaitGroup
	for n := range failures {
		group.Go(func() { failures[n] = s.Create(t.Context(), entry(i), content(n)) })
	}
	group.Wait()
	winner := -1
	for n, err := range failures {
		switch {
		case err == nil && winner >= 0:
			t.Errorf("entry %d: both %d and %d were told that they created it", i, winner, n)
		case err == nil:
			winner = n
		case errors.Is(err, storage.ErrExists):
			taken = append(taken, content(n)[0])
		case !unavailable(err):
			t.Errorf("Create %d: %v", i, err)
		}
	}
	got, err := s.Read(t.Context(), entry(i))
	switch {
	case err == nil && winner >= 0 && !bytes.Equal(got, content(winner)):
		t.Errorf("Read %d: not what was acknowledged", i)
	case err != nil && !unavailable(err) && (winner >= 0 || !errors.Is(err, storage.ErrNotFound)):
		t.Errorf("Read %d, acknowledged: %t: %v", i, winner >= 0, err)
	}
	return taken
}

// Lists under faults that show themselves: all keys, or an error.
func TestFaultsDoNotShortenLists(t *testing.T) {
	l, lied, direct := through(t, 2)
	var want, blobs []string
	for i := range 60 {
		key, data := fmt.Sprintf("log/entry/%03d", i), fmt.Sprint(i)
		if err := direct.Create(t.Context(), key, []byte(data)); err != nil {
			t.Fatal(err)
		}
		id := storage.CIDOf([]byte(data))
		if err := direct.Put(t.Context(), id, int64(len(data)), strings.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		want, blobs = append(want, key), append(blobs, id.String())
	}
	slices.Sort(blobs)
	lied.pageSize = 7
	l.set(40, "delay", "cut before", "lost answer", "500", "503 done", "412", "404 of nobody", "cut answer", "truncate")
	for range 5 {
		if got := list(t, lied, "log/", ""); !slices.Equal(got, want) {
			t.Errorf("List: %d keys, want %d", len(got), len(want))
		}
		if got := ids(t, lied); !slices.Equal(got, blobs) {
			t.Errorf("All: %d blobs, want %d", len(got), len(blobs))
		}
	}
}

// Faults that never end are errors, in time, and leave nothing running.
func TestFaultsThatStay(t *testing.T) {
	_, warm, _ := through(t, 3) // whatever the first use of all starts
	warm.Probe(t.Context())
	warm.Close()
	for _, fault := range faults[1:] {
		t.Run(fault, func(t *testing.T) {
			before := runtime.NumGoroutine()
			l, lied, direct := through(t, 4)
			lied.patience = time.Second
			data := payload(3)
			id := storage.CIDOf(data)
			l.set(100, fault)
			begin := time.Now()
			err := lied.Put(t.Context(), id, int64(len(data)), bytes.NewReader(data))
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("Put took %s", took)
			}
			if err == nil {
				l.set(0)
				if got, err := read(t, direct, id); err != nil || !bytes.Equal(got, data) {
					t.Errorf("Put said that it is stored: %d bytes, %v", len(got), err)
				}
			} else if !unavailable(err) {
				t.Errorf("Put: %v", err)
			}
			if _, err := lied.Open(t.Context(), storage.CIDOf([]byte("never stored"))); err == nil || errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("Open of nothing: error %v", err)
			}
			lied.Close()
			direct.Close()
			l.client.(*http.Transport).CloseIdleConnections()
			settle(t, before)
		})
	}
}

// settle waits until no more goroutines run than before, but for the proxy's own.
func settle(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before+6 {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before there were %d\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

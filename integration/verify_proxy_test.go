package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// exchange is a request and what was answered.
type exchange struct {
	method, path string
	// nth counts equal requests of one run, from 0.
	nth    int
	status int
	header http.Header
	body   []byte
	// cut ends the connection after body, though more was announced.
	cut bool
}

func (e exchange) String() string { return fmt.Sprintf("%s %s #%d", e.method, e.path, e.nth) }

// kind groups answers that could stand in for each other.
func (e exchange) kind() string {
	for _, k := range []struct{ name, part string }{
		{"session", "/v1/session"}, {"checkpoint", "/log/checkpoint"}, {"keys", "/log/keys"}, {"entries", "/log/tile/entries/"},
		{"tile", "/log/tile/"}, {"attachment", "/attachments/"}, {"record", "/v1/records/"},
		{"bundle", "/bundle"}, {"download", "/download"}, {"index", "/index/"},
	} {
		if strings.Contains(e.path, k.part) {
			return k.name
		}
	}
	return "other"
}

// proxy stands between a client and a registry, keeps what passes, and alters it.
type proxy struct {
	t testing.TB
	*httptest.Server

	mu     sync.Mutex
	target string
	seen   []exchange
	alter  func(exchange) exchange
}

func newProxy(t testing.TB) *proxy {
	p := &proxy{t: t}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// aim makes target the server that requests are passed on to.
func (p *proxy) aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) aimedAt() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// begin forgets what passed and alters from now on by alter, nil for not at all.
func (p *proxy) begin(alter func(exchange) exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.alter = nil, alter
}

func (p *proxy) exchanges() []exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]exchange(nil), p.seen...)
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, err := p.forward(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	p.mu.Lock()
	for _, earlier := range p.seen {
		if earlier.method == e.method && earlier.path == e.path {
			e.nth++
		}
	}
	p.seen = append(p.seen, e)
	if p.alter != nil {
		e = p.alter(e)
	}
	p.mu.Unlock()
	for name, values := range e.header {
		if name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	length := len(e.body)
	if e.cut {
		length += 100
	}
	w.Header().Set("Content-Length", fmt.Sprint(length))
	w.WriteHeader(e.status)
	w.Write(e.body)
}

func (p *proxy) forward(r *http.Request) (exchange, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return exchange{}, err
	}
	req, err := http.NewRequest(r.Method, p.aimedAt()+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return exchange{}, err
	}
	req.Header = r.Header.Clone()
	req.Header.Set("Accept-Encoding", "identity") // what is altered is what is read
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return exchange{}, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return exchange{method: r.Method, path: r.URL.EscapedPath(), status: resp.StatusCode, header: resp.Header, body: answer}, err
}

// alteration is one way of not passing an answer on as it was.
type alteration struct {
	name string
	answer
}

type answer struct {
	status int
	body   []byte
	cut    bool
}

// alterations are all that this test does to e. others are valid answers of
// the same kind to other questions, or by another registry, or of another time.
// Of the many flips, replacements and swaps there are, it draws most at random.
func alterations(e exchange, others [][]byte, most int, random *rand.Rand) []alteration {
	list := []alteration{
		{"404", answer{status: http.StatusNotFound, body: []byte("altered: 404\n")}},
		{"500", answer{status: http.StatusInternalServerError, body: []byte("altered: 500\n")}},
		{"cut off", answer{status: e.status, body: e.body[:len(e.body)/2], cut: true}},
	}
	add := func(body []byte, format string, args ...any) {
		if !bytes.Equal(body, e.body) {
			list = append(list, alteration{fmt.Sprintf(format, args...), answer{status: e.status, body: body}})
		}
	}
	for _, at := range flipPositions(e, most, random) {
		flipped := bytes.Clone(e.body)
		flipped[at] ^= 1 << random.IntN(8)
		add(flipped, "byte %d is %q instead of %q", at, flipped[at], e.body[at])
	}
	for _, length := range []int{0, len(e.body) / 2, max(0, len(e.body)-1)} {
		add(e.body[:length], "truncated to %d of %d", length, len(e.body))
	}
	add(append(bytes.Clone(e.body), e.body...), "twice")
	for i, other := range drawn(others, most, random) {
		add(other, "replaced by another %s (%d)", e.kind(), i)
	}
	for i, swapped := range drawn(swaps(e), 2*most, random) {
		add(swapped, "JSON swap %d", i)
	}
	return list
}

func drawn(list [][]byte, most int, random *rand.Rand) [][]byte {
	list = append([][]byte(nil), list...)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(most, len(list))]
}

func flipPositions(e exchange, more int, random *rand.Rand) []int {
	if len(e.body) == 0 {
		return nil
	}
	positions := []int{0, len(e.body) - 1}
	if e.kind() == "checkpoint" {
		more *= 2
	}
	for range more {
		positions = append(positions, random.IntN(len(e.body)))
	}
	return positions
}

// swaps exchanges values in a JSON answer: neighbours of one type, array
// elements, and it leaves elements out or doubles them.
func swaps(e exchange) [][]byte {
	var documents []any
	lines := e.kind() == "index"
	switch e.kind() {
	case "bundle", "keys", "session":
		documents = []any{decodeJSON(e.body)}
	case "index":
		for line := range bytes.Lines(e.body) {
			documents = append(documents, decodeJSON(line))
		}
	default:
		return nil
	}
	encode := func(v any) []byte {
		if !lines {
			return encodeJSON(v.([]any)[0])
		}
		var all []byte
		for _, line := range v.([]any) {
			all = append(append(all, encodeJSON(line)...), '\n')
		}
		return all
	}
	var list [][]byte
	for variant := 0; variant < 40; variant++ {
		root := decodeJSON(encodeJSON(documents))
		left := variant
		if changed, done := swapNth(root, &left, lines); done {
			list = append(list, encode(changed))
		}
	}
	return list
}

func decodeJSON(raw []byte) any {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil
	}
	return v
}

func encodeJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// swapNth makes the left'th of all possible exchanges in v. top: v is the list
// of documents, and may itself lose or double an element.
func swapNth(v any, left *int, top bool) (any, bool) {
	take := func() bool { *left--; return *left == -1 }
	switch v := v.(type) {
	case []any:
		if top || len(v) > 1 || nested(v) {
			for i := range v {
				if i > 0 && take() {
					v[i-1], v[i] = v[i], v[i-1]
					return v, true
				}
				if top && take() {
					return append(append([]any{}, v[:i]...), v[i+1:]...), true
				}
				if top && take() {
					return append(append([]any{}, v[:i+1]...), v[i:]...), true
				}
			}
		}
		for i := range v {
			if changed, done := swapNth(v[i], left, false); done {
				v[i] = changed
				return v, true
			}
		}
		for i := 1; i < len(v); i++ { // the same member of two neighbours
			a, okA := v[i-1].(map[string]any)
			b, okB := v[i].(map[string]any)
			if !okA || !okB {
				continue
			}
			for _, name := range sortedKeys(a) {
				if !reflect.DeepEqual(a[name], b[name]) && take() {
					a[name], b[name] = b[name], a[name]
					return v, true
				}
			}
		}
	case map[string]any:
		return swapInObject(v, left, take)
	}
	return v, false
}

func nested(list []any) bool {
	for _, v := range list {
		if _, ok := v.(map[string]any); ok {
			return true
		}
	}
	return false
}

func swapInObject(v map[string]any, left *int, take func() bool) (any, bool) {
	names := sortedKeys(v)
	for _, name := range names {
		if list, ok := v[name].([]any); ok {
			for i := range list { // leave each element out once, double the first
				if take() {
					v[name] = append(append([]any{}, list[:i]...), list[i+1:]...)
					return v, true
				}
			}
		}
		if b, ok := v[name].(bool); ok && take() {
			v[name] = !b
			return v, true
		}
		if changed, done := swapNth(v[name], left, false); done {
			v[name] = changed
			return v, true
		}
	}
	for i, a := range names {
		for _, b := range names[i+1:] {
			if reflect.TypeOf(v[a]) == reflect.TypeOf(v[b]) && !reflect.DeepEqual(v[a], v[b]) && take() {
				v[a], v[b] = v[b], v[a]
				return v, true
			}
		}
	}
	return v, false
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// askedAgain reports whether an answer is one that an honest server which is behind
// others gives for a moment: an older checkpoint, or a tile that it has not got. Who
// goes on giving it is not believed (client/lag_test.go).
func askedAgain(e exchange, a answer) bool {
	return e.kind() == "checkpoint" && !a.cut && a.status == e.status ||
		strings.HasPrefix(e.path, "/log/tile/") && a.status == http.StatusNotFound
}

// irrelevant says why an alteration takes nothing from what is proved. The run
// may then succeed, but only in the very words of the unaltered one. This is
// the whole list.
func irrelevant(e exchange, a answer) (why string) {
	if e.kind() == "keys" && a.status == http.StatusNotFound {
		return "older registries have no such proof; the keys are entry 0's then, and a checkpoint by others is refused"
	}
	if a.status != e.status || a.cut {
		return ""
	}
	switch e.kind() {
	case "session":
		return "a session lets in; it proves nothing, and a broken one is replaced"
	case "checkpoint":
		if sameSignatures(e.body, a.body) {
			return "text and signatures are as they were, in another spelling of base64"
		}
	case "bundle", "keys":
		before, after := bundleOf(e.body), bundleOf(a.body)
		switch {
		case after == nil:
		case reflect.DeepEqual(before, after):
			return "the same records and blobs; with which record a blob comes does not matter, its hash names it"
		case reflect.DeepEqual(before.blobs, after.blobs) && slices.Equal(before.records[:min(len(before.records), len(after.records))], after.records):
			return "newer records about the name were left out, which only log check --full finds; nothing is said of them"
		}
	}
	return ""
}

// sameSignatures: the notes have the same text, and signatures of the same bytes.
func sameSignatures(before, after []byte) bool {
	read := func(note []byte) string {
		text, signatures, _ := strings.Cut(string(note), "\n\n")
		for line := range strings.Lines(signatures) {
			name, encoded, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(encoded, "\n"))
			if err != nil || !strings.HasSuffix(line, "\n") {
				return ""
			}
			text += fmt.Sprintf("\n%s %x", name, raw)
		}
		return text
	}
	return read(after) != "" && read(before) == read(after)
}

// bundle is what the answer of that name holds.
type bundle struct {
	records []bundleRecord
	blobs   map[string]bool
}

type bundleRecord struct {
	index    int64
	envelope string
}

// bundleOf is nil where raw is not a bundle.
func bundleOf(raw []byte) *bundle {
	var b struct {
		Records []struct {
			Index       int64
			Envelope    string
			Attachments []string
		}
	}
	if json.Unmarshal(raw, &b) != nil {
		return nil
	}
	read := &bundle{records: []bundleRecord{}, blobs: map[string]bool{}}
	for _, r := range b.Records {
		read.records = append(read.records, bundleRecord{r.Index, r.Envelope})
		for _, blob := range r.Attachments {
			read.blobs[blob] = true
		}
	}
	return read
}

package client

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

type response struct {
	Ok *struct {
		Kind                 string `json:"kind"`
		Token                string `json:"token"`
		Cache                string `json:"cache"`
		Expiration           *int64 `json:"expiration"`
		OperationIndependent *bool  `json:"operation_independent"`
	}
	Err *struct {
		Kind     string   `json:"kind"`
		Message  string   `json:"message"`
		CausedBy []string `json:"caused-by"`
	}
}

// ask runs the provider over one request and returns its answer.
func ask(t *testing.T, c *Client, request string) response {
	t.Helper()
	var out bytes.Buffer
	if err := c.Provide(t.Context(), strings.NewReader(request+"\n"), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || lines[0] != `{"v":[1]}` || lines[2] != "" {
		t.Fatalf("wrote %q", out.String())
	}
	var r response
	decoder := json.NewDecoder(strings.NewReader(lines[1]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil || (r.Ok == nil) == (r.Err == nil) {
		t.Fatalf("answered %s: %v", lines[1], err)
	}
	return r
}

func request(registry, rest string) string {
	return `{"v":1,"registry":{"index-url":"` + registry + `","name":"whatever","headers":["WWW-Authenticate: Cargo"]},` + rest + `,"args":[],"more":1}`
}

// carried splits a token into the session's assertion and the record.
func carried(t *testing.T, f *fake, token string) (rec *record.Record, boundTo, scope string) {
	t.Helper()
	session, encoded, _ := strings.Cut(token, "~")
	assertion, ok := f.tokens[session]
	if !ok {
		t.Fatalf("%q is no session", session)
	}
	rec, err := record.Parse(must(base64.RawURLEncoding.DecodeString(encoded)))
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.Verify(must(did.KeyOf(rec.Header().Signer.DID))); err != nil {
		t.Fatal(err)
	}
	if assertion.Lifetime != 300 {
		t.Errorf("the session lives %d s", assertion.Lifetime)
	}
	return rec, assertion.Rec, assertion.Scope
}

func TestProviderReadsWithACachedSession(t *testing.T) {
	f, c, r := loggedIn(t)
	read := request(r.pin.IndexURL, `"kind":"get","operation":"read"`)
	first, second := ask(t, c, read), ask(t, c, read)
	if first.Ok == nil || first.Ok.Kind != "get" || first.Ok.Cache != "expires" || first.Ok.OperationIndependent == nil || *first.Ok.OperationIndependent {
		t.Fatalf("%+v, %+v", first.Ok, first.Err)
	}
	if left := time.Until(time.Unix(*first.Ok.Expiration, 0)); left < 10*time.Minute || left > 30*time.Minute {
		t.Errorf("expires in %v", left)
	}
	if first.Ok.Token != second.Ok.Token || f.count("POST /v1/session") != 1 {
		t.Errorf("the session was not kept: %v", f.requests)
	}
}

func TestProviderSignsChanges(t *testing.T) {
	f, c, r := loggedIn(t)
	id, _ := r.Identity()
	digest := sha256.Sum256([]byte("crate"))
	publish := func(version string) string {
		return request(r.pin.IndexURL, `"kind":"get","operation":"publish","name":"demo","vers":"`+version+`","cksum":"`+hex.EncodeToString(digest[:])+`"`)
	}
	first := ask(t, c, publish("1.0.0"))
	if first.Ok == nil || first.Ok.Cache != "never" || first.Ok.Expiration != nil || *first.Ok.OperationIndependent {
		t.Fatalf("%+v, %+v", first.Ok, first.Err)
	}
	rec, bound, scope := carried(t, f, first.Ok.Token)
	h := rec.Header()
	if rec.Type() != record.TypePublish || rec.Subject().String() != "crate/demo@1.0.0" || rec.Digest() != digest ||
		bound != string(rec.ID()) || scope != "publish" || h.Prev != "" || h.By != f.members[id.DID()] || h.Registry != r.pin.Origin || h.Signer != id.KeyID() {
		t.Errorf("publish: %+v of %s bound to %s for %s", h, rec.Subject(), bound, scope)
	}
	f.log(rec)
	rec2, _, _ := carried(t, f, ask(t, c, publish("1.1.0+build")).Ok.Token)
	if h := rec2.Header(); h.Prev != rec.ID() || h.By != rec.ID() || rec2.Subject().Version() != "1.1.0+build" {
		t.Errorf("second publish: %+v", h)
	}
	for operation, yanked := range map[string]bool{"yank": true, "unyank": false} {
		answer := ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"`+operation+`","name":"demo","vers":"1.0.0"`))
		rec, bound, _ := carried(t, f, answer.Ok.Token)
		body, ok := rec.Body().(*record.Yank)
		if !ok || body.Yanked != yanked || bound != string(rec.ID()) || answer.Ok.Cache != "never" {
			t.Errorf("%s: %+v", operation, rec.Body())
		}
	}
	answer := ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"owners","name":"demo"`))
	intent, bound, _ := carried(t, f, answer.Ok.Token)
	h = intent.Header()
	if intent.Type() != record.TypeOwnIntent || h.Expires.Sub(h.IssuedAt) > 120*time.Second || h.Prev != rec.ID() || bound != string(intent.ID()) || answer.Ok.Cache != "never" {
		t.Errorf("owners: %+v", h)
	}
	for _, r := range f.requests {
		if strings.Contains(r, "~") {
			t.Errorf("the provider itself sent the record: %s", r)
		}
	}
	if files := must(filepath.Glob(filepath.Join(c.home.Path(), "sessions", "*.json"))); len(files) != 1 {
		t.Errorf("sessions for changes were kept: %v", files)
	}
}

func TestProviderGivesWhoIsNoOwnerAPlainSession(t *testing.T) {
	f, c, r := loggedIn(t)
	other := must(did.GenerateEd25519(zeros{}))
	f.publish(Identity{key: did.NamedKey{Key: other}, id: other.Public().URL()}, "demo", "1.0.0", nil)
	for _, name := range []string{"demo", "unknown"} {
		answer := ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"owners","name":"`+name+`"`))
		if answer.Ok == nil || strings.Contains(answer.Ok.Token, "~") || f.tokens[answer.Ok.Token].Scope != "publish" || answer.Ok.Cache != "never" {
			t.Errorf("%s: %+v, %+v", name, answer.Ok, answer.Err)
		}
	}
}

func TestProviderRefuses(t *testing.T) {
	f, c, r := loggedIn(t)
	id, _ := r.Identity()
	other := must(did.GenerateEd25519(zeros{}))
	f.publish(Identity{key: did.NamedKey{Key: other}, id: other.Public().URL()}, "theirs", "1.0.0", nil)
	out, outID := stranger(t, f)
	index := r.pin.IndexURL
	cksum := `"cksum":"` + strings.Repeat("ab", 32) + `"`
	for name, test := range map[string]struct {
		client        *Client
		request       string
		kind, message string
	}{
		"another registry":    {c, request("sparse+https://index.crates.io/", `"kind":"get","operation":"read"`), "url-not-supported", ""},
		"a git index":         {c, request("https://github.com/rust-lang/crates.io-index", `"kind":"get","operation":"read"`), "url-not-supported", ""},
		"a nonsense URL":      {c, request("x", `"kind":"logout"`), "url-not-supported", ""},
		"login":               {c, request(index, `"kind":"login","token":"s3cret"`), "other", "aln-registry login " + f.server.URL},
		"logout, no session":  {c, request(index, `"kind":"logout"`), "not-found", ""},
		"unknown kind":        {c, request(index, `"kind":"dance"`), "operation-not-supported", ""},
		"unknown operation":   {c, request(index, `"kind":"get","operation":"dance"`), "operation-not-supported", ""},
		"version 2":           {c, strings.Replace(request(index, `"kind":"logout"`), `"v":1`, `"v":2`, 1), "other", "not 2"},
		"no JSON":             {c, `hello`, "other", "cannot read"},
		"two kinds":           {c, request(index, `"kind":"logout","kind":"login"`), "other", "cannot read"},
		"stranger reads":      {out, request(index, `"kind":"get","operation":"read"`), "other", "aln-registry member add " + string(outID.DID()) + " --role publisher"},
		"stranger publishes":  {out, request(index, `"kind":"get","operation":"publish","name":"demo","vers":"1.0.0",`+cksum), "other", "aln-registry member add " + string(outID.DID())},
		"not an owner":        {c, request(index, `"kind":"get","operation":"publish","name":"theirs","vers":"1.0.1",`+cksum), "other", "aln-registry owner add crate/theirs " + string(id.DID())},
		"no checksum":         {c, request(index, `"kind":"get","operation":"publish","name":"demo","vers":"1.0.0"`), "other", "checksum"},
		"bad name":            {c, request(index, `"kind":"get","operation":"yank","name":"../x","vers":"1.0.0"`), "other", "not a name"},
		"bad version":         {c, request(index, `"kind":"get","operation":"yank","name":"demo","vers":"one"`), "other", "version"},
		"bad name for owners": {c, request(index, `"kind":"get","operation":"owners","name":""`), "other", "not a name"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.DropSession(t.Context()); err != nil { // the cases come in any order
				t.Fatal(err)
			}
			answer := ask(t, test.client, test.request)
			if answer.Err == nil || answer.Err.Kind != test.kind || !strings.Contains(answer.Err.Message, test.message) {
				t.Errorf("%+v, %+v", answer.Ok, answer.Err)
			}
		})
	}
}

// Cargo prints a provider's words as they are.
func TestProviderSpeaksTamely(t *testing.T) {
	c, id := user(t)
	f := newFake(t, id)
	if _, err := c.Login(t.Context(), f.server.URL, ""); err != nil {
		t.Fatal(err)
	}
	f.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://%C2%9B31mevil%1B/", http.StatusFound)
	})
	answer := ask(t, c, request("sparse+"+f.server.URL+"/index/", `"kind":"get","operation":"read"`))
	if answer.Err == nil || !strings.Contains(answer.Err.Message, "evil") || strings.ContainsFunc(answer.Err.Message, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%+v", answer.Err)
	}
	if said := refuseCargo(kindOther, "a\x1b[31m\u009b\u202eb").Err.Message; said != "a [31m  b" {
		t.Errorf("%q", said)
	}
}

func TestProviderLogoutDropsTheSession(t *testing.T) {
	f, c, r := loggedIn(t)
	ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"read"`))
	if answer := ask(t, c, request(r.pin.IndexURL, `"kind":"logout"`)); answer.Ok == nil || answer.Ok.Kind != "logout" {
		t.Errorf("%+v", answer.Err)
	}
	ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"read"`))
	if n := f.count("POST /v1/session"); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func TestProviderSaysWhatToDoWithoutAKey(t *testing.T) {
	_, c, r := loggedIn(t)
	id, _ := r.Identity()
	if err := os.Remove(id.Path); err != nil {
		t.Fatal(err)
	}
	for _, operation := range []string{"read", "owners"} {
		answer := ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"`+operation+`","name":"demo"`))
		if answer.Err == nil || answer.Err.Kind != "other" || !strings.Contains(answer.Err.Message, "aln-registry login") {
			t.Errorf("%s: %+v", operation, answer.Err)
		}
	}
}

func TestProviderAnswersSeveralRequestsAndEndsWithItsInput(t *testing.T) {
	_, c, r := loggedIn(t)
	line := request(r.pin.IndexURL, `"kind":"dance"`) + "\n"
	var out bytes.Buffer
	if err := c.Provide(t.Context(), strings.NewReader(line+line+line), &out); err != nil || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := c.Provide(t.Context(), strings.NewReader(strings.Repeat("x", maxRequestLine+1)), &out); err == nil {
		t.Error("an endless line was read")
	}
	if err := c.Provide(t.Context(), strings.NewReader(line), failingWriter{}); err == nil {
		t.Error("a failed write went unseen")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func FuzzProviderRequest(f *testing.F) {
	home := OpenHome(f.TempDir())
	c := clientIn(home)
	f.Add([]byte(request("sparse+https://a.example/index/", `"kind":"get","operation":"publish","name":"a","vers":"1.0.0","cksum":""`)))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		answer := c.answer(t.Context(), line)
		if answer.OK != nil || answer.Err == nil || answer.Err.Kind == "" {
			t.Fatalf("%+v", answer)
		}
	})
}

// TestRealCargoRunsTheProvider lets cargo itself find, run and understand this
// program as a provider, from a path with a space in it.
func TestRealCargoRunsTheProvider(t *testing.T) {
	f, c, r := loggedIn(t)
	f.publish(*r.identity, "demo", "1.0.0", nil)
	project, cargoHome := t.TempDir(), t.TempDir()
	binary := filepath.Join(t.TempDir(), "with space", "aln-registry")
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(must(os.Executable()), binary); err != nil {
		t.Fatal(err)
	}
	if _, err := cargoconfig.SetIndex(project, cargoHome, "aln", r.pin.IndexURL); err != nil {
		t.Fatal(err)
	}
	if _, err := cargoconfig.SetProvider(cargoHome, binary); err != nil {
		t.Fatal(err)
	}
	cargo := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "cargo", args...)
		cmd.Dir = project
		cmd.Env = append(os.Environ(), "CARGO_HOME="+cargoHome, "ALN_TEST_PROVIDER_HOME="+c.home.Path())
		cmd.Stdin = strings.NewReader("")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := cargo("owner", "--list", "demo", "--registry", "aln"); err != nil || !strings.Contains(out, string(r.identity.DID())) {
		t.Errorf("owner --list: %v\n%s", err, out)
	}
	var carriedIntent bool
	for _, req := range f.requests {
		carriedIntent = carriedIntent || strings.HasPrefix(req, http.MethodGet+" /api/v1/crates/demo/owners ") && strings.Contains(req, "~")
	}
	if !carriedIntent {
		t.Errorf("cargo did not carry the record: %v", f.requests)
	}
	if out, err := cargo("login", "--registry", "aln"); err == nil || !strings.Contains(out, "aln-registry login "+f.server.URL) {
		t.Errorf("login: %v\n%s", err, out)
	}
	if out, err := cargo("logout", "--registry", "aln"); err != nil {
		t.Errorf("logout: %v\n%s", err, out)
	}
	if out, err := cargo("logout", "--registry", "aln"); err != nil || !strings.Contains(out, "not currently logged in") {
		t.Errorf("second logout: %v\n%s", err, out)
	}
}

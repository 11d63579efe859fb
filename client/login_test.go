package client

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry/translog"
)

func TestParseURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:8585":                    "http://127.0.0.1:8585",
		"http://127.0.0.1:8585/":                   "http://127.0.0.1:8585",
		"sparse+http://127.0.0.1:8585/index/":      "http://127.0.0.1:8585",
		" https://Registry.Example:443/lab/index ": "https://registry.example/lab",
		"http://[::1]:80":                          "http://[::1]",
		"http://localhost:1":                       "http://localhost:1",
		"http://registry.example":                  "",
		"http://127.0.0.1.example":                 "",
		"https://u:p@registry.example":             "",
		"https://registry.example/?a=b":            "",
		"https://registry.example/#x":              "",
		"ftp://registry.example":                   "",
		"https://%C2%9B31mEVIL":                    "",
		"https://\u009b31mevil":                    "",
		"https://registry.example%1b[31m":          "",
		"https://%E2%80%AEelpmaxe":                 "",
		"https://müller.example":                   "",
		"https://a b.example":                      "",
		"https://registry_1.example:8443":          "https://registry_1.example:8443",
		"https://xn--mller-kva.example":            "https://xn--mller-kva.example",
		"https://[2001:db8::1]:8443/x":             "https://[2001:db8::1]:8443/x",
		"registry.example":                         "",
		"127.0.0.1:8585":                           "",
		"https://":                                 "",
		"":                                         "",
		"https://" + strings.Repeat("a", 600):      "",
	} {
		got, err := ParseURL(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrURL) {
			t.Errorf("ParseURL(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("sparse+http://127.0.0.1:8585/index/")
	f.Add("https://a.example:443//index//")
	f.Fuzz(func(t *testing.T, s string) {
		base, err := ParseURL(s)
		if err != nil {
			return
		}
		if strings.ContainsFunc(base, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q became %q", s, base)
		}
		if again, err := ParseURL(base); err != nil || again != base && !strings.HasSuffix(base, "/index") {
			t.Fatalf("%q became %q became %q, %v", s, base, again, err)
		}
	})
}

func TestLoginPinsAndKnowsTheRegistryAgain(t *testing.T) {
	c, id := user(t)
	f := newFake(t, id)
	first, err := c.Login(t.Context(), f.server.URL+"/", "")
	if err != nil || !first.New || len(first.Notes) != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	p := first.Pin
	if p.URL != f.server.URL || p.IndexURL != "sparse+"+f.server.URL+"/index/" || p.Origin != f.origin.Public().DID() ||
		p.Entry0 != translog.LeafHash(f.entries[0]) || p.Identity != DefaultIdentity || p.Size() != 2 {
		t.Errorf("pinned %+v", p)
	}
	f.publish(id, "demo", "1.0.0", []byte("x"))
	second, err := c.Login(t.Context(), p.IndexURL, "")
	if err != nil || second.New || second.Pin.Size() != 3 {
		t.Fatalf("%+v, %v", second, err)
	}
	for _, r := range f.requests {
		if !strings.HasSuffix(r, " ") {
			t.Errorf("login sent a credential: %s", r)
		}
	}
	files := must(filepath.Glob(filepath.Join(c.home.Path(), "registries", "*.json")))
	if err := ownerOnly(t, c.home.Path()); err != nil || len(files) != 1 {
		t.Errorf("home with pins %v: %v", files, err)
	}
}

func TestLoginUsesTheDeclaredURL(t *testing.T) {
	c, id := user(t)
	f := newFake(t, id)
	other := strings.Replace(f.server.URL, "127.0.0.1", "localhost", 1)
	login, err := c.Login(t.Context(), other, "")
	if err != nil || login.Pin.URL != f.server.URL || len(login.Notes) != 1 || !strings.Contains(login.Notes[0], f.server.URL) {
		t.Errorf("%+v, %v", login, err)
	}
}

func TestLoginRefusesARegistryThatDoesNotProveItself(t *testing.T) {
	bytesAt := func(path string, data func(f *fake) []byte) func(f *fake) {
		return func(f *fake) {
			f.tamper = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, path) {
					return false
				}
				w.Header().Set("ALN-Log-Index", "0")
				w.Write(data(f))
				return true
			}
		}
	}
	for name, attack := range map[string]func(f *fake){
		"altered checkpoint": bytesAt("/log/checkpoint", func(f *fake) []byte { return flip(f.note()) }),
		"checkpoint by another key": bytesAt("/log/checkpoint", func(f *fake) []byte {
			raw, _ := f.origin.Ed25519()
			cp := translog.Checkpoint{Origin: string(f.origin.Public().DID()), Size: f.mem.Size(), Root: must(f.mem.Root())}
			return must(translog.Sign(cp, []translog.LogKey{must(translog.NewLogKey(raw))}, f.now()))
		}),
		"other origin": bytesAt("/log/checkpoint", func(f *fake) []byte {
			cp := translog.Checkpoint{Origin: "did:web:other.example", Size: f.mem.Size(), Root: must(f.mem.Root())}
			return must(translog.Sign(cp, []translog.LogKey{f.logKey}, f.now()))
		}),
		"another entry 0": bytesAt("/log/tile/entries/", func(f *fake) []byte {
			return must(translog.AppendBundle(must(translog.AppendBundle(nil, f.entries[1])), f.entries[1]))
		}),
		"altered record": bytesAt("/v1/records/", func(f *fake) []byte { return flip(f.records[0].Envelope()) }),
		"another record": bytesAt("/v1/records/", func(f *fake) []byte { return f.records[1].Envelope() }),
		"endless record": bytesAt("/v1/records/", func(*fake) []byte { return make([]byte, 1<<20) }),
	} {
		t.Run(name, func(t *testing.T) {
			c, id := user(t)
			f := newFake(t, id)
			attack(f)
			if login, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, ErrUntrusted) {
				t.Errorf("%+v, %v", login, err)
			}
			if pins := must(c.home.Pins()); len(pins) != 0 {
				t.Errorf("pinned %+v", pins)
			}
		})
	}
}

func TestLoginSaysWhatIsNoRegistry(t *testing.T) {
	c, id := user(t)
	f := newFake(t, id)
	for name, test := range map[string]struct {
		status            int
		contentType, body string
		want              error
	}{
		"a web site":           {200, "text/html", "<html>", ErrNotRegistry},
		"no such page":         {404, "text/html", "<html>", ErrNotRegistry},
		"a page to log in at":  {401, "text/plain", "who are you?", ErrNotRegistry},
		"a registry's refusal": {403, "application/json", `{"error":{"code":"denied","detail":"no"}}`, nil},
		"a broken proxy":       {502, "text/html", "<html>", nil},
	} {
		f.tamper = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", test.contentType)
			w.WriteHeader(test.status)
			w.Write([]byte(test.body))
			return true
		}
		_, err := c.Login(t.Context(), f.server.URL, "")
		if err == nil || errors.Is(err, ErrNotRegistry) != (test.want != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.server.Close()
	if _, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, ErrUnreachable) || !strings.HasSuffix(err.Error(), "is it running?") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestConfiguredIdentityAsksInPlaceOfThePins(t *testing.T) {
	f, c, r := loggedIn(t)
	second := must(c.home.CreateIdentity("second", zeros{}))
	as := New(Config{Home: c.home, Identity: "second", Now: time.Now, Rand: zeros{}})
	other := must(as.Open(""))
	if got, ok := other.Identity(); !ok || got.DID() != second.DID() {
		t.Errorf("asks as %v", got)
	}
	if r.sessionName() == other.sessionName() {
		t.Error("two identities share a cached session")
	}
	f.publish(*r.identity, "demo", "1.0.0", nil)
	if _, verdict, err := other.LogCheck(t.Context()); err != nil || !verdict.OK() {
		t.Fatalf("%+v, %v", verdict, err)
	}
	if pin := must(c.home.PinOf(f.server.URL)); pin.Identity != DefaultIdentity || pin.Size() != 3 {
		t.Errorf("the pin has identity %q and size %d", pin.Identity, pin.Size())
	}
	none := New(Config{Home: c.home, Identity: "none", Now: time.Now, Rand: zeros{}})
	if _, err := none.Open(""); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("none: %v", err)
	}
}

func TestLoginRefusesAnotherPastAtAPinnedURL(t *testing.T) {
	for name, attack := range map[string]struct {
		do   func(t *testing.T, f *fake, id Identity)
		want error
	}{
		"another registry": {func(t *testing.T, f *fake, id Identity) {
			g := newFake(t, id)
			f.origin, f.logKey, f.server.Config.Handler = g.origin, g.logKey, f
			f.mem, f.entries, f.records = g.mem, g.entries, g.records
		}, ErrChanged},
		"started anew": {func(_ *testing.T, f *fake, id Identity) {
			f.mem, f.entries, f.records = translog.Memory{}, nil, nil
			raw := f.logKey.Public()
			key := must(did.NewEd25519PublicKey(raw)).Multikey()
			f.skew = -3e9
			f.genesis(id, key)
			f.publish(id, "other", "1.0.0", nil)
		}, ErrChanged},
		"rollback": {func(_ *testing.T, f *fake, _ Identity) { f.truncate(2) }, translog.ErrRollback},
		"fork": {func(_ *testing.T, f *fake, id Identity) {
			f.truncate(2)
			f.publish(id, "fork", "1.0.0", nil)
			f.publish(id, "fork", "1.0.1", nil)
		}, translog.ErrConsistency},
	} {
		t.Run(name, func(t *testing.T) {
			c, id := user(t)
			f := newFake(t, id)
			f.publish(id, "demo", "1.0.0", []byte("x"))
			before := must(c.Login(t.Context(), f.server.URL, "")).Pin
			attack.do(t, f, id)
			if login, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, attack.want) {
				t.Errorf("%+v, %v", login, err)
			}
			if after := must(c.home.PinOf(f.server.URL)); string(after.Checkpoint) != string(before.Checkpoint) || after.Origin != before.Origin {
				t.Errorf("the pin changed to %+v", after)
			}
		})
	}
}

// truncate makes the log forget its end.
func (f *fake) truncate(size int) {
	f.entries, f.records, f.mem = f.entries[:size], f.records[:size], translog.Memory{}
	for _, line := range f.entries {
		if err := f.mem.Append(translog.LeafHash(line)); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestOpenSelectsTheRegistry(t *testing.T) {
	c, id := user(t)
	if _, err := c.Open(""); !errors.Is(err, ErrNotPinned) {
		t.Errorf("no pins: %v", err)
	}
	f, g := newFake(t, id), newFake(t, id)
	for _, url := range []string{f.server.URL, g.server.URL} {
		if _, err := c.Login(t.Context(), url, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Open(""); !errors.Is(err, ErrSeveralPins) {
		t.Errorf("two pins: %v", err)
	}
	if r, err := c.Open(IndexURL(g.server.URL)); err != nil || r.Pin().URL != g.server.URL {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := c.Open("https://registry.example"); !errors.Is(err, ErrNotPinned) {
		t.Errorf("unknown: %v", err)
	}
	if err := c.home.RemovePin(t.Context(), must(c.home.PinOf(f.server.URL))); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Open(""); err != nil || r.Pin().URL != g.server.URL {
		t.Errorf("one left: %v, %v", r, err)
	}
}

func TestSavePinNeverShrinksNorChangesRegistry(t *testing.T) {
	f, c, r := loggedIn(t)
	small := r.Pin()
	large := small
	id, _ := r.Identity()
	f.publish(id, "demo", "1.0.0", nil)
	large.Checkpoint = f.note()
	if got, err := c.home.SavePin(t.Context(), large); !errors.Is(err, ErrMeanwhile) || got.Size() != 2 || must(c.home.PinOf(f.server.URL)).Size() != 2 {
		t.Fatalf("what was not judged against the pin replaced it: %d, %v", got.Size(), err)
	}
	if got, err := c.home.SavePin(t.Context(), large, small.Checkpoint); err != nil || got.Size() != 3 {
		t.Fatalf("%d, %v", got.Size(), err)
	}
	if got, err := c.home.SavePin(t.Context(), small, large.Checkpoint); err != nil || got.Size() != 3 {
		t.Errorf("shrank to %d, %v", got.Size(), err)
	}
	keyed := large
	keyed.Keys = f.records[0].ID()
	if _, err := c.home.SavePin(t.Context(), keyed); err != nil {
		t.Fatal(err)
	}
	for _, older := range []Pin{small, large} {
		if got, err := c.home.SavePin(t.Context(), older, large.Checkpoint); err != nil || got.Keys != keyed.Keys {
			t.Errorf("the keys seen were forgotten: %q, %v", got.Keys, err)
		}
	}
	other := large
	other.Entry0[0] ^= 1
	if _, err := c.home.SavePin(t.Context(), other); !errors.Is(err, ErrChanged) {
		t.Errorf("other entry 0: %v", err)
	}
}

func TestAlteredPinIsNotBelieved(t *testing.T) {
	_, c, r := loggedIn(t)
	path := c.home.file(folderRegistries, fileID(r.Pin().IndexURL)+pinSuffix)
	good := must(os.ReadFile(path))
	for name, bad := range map[string]string{
		"other URL":      strings.ReplaceAll(string(good), r.Pin().URL, "https://evil.example"),
		"unknown member": strings.Replace(string(good), "{", `{"x":1,`, 1),
		"short hash":     strings.Replace(string(good), `"entry0": "`, `"entry0": "AA`, 1),
		"empty":          "",
		"too long":       strings.Repeat(" ", maxHomeFile) + string(good),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if pin, err := c.home.PinOf(r.Pin().URL); err == nil || errors.Is(err, ErrNotPinned) {
			t.Errorf("%s: %+v, %v", name, pin, err)
		}
	}
}

func TestIdentities(t *testing.T) {
	c, id := user(t)
	second := must(c.home.CreateIdentity("work", zeros{}))
	all, err := c.home.Identities()
	if err != nil || len(all) != 2 || all[0].DID() != id.DID() || all[1].DID() != second.DID() || all[1].Name != "work" {
		t.Fatalf("%v, %v", all, err)
	}
	if err := ownerOnly(t, second.Path); err != nil {
		t.Errorf("key file: %v", err)
	}
	if _, err := c.home.CreateIdentity("work", zeros{}); !errors.Is(err, ErrIdentityExists) {
		t.Errorf("again: %v", err)
	}
	for _, name := range []string{"../x", "a b", ".hidden", strings.Repeat("a", 65)} {
		if _, err := c.home.CreateIdentity(name, zeros{}); !errors.Is(err, ErrIdentityName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := c.Identity("none"); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("none: %v", err)
	}
	if _, err := c.home.ImportIdentity("wrong", did.NamedKey{ID: id.KeyID().String(), Key: second.Key().Key}); !errors.Is(err, did.ErrKeyFile) {
		t.Errorf("key of another DID: %v", err)
	}
	named := New(Config{Home: c.home, KeyFile: id.Path})
	if got, err := named.Identity("work"); err != nil || got.DID() != id.DID() {
		t.Errorf("key file: %v, %v", got, err)
	}
	named = New(Config{Home: c.home, KeyFile: filepath.Join(t.TempDir(), "none")})
	if _, err := named.Identity(""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing key file: %v", err)
	}
}

// zeros is randomness for tests that need none.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// ownerOnly is an error if others than this user may open what is at path.
func ownerOnly(t *testing.T, path string) error {
	t.Helper()
	f := must(durable.Open(path))
	defer f.Close()
	return durable.OwnerOnly(f)
}

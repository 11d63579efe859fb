package client

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
)

// enter is a whole login.
func enter(ctx context.Context, c *Client, url string) (Entered, error) {
	met, err := c.Meet(ctx, url, Terms{})
	if err != nil {
		return Entered{}, err
	}
	return c.Enter(ctx, met, true)
}

// known lists the pins: what cargo calls so -> where it is asked for.
func known(t *testing.T, c *Client) map[string]string {
	t.Helper()
	pins := map[string]string{}
	for _, pin := range must(c.home.Pins()) {
		pins[pin.IndexURL] = pin.URL
	}
	return pins
}

// sameUser is a client of id that knows nobody yet.
func sameUser(t *testing.T, id Identity) *Client {
	t.Helper()
	return New(Config{Home: OpenHome(filepath.Join(t.TempDir(), "home")), KeyFile: id.Path, Now: time.Now, Rand: rand.Reader})
}

func wantPins(t *testing.T, c *Client, want map[string]string) {
	t.Helper()
	got := known(t, c)
	if len(got) != len(want) {
		t.Errorf("pinned %v, not %v", got, want)
	}
	for name, url := range want {
		if got[name] != url {
			t.Errorf("pinned %v, not %v", got, want)
		}
	}
}

func TestAMovedRegistryIsKnownByAllNamesOfItsSettingsInForce(t *testing.T) {
	f, c, r := loggedIn(t)
	old, now := f.move()
	f.settle(*r.identity, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(now), IndexURL(old)} })
	e, err := enter(t.Context(), c, now)
	if err != nil || e.Refusal != nil || e.Made || len(e.Adopted) != 1 || e.Adopted[0].IndexURL != IndexURL(old) || len(e.Forgotten) != 0 || e.Pin.Size() != 3 {
		t.Fatalf("%+v, %v", e, err)
	}
	wantPins(t, c, map[string]string{IndexURL(now): now, IndexURL(old): now})
	if e, err = enter(t.Context(), c, now); err != nil || len(e.Adopted) != 0 || len(e.Forgotten) != 0 {
		t.Errorf("again: %+v, %v", e, err)
	}

	// What the settings name no more is asked no more: a session would go there.
	f.settle(*r.identity, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(now)} })
	e, err = enter(t.Context(), c, now)
	if err != nil || len(e.Forgotten) != 1 || e.Forgotten[0].IndexURL != IndexURL(old) {
		t.Errorf("%+v, %v", e, err)
	}
	wantPins(t, c, map[string]string{IndexURL(now): now})
}

func TestTheURLAskedAtIsNotForgotten(t *testing.T) {
	f, c, r := loggedIn(t)
	at := f.server.URL
	f.settle(*r.identity, func(s *record.Registry) { s.IndexURLs = []string{"sparse+https://elsewhere.example/index/"} })
	if e, err := enter(t.Context(), c, at); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "its settings name sparse+https://elsewhere.example/index/, not "+IndexURL(at)+"; an admin has to add that") {
		t.Errorf("%+v, %v", e, err)
	}
	wantPins(t, c, map[string]string{IndexURL(at): at})
}

func TestANameOfAnotherRegistryIsNotAdopted(t *testing.T) {
	f, c, r := loggedIn(t)
	other := newFake(t, *r.identity)
	if _, err := c.Login(t.Context(), other.server.URL, ""); err != nil {
		t.Fatal(err)
	}
	_, now := f.move()
	before := known(t, c)
	f.settle(*r.identity, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(now), IndexURL(other.server.URL)} })
	if e, err := enter(t.Context(), c, now); !errors.Is(err, ErrChanged) {
		t.Errorf("%+v, %v", e, err)
	}
	wantPins(t, c, before)
}

// relay shows f's log at a URL of its own, with the means of a member who is no
// admin: it asks as that one, whoever asks it, and may answer by itself.
type relay struct {
	*httptest.Server
	f      *fake
	member Identity
	token  string
	// answers are its own, by path; false: it asks f.
	answers map[string]func(w http.ResponseWriter, r *http.Request) bool
}

func newRelay(t *testing.T, f *fake, admin Identity) *relay {
	_, member := user(t)
	f.mu.Lock()
	f.log(f.sign(admin.Signer(), record.MemberSubject(member.DID()), [32]byte{}, record.Header{By: f.records[0].ID()}, &record.Member{Roles: []string{"publisher"}, Tier: particle.TierGuest}))
	f.mu.Unlock()
	c := sameUser(t, member)
	session := must(must(c.Registry(must(c.Login(t.Context(), f.server.URL, "")).Pin)).Session(t.Context(), particle.ScopeRead, "", 0))
	r := &relay{f: f, member: member, token: session.Token, answers: map[string]func(http.ResponseWriter, *http.Request) bool{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if answer := r.answers[req.URL.Path]; answer != nil && answer(w, req) {
		return
	}
	if req.Header.Get("Authorization") != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	recorded := httptest.NewRecorder()
	r.f.ServeHTTP(recorded, req)
	for name, values := range recorded.Header() {
		for _, v := range values {
			w.Header().Add(name, strings.ReplaceAll(v, r.f.server.URL, r.URL))
		}
	}
	w.WriteHeader(recorded.Code)
	w.Write(recorded.Body.Bytes())
}

// withoutTheLast answers /log/keys without the newest record.
func (r *relay) withoutTheLast(w http.ResponseWriter, _ *http.Request) bool {
	recorded := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/log/keys", nil)
	req.Header.Set("Authorization", "Bearer "+r.token)
	r.f.ServeHTTP(recorded, req)
	var j struct {
		Records []json.RawMessage `json:"records"`
	}
	json.Unmarshal(recorded.Body.Bytes(), &j)
	writeJSON(w, map[string]any{"records": j.Records[:len(j.Records)-1]})
	return true
}

func withheld(w http.ResponseWriter, _ *http.Request) bool {
	refuse(w, 401, "unauthenticated", "records of authority are for members")
	return true
}

// sessions are what a relay may answer in place of a session. Each returns the
// token for the assertion that it was shown.
var sessions = map[string]func(t *testing.T, r *relay, a policy.Assertion) string{
	"of nobody's": func(*testing.T, *relay, policy.Assertion) string { return "aaa.bbb.ccc" },
	"its own, for the same word": func(t *testing.T, r *relay, a policy.Assertion) string {
		c := sameUser(t, r.member)
		own := must(c.Registry(must(c.Login(t.Context(), r.f.server.URL, "")).Pin))
		return must(own.Session(t.Context(), a.Scope, record.ID(a.Rec), 0)).Token
	},
	"that was given to the same person before": func(_ *testing.T, r *relay, a policy.Assertion) string {
		before := a
		before.Rec = ""
		return r.f.session(before, r.f.origin)
	},
	"that it signed itself": func(_ *testing.T, r *relay, a policy.Assertion) string { return r.f.session(a, r.member.key.Key) },
	"under the registry's name": func(_ *testing.T, r *relay, a policy.Assertion) string {
		token := strings.Split(r.f.session(a, r.f.origin), ".")
		return strings.Join(append(token[:2], base64.RawURLEncoding.EncodeToString(make([]byte, 64))), ".")
	},
}

// session signs a session as an assertion asks for it.
func (f *fake) session(a policy.Assertion, by did.PrivateKey) string {
	holder := policy.Holder{DID: a.Subject, Member: true, Admin: true}
	claims, denial := policy.Admit(a, holder, f.origin.Public().DID(), "a-token-of-a-test", f.now())
	if denial != nil {
		panic(denial)
	}
	return must(policy.SignSession(claims, did.EdDSA, by.Signer(by.Public().URL())))
}

// Settings named the relay's URL once. Whatever it says of that, and whatever it
// keeps to itself, nobody is led there.
func TestARelayThatTheSettingsNamedOnceIsRefused(t *testing.T) {
	for name, keys := range map[string]func(r *relay) func(http.ResponseWriter, *http.Request) bool{
		"showing all":                     func(*relay) func(http.ResponseWriter, *http.Request) bool { return nil },
		"leaving out the newest settings": func(r *relay) func(http.ResponseWriter, *http.Request) bool { return r.withoutTheLast },
		"withholding the settings":        func(*relay) func(http.ResponseWriter, *http.Request) bool { return withheld },
	} {
		for of, session := range sessions {
			t.Run(name+", with a session "+of, func(t *testing.T) {
				f, c, r := loggedIn(t)
				me := *r.identity
				evil := newRelay(t, f, me)
				real := f.server.URL
				f.settle(me, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(evil.URL), IndexURL(real)} })
				f.settle(me, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(real)} })
				if _, err := enter(t.Context(), c, real); err != nil {
					t.Fatal(err)
				}
				before := must(c.home.PinOf(real))
				evil.answers["/log/keys"] = keys(evil)
				evil.answers[sessionPath] = func(w http.ResponseWriter, req *http.Request) bool {
					assertion := must(policy.ParseAssertion(req.PostFormValue("assertion"))).Claims
					writeJSON(w, map[string]any{"access_token": session(t, evil, assertion), "token_type": "Bearer", "expires_in": 600})
					return true
				}
				if e, err := enter(t.Context(), c, evil.URL); err == nil {
					t.Errorf("who knew the registry: %+v", e)
				}
				wantPins(t, c, map[string]string{IndexURL(real): real})
				if after := must(c.home.PinOf(real)); string(after.Checkpoint) != string(before.Checkpoint) || after.Keys != before.Keys {
					t.Errorf("the pin became %+v", after)
				}
				first := sameUser(t, me)
				if e, err := enter(t.Context(), first, evil.URL); err == nil {
					t.Errorf("who met the relay first: %+v", e)
				}
				wantPins(t, first, nil)
				if left := must(filepath.Glob(filepath.Join(first.home.Path(), folderSessions, "*.json"))); len(left) != 0 {
					t.Errorf("sessions of the relay are kept: %v", left)
				}
			})
		}
	}
}

// What a relay leaves out of the middle, or puts in, the records themselves show.
func TestSettingsThatNoAdminMadeAreNotAdopted(t *testing.T) {
	f, c, r := loggedIn(t)
	evil := newRelay(t, f, *r.identity)
	f.settle(evil.member, func(s *record.Registry) { s.IndexURLs = append(s.IndexURLs, "sparse+https://thief.example/index/") })
	if e, err := enter(t.Context(), c, f.server.URL); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "is not an admin") {
		t.Errorf("%+v, %v", e, err)
	}
	wantPins(t, c, map[string]string{IndexURL(f.server.URL): f.server.URL})
}

// A URL that was refused is not known afterwards, whatever it was refused for.
func TestWhatLoginRefusesIsNotPinned(t *testing.T) {
	f, c, r := loggedIn(t)
	old, now := f.move()
	before := known(t, c)
	for name, c := range map[string]*Client{"known before": c, "new": sameUser(t, *r.identity)} {
		if e, err := enter(t.Context(), c, now); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "not "+IndexURL(now)) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		if _, err := c.home.PinOf(now); !errors.Is(err, ErrNotPinned) {
			t.Errorf("%s: pinned all the same: %v", name, err)
		}
	}
	wantPins(t, c, before)
	if before[IndexURL(old)] != old {
		t.Errorf("%v", before)
	}
	// A stranger cannot tell it from the registry that they know.
	s, _ := user(t)
	if _, err := s.home.SavePin(t.Context(), must(c.home.PinOf(old))); err != nil {
		t.Fatal(err)
	}
	if e, err := enter(t.Context(), s, now); err == nil || !strings.Contains(err.Error(), "gives you no session") {
		t.Errorf("a stranger: %+v, %v", e, err)
	}
}

func TestWhoIsNoMemberJudgesNoLogWhoseKeysAreForMembers(t *testing.T) {
	f, c, r := loggedIn(t)
	admin := *r.identity
	early, id := stranger(t, f)
	f.rotate(admin)
	late, _ := user(t)
	for name, c := range map[string]struct {
		*Client
		size int64
	}{"who met it before": {early, 2}, "who meets it now": {late, 0}} {
		e, err := enter(t.Context(), c.Client, f.server.URL)
		if err != nil || e.Refusal == nil || e.Pin.Size() != c.size || e.Pin.Origin != f.origin.Public().DID() {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		met := must(c.Meet(t.Context(), f.server.URL, Terms{}))
		if len(met.Notes) != 1 || !strings.Contains(met.Notes[0], "nothing of its log was judged") {
			t.Errorf("%s: %q", name, met.Notes)
		}
		if _, _, err := must(c.Open("")).LogCheck(t.Context()); !errors.Is(err, ErrWithheld) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Once a member, the first command judges it, and pins it.
	f.mu.Lock()
	f.log(f.sign(admin.Signer(), record.MemberSubject(id.DID()), [32]byte{}, record.Header{By: f.records[2].ID()}, &record.Member{Roles: []string{"publisher"}, Tier: particle.TierGuest}))
	f.mu.Unlock()
	if _, verdict, err := must(early.Open("")).LogCheck(t.Context()); err != nil || !verdict.OK() {
		t.Errorf("%+v, %v", verdict.Checks, err)
	}
	if pin := must(early.home.PinOf(f.server.URL)); pin.Size() != 4 || pin.Keys == "" {
		t.Errorf("pinned %d entries by the keys of %q", pin.Size(), pin.Keys)
	}
	if _, err := enter(t.Context(), c, f.server.URL); err != nil {
		t.Error(err)
	}
}

// Who stands between says that the keys are for members, and shows another log:
// nothing of it is believed, then or later.
func TestWithholdingTheKeysMakesNoLogBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(f *fake, id Identity)
		want error // of a login; nil: it is not judged
	}{
		"another entry 0": {func(f *fake, id Identity) {
			f.truncate(0)
			f.skew = -3e9
			f.genesis(id, must(did.NewEd25519PublicKey(f.logKey.Public())).Multikey())
		}, ErrChanged},
		"a record that the origin did not sign": {func(f *fake, id Identity) {
			origin := f.origin
			f.truncate(0)
			f.origin = must(did.GenerateEd25519(rand.Reader))
			f.genesis(id, must(did.NewEd25519PublicKey(f.logKey.Public())).Multikey())
			f.origin = origin
		}, ErrUntrusted},
		"an older log": {func(f *fake, _ Identity) { f.truncate(2) }, nil},
		"another past": {func(f *fake, id Identity) {
			f.truncate(2)
			f.publish(id, "fork", "1.0.0", nil)
			f.publish(id, "fork", "1.0.1", nil)
		}, nil},
		"another log key": {func(f *fake, id Identity) { f.rotate(id) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f, client, r := loggedIn(t)
			f.publish(*r.identity, "demo", "1.0.0", nil)
			before := must(client.Login(t.Context(), f.server.URL, "")).Pin
			f.mu.Lock()
			f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
				return (req.URL.Path == "/log/keys" || req.URL.Path == sessionPath) && withheld(w, req)
			}
			f.mu.Unlock()
			c.do(f, *r.identity)
			if _, err := r.DropSession(t.Context()); err != nil {
				t.Fatal(err)
			}
			e, err := enter(t.Context(), client, f.server.URL)
			if !errors.Is(err, c.want) || c.want == nil && e.Refusal == nil {
				t.Errorf("login: %+v, %v", e, err)
			}
			if after := must(client.home.PinOf(f.server.URL)); string(after.Checkpoint) != string(before.Checkpoint) || after.Origin != before.Origin || after.Entry0 != before.Entry0 {
				t.Errorf("the pin became %+v", after)
			}
			if _, verdict, err := must(client.Open("")).LogCheck(t.Context()); err == nil && verdict.OK() {
				t.Error("the log is believed")
			}
		})
	}
}

func TestAnIdentityIsMadeOnlyForARegistryThatWasMet(t *testing.T) {
	f, _, _ := loggedIn(t)
	c := clientIn(OpenHome(filepath.Join(t.TempDir(), "home")))
	if _, err := enter(t.Context(), c, f.server.URL+"/elsewhere"); err == nil {
		t.Error("something else was taken for a registry")
	}
	if _, err := os.Stat(c.home.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a login that failed left %s: %v", c.home.Path(), err)
	}
	e, err := enter(t.Context(), c, f.server.URL)
	var refused *APIError
	if err != nil || !e.Made || e.Identity == nil || !errors.As(e.Refusal, &refused) || !strings.Contains(refused.Detail, string(e.Identity.DID())) {
		t.Errorf("%+v, %v", e, err)
	}
	if ids := must(c.home.Identities()); !slices.ContainsFunc(ids, func(i Identity) bool { return i.DID() == e.Identity.DID() }) {
		t.Errorf("identities: %v", ids)
	}
}

// Who asked there as somebody whose key is gone is not made somebody else unasked.
func TestAnIdentityThatIsGoneIsNotReplaced(t *testing.T) {
	f, c, _ := loggedIn(t)
	must(c.home.CreateIdentity("work", rand.Reader))
	if _, err := c.Login(t.Context(), f.server.URL, "work"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(c.home.file(folderKeys, "work.jwk")); err != nil {
		t.Fatal(err)
	}
	if e, err := enter(t.Context(), c, f.server.URL); !errors.Is(err, ErrNoIdentity) || !strings.Contains(err.Error(), "--identity") {
		t.Errorf("%+v, %v", e, err)
	}
}

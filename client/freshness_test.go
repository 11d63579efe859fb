package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// frozen makes f's newest checkpoint one that was cosigned that long ago.
func (f *fake) frozen(age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cosigned = -age
}

// lenient is a client in the same home that takes checkpoints of another age.
func lenient(h Home, maxAge time.Duration) *Client {
	return New(Config{Home: h, Now: time.Now, Rand: rand.Reader, Sleep: atOnce, MaxAge: maxAge})
}

func TestALogThatStandsStillIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		age, maxAge time.Duration
		fails       string
	}{
		"a day and an hour":          {25 * time.Hour, 0, "25h0m old, with 24h0m allowed"},
		"a day and an hour, allowed": {25 * time.Hour, 48 * time.Hour, ""},
		"a day less a minute":        {24*time.Hour - time.Minute, 0, ""},
		"an hour, with less allowed": {time.Hour, 30 * time.Minute, "1h0m old, with 30m0s allowed"},
		"a minute in the future":     {-time.Minute, 0, ""},
		"an hour in the future":      {-time.Hour, 0, "in the future of this computer's clock"},
		"a year":                     {365 * 24 * time.Hour, verify.AnyAge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, known, _ := loggedIn(t)
			stranger, _ := user(t)
			f.publish(must(known.Identity("")), "demo", "1.0.0", []byte("one"))
			f.frozen(c.age)
			pinned := string(must(known.home.PinOf(f.server.URL)).Checkpoint)

			_, first := lenient(stranger.home, c.maxAge).Login(t.Context(), f.server.URL, "")
			_, again := lenient(known.home, c.maxAge).Login(t.Context(), f.server.URL, "")
			_, verdict, err := must(lenient(known.home, c.maxAge).Open("")).LogCheck(t.Context())
			if said := time.Duration(verdict.AgeSeconds) * time.Second; err != nil || (said-c.age).Abs() > 20*time.Second {
				t.Errorf("the verdict says %d s: %v", verdict.AgeSeconds, err)
			}
			for what, err := range map[string]error{"first login": first, "second login": again, "log check": unproved("", verdict)} {
				if c.fails == "" && err != nil || c.fails != "" && (!errors.Is(err, ErrNotFresh) || !strings.Contains(err.Error(), c.fails)) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if now := string(must(known.home.PinOf(f.server.URL)).Checkpoint); c.fails != "" && now != pinned {
				t.Error("what was refused was pinned")
			}
			if _, err := stranger.home.PinOf(f.server.URL); c.fails != "" && !errors.Is(err, ErrNotPinned) {
				t.Errorf("a registry of unknown age was pinned: %v", err)
			}
		})
	}
}

// A mirror that stands still can lie with its Date as well.
func TestTheAgeIsByOurOwnClock(t *testing.T) {
	f, c, r := loggedIn(t)
	f.mu.Lock()
	f.skew = -25 * time.Hour // its checkpoints and its Date agree
	f.mu.Unlock()
	if _, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, ErrNotFresh) {
		t.Errorf("login: %v", err)
	}
	if _, verdict, err := r.LogCheck(t.Context()); err != nil || !errors.Is(unproved("", verdict), ErrNotFresh) {
		t.Errorf("log check: %+v, %v", verdict.Checks, err)
	}
}

// arguments is a value of every type that exported methods take.
func arguments(t *testing.T, f *fake, pin Pin) map[reflect.Type]reflect.Value {
	subject := crateSubject("demo", "1.0.0")
	publish := Draft{Subject: subject, Digest: storage.CIDOf([]byte("one")).Digest(), Body: &record.Publish{}}
	table := map[reflect.Type]reflect.Value{
		reflect.TypeFor[context.Context](): reflect.ValueOf(t.Context()),
		reflect.TypeFor[io.Reader]():       reflect.ValueOf(strings.NewReader("")),
		reflect.TypeFor[io.Writer]():       reflect.ValueOf(io.Discard),
	}
	for _, v := range []any{
		f.server.URL, pin, Terms{}, Login{Pin: pin}, Entered{Pin: pin}, subject, f.records[0].ID(), f.records[0], verify.Want{Subject: subject}, verify.WantUpstream{Subject: must(record.UpstreamSubject("crates-io", "demo")), Version: "1.0.0"}, verify.Replayed{State: map[string][]byte{}},
		publish, Upload{Draft: publish, Content: strings.NewReader("one"), Size: 3}, Heads{}, record.KindCrate, storage.CIDOf(nil),
		did.DID("did:web:a.example"), []byte("{}"), [][]byte{}, (*int64)(nil), int64(0), 7, true, time.Minute,
		Proposed{Rule: "demo"}, particle.QuarantineRule{}, particle.EnvGrant{}, Grant{}, []Judged{}, []Locked{}, []Override{}, [][32]byte{}, []string{},
		PrefetchList{Upstream: "crates-io", Whole: []string{"demo"}}, func(PrefetchOutcome, int) {}, time.Now(),
		func(int64, int64) {}, func(*record.Registry) error { return nil }, func(_, _ *record.Registry) error { return nil },
	} {
		table[reflect.TypeOf(v)] = reflect.ValueOf(v)
	}
	return table
}

// unjudged are the methods that hand out a checkpoint or its evidence for package
// verify to judge, which lets nothing pass without an age. View.Entry tells nothing
// before that.
var unjudged = []string{"Registry.Checkpoint", "Registry.View", "Registry.Evidence", "View.Evidence", "View.UpstreamEvidence", "View.Entry"}

// Every exported method is called against a log that stands still, also those
// that come later: one that asks for its checkpoint refuses it, and none pins it.
func TestNoMethodForgetsTheAge(t *testing.T) {
	opened := map[string]bool{}
	for _, of := range []string{"Client", "Registry", "View"} {
		methods := map[string]reflect.Type{"Client": reflect.TypeFor[*Client](), "Registry": reflect.TypeFor[*Registry](), "View": reflect.TypeFor[*View]()}[of]
		for i := range methods.NumMethod() {
			name := of + "." + methods.Method(i).Name
			f, c, r := loggedIn(t)
			f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
			f.frozen(25 * time.Hour)
			pinned := must(c.home.PinOf(f.server.URL))
			asked := f.count("GET /log/checkpoint")
			on := map[string]any{"Client": c, "Registry": r}[of]
			if of == "View" {
				on = must(r.View(t.Context()))
				asked-- // the View was made for the method
			}
			results := callWithAnything(t, name, reflect.ValueOf(on).Method(i), arguments(t, f, pinned))
			if f.count("GET /log/checkpoint") > asked && !slices.Contains(unjudged, name) {
				opened[name] = true
				if !refusesAge(results) {
					t.Errorf("%s believes a checkpoint that is 25 h old: %v", name, results)
				}
			}
			if pin := must(c.home.PinOf(f.server.URL)); !bytes.Equal(pin.Checkpoint, pinned.Checkpoint) {
				t.Errorf("%s pinned it", name)
			}
		}
	}
	for _, name := range []string{"Client.Login", "Client.LoginOn", "Client.Meet", "Client.Enter", "Registry.LogCheck", "Registry.Replay", "View.Check", "View.Verify", "View.VerifyUpstream"} {
		if !opened[name] {
			t.Errorf("%s was not seen to ask for a checkpoint; it was seen of %v", name, slices.Sorted(maps.Keys(opened)))
		}
	}
}

func callWithAnything(t *testing.T, name string, method reflect.Value, arguments map[reflect.Type]reflect.Value) []reflect.Value {
	t.Helper()
	var in []reflect.Value
	for i := range method.Type().NumIn() {
		v, ok := arguments[method.Type().In(i)]
		if !ok {
			t.Fatalf("%s takes a %s: add one to arguments", name, method.Type().In(i))
		}
		if v.Kind() == reflect.String && slices.ContainsFunc(in, func(before reflect.Value) bool { return before.Kind() == reflect.String }) {
			v = reflect.Zero(v.Type()) // beside a URL: an identity's name, a reason
		}
		in = append(in, v)
	}
	return method.Call(in)
}

// refusesAge reports whether results hold an error or a verdict of that.
func refusesAge(results []reflect.Value) bool {
	for _, v := range results {
		switch got := v.Interface().(type) {
		case error:
			return errors.Is(got, ErrNotFresh)
		case verify.Verdict:
			if errors.Is(unproved("", got), ErrNotFresh) {
				return true
			}
		}
	}
	return false
}

// What the test above cannot see: a path that verifies a note by other means than
// package verify, or fetches one by itself.
func TestCheckpointsAreOpenedInOnePlace(t *testing.T) {
	allowed := map[string][]string{
		"Open": {}, "CosignedAt": {}, // of translog: package verify calls them
		"Artifact":      {"evidence.go", "registry.go"}, // verify.Artifact; the type of that name
		"Upstream":      {"upstreamproof.go"},           // verify.Upstream
		"NewTileReader": {"checkpoint.go"},
		"judge":         {"checkpoint.go", "evidence.go", "login.go"},
		"inForce":       {"enter.go", "grantproof.go"},
		"Authority":     {"grantproof.go"}, // verify.Authority
		"show":          {"evidence.go", "login.go"},
		"checkpoint":    {"checkpoint.go", "registry.go", "unknown.go"}, // web.checkpoint
	}
	for _, path := range append(must(filepath.Glob("*.go")), must(filepath.Glob("../cmd/aln-registry/*.go"))...) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file := must(parser.ParseFile(token.NewFileSet(), path, nil, 0))
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, _ := selector.X.(*ast.Ident)
			name := selector.Sel.Name
			if (name == "Open" || name == "CosignedAt" || name == "Artifact" || name == "Upstream") && (of == nil || of.Name != "translog" && of.Name != "verify") {
				return true
			}
			if files, restricted := allowed[name]; restricted && !slices.Contains(files, filepath.Base(path)) {
				t.Errorf("%s calls %s: a checkpoint is opened by judge, View.Verify or View.VerifyUpstream alone", path, name)
			}
			return true
		})
	}
}

// The provider asks for sessions, not for checkpoints: a build goes on beside a log
// that stands still.
func TestAFrozenLogDoesNotStopSessions(t *testing.T) {
	f, _, r := loggedIn(t)
	f.frozen(25 * time.Hour)
	if _, err := r.Session(t.Context(), particle.ScopeRead, "", 0); err != nil {
		t.Error(err)
	}
	if n := f.count("GET /log/checkpoint"); n != 1 {
		t.Errorf("%d checkpoints were asked for, one of them by login", n)
	}
}

func TestALogKeyThatWasReplacedIsFollowed(t *testing.T) {
	f, c, r := loggedIn(t)
	before := must(c.home.PinOf(f.server.URL))
	old := f.logKey
	rotated := f.rotate(*r.identity)

	_, verdict, err := must(c.Open("")).LogCheck(t.Context())
	if err != nil || !verdict.OK() || verdict.Keys != rotated.ID() {
		t.Fatalf("%+v, %v", verdict, err)
	}
	pin := must(c.home.PinOf(f.server.URL))
	if pin.Size() != 3 || pin.Keys != rotated.ID() || before.Keys != "" {
		t.Errorf("pinned %d entries with the keys of %q", pin.Size(), pin.Keys)
	}
	if _, err := c.Login(t.Context(), f.server.URL, ""); err != nil {
		t.Errorf("a second login: %v", err)
	}
	first := New(Config{Home: OpenHome(t.TempDir()), KeyFile: r.identity.Path, Now: time.Now, Rand: rand.Reader})
	if login, err := first.Login(t.Context(), f.server.URL, ""); err != nil || login.Pin.Keys != rotated.ID() || login.Pin.Size() != 3 {
		t.Errorf("a first login: %+v, %v", login, err)
	}
	if _, err := must(r.View(t.Context())).Entry(0); !errors.Is(err, ErrUntrusted) {
		t.Errorf("an entry of a log that was not judged: %v", err)
	}
	f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
	verdict, err = must(must(c.Open("")).View(t.Context())).Verify(t.Context(), verify.Want{Subject: crateSubject("demo", "1.0.0"), CID: cidOf("one")})
	if err != nil || !verdict.OK() {
		t.Errorf("%+v, %v", verdict, err)
	}

	// A thief of the old key leaves the rotation out: who has seen it is not deceived.
	pinned := string(must(c.home.PinOf(f.server.URL)).Checkpoint)
	f.logKey = old
	f.truncate(2)
	for range 3 {
		f.publish(*r.identity, "other", "1.0.0", nil)
	}
	_, verdict, err = must(c.Open("")).LogCheck(t.Context())
	if check, _ := verdict.Failure(); err != nil || check.Name != verify.CheckCheckpoint || !strings.Contains(check.Detail, "was left out") {
		t.Errorf("%+v, %v", check, err)
	}
	if _, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "was left out") {
		t.Errorf("login: %v", err)
	}
	if now := string(must(c.home.PinOf(f.server.URL)).Checkpoint); now != pinned {
		t.Error("the thief's log was pinned")
	}
	if kept := must(c.home.Conflicts(pin)); len(kept) != 0 {
		t.Errorf("a replaced key's word was kept against the log: %+v", kept)
	}
}

// A server from before keys could be replaced has no proof of them.
func TestARegistryWithoutAProofOfItsKeysHasThoseOfEntry0(t *testing.T) {
	f, c, r := loggedIn(t)
	f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/log/keys" {
			return false
		}
		http.NotFound(w, req)
		return true
	}
	if _, verdict, err := r.LogCheck(t.Context()); err != nil || !verdict.OK() {
		t.Errorf("%+v, %v", verdict, err)
	}
	f.rotate(*r.identity)
	_, verdict, err := r.LogCheck(t.Context())
	if check, _ := verdict.Failure(); err != nil || check.Name != verify.CheckCheckpoint {
		t.Errorf("a key that nothing proves: %+v, %v", verdict, err)
	}
	if _, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, ErrUntrusted) {
		t.Errorf("login: %v", err)
	}
}

// rotate logs settings that put a new log key first, and signs with it from now on.
func (f *fake) rotate(admin Identity) *record.Record {
	key := must(did.GenerateEd25519(rand.Reader))
	raw, _ := key.Ed25519()
	f.logKey = must(translog.NewLogKey(raw))
	return f.settle(admin, func(body *record.Registry) {
		body.LogKeys = append([]string{key.Public().Multikey()}, body.LogKeys...)
	})
}

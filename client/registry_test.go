package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

func TestConcurrentProcessesShareOneReadSession(t *testing.T) {
	f, c, r := loggedIn(t)
	var wg sync.WaitGroup
	tokens := make([]string, 8)
	for i := range tokens {
		wg.Go(func() {
			other := must(clientIn(c.home).Open("")) // as another process would
			s, err := other.Session(t.Context(), particle.ScopeRead, "", 0)
			if err != nil {
				t.Error(err)
			}
			tokens[i] = s.Token
		})
	}
	wg.Wait()
	for _, token := range tokens {
		if token != tokens[0] {
			t.Errorf("tokens differ: %v", tokens)
		}
	}
	if n := f.count("POST /v1/session"); n != 1 {
		t.Errorf("%d sessions were minted", n)
	}
	if err := ownerOnly(t, r.sessionFile(r.sessionName())); err != nil {
		t.Errorf("session file: %v", err)
	}
}

func TestSessionsAreReplacedInTime(t *testing.T) {
	f, c, r := loggedIn(t)
	now := time.Now()
	r.web.now = func() time.Time { return now }
	for i, step := range []struct {
		wait time.Duration
		want int
	}{{0, 1}, {12 * time.Minute, 1}, {2 * time.Minute, 2}, {-time.Hour, 3}} {
		now = now.Add(step.wait)
		f.skew = time.Until(now)
		if _, err := r.Session(t.Context(), particle.ScopeRead, "", 0); err != nil {
			t.Fatal(err)
		}
		if n := f.count("POST /v1/session"); n != step.want {
			t.Errorf("step %d: %d sessions, want %d", i, n, step.want)
		}
	}
	for _, scope := range []string{particle.ScopePublish, particle.ScopeAdmin} {
		before := f.count("POST /v1/session")
		for range 2 {
			if _, err := r.Session(t.Context(), scope, "", 0); err != nil {
				t.Fatal(err)
			}
		}
		if n := f.count("POST /v1/session"); n != before+2 {
			t.Errorf("a session for %s was kept", scope)
		}
	}
	if files := must(filepath.Glob(filepath.Join(c.home.Path(), "sessions", "*.json"))); len(files) != 1 {
		t.Errorf("on disk: %v", files)
	}
}

func TestBrokenSessionFileIsReplaced(t *testing.T) {
	_, _, r := loggedIn(t)
	s := must(r.Session(t.Context(), particle.ScopeRead, "", 0))
	path := r.sessionFile(r.sessionName())
	good := string(must(os.ReadFile(path)))
	for name, bad := range map[string]string{
		"half":               good[:len(good)/2],
		"header injection":   strings.Replace(good, s.Token, `a\r\nX: y`, 1),
		"of another DID":     strings.Replace(good, string(r.identity.DID()), "did:web:a.example", 1),
		"of another mint":    strings.Replace(good, string(r.pin.Origin), "did:web:a.example", 1),
		"lives too long":     strings.Replace(good, `"expires":`, `"expires":9`, 1),
		"with more than one": strings.Replace(good, "{", `{"x":1,`, 1),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Session(t.Context(), particle.ScopeRead, "", 0); err != nil || got.Token == s.Token {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSessionTheRegistryForgotIsReplaced(t *testing.T) {
	f, _, r := loggedIn(t)
	if _, err := r.Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	clear(f.tokens)
	if _, err := r.Members(t.Context()); err != nil {
		t.Errorf("after the registry forgot the session: %v", err)
	}
}

func TestClockIsCorrectedByTheRegistrys(t *testing.T) {
	for skew, want := range map[time.Duration]error{0: nil, 10 * time.Minute: nil, -3 * time.Hour: nil, 48 * time.Hour: ErrClock} {
		f, _, r := loggedIn(t)
		f.skew = skew
		rec, err := r.Sign(t.Context(), Draft{Subject: crateSubject("demo", "1.0.0"), Digest: [32]byte{1}, Body: &record.Publish{}}, recordValidity)
		if !errors.Is(err, want) {
			t.Errorf("%v: %v", skew, err)
		}
		if err == nil && rec.Header().IssuedAt.Sub(f.now()).Abs() > 5*time.Second {
			t.Errorf("%v: signed at %v, the registry has %v", skew, rec.Header().IssuedAt, f.now())
		}
	}
}

func TestSignAndSubmit(t *testing.T) {
	f, _, r := loggedIn(t)
	other, otherID := stranger(t, f)
	done, err := r.SignAndSubmit(t.Context(), Draft{Subject: record.MemberSubject(otherID.DID()), Body: &record.Member{Roles: []string{"auditor"}, Tier: particle.TierGuest}})
	if err != nil || done.Index != 2 || f.records[2].ID() != done.Record {
		t.Fatalf("%+v, %v", done, err)
	}
	var scopes []string
	for _, a := range f.tokens {
		if a.Rec != "" {
			scopes = append(scopes, a.Scope+" "+a.Rec)
		}
	}
	if len(scopes) != 1 || scopes[0] != "admin "+string(done.Record) {
		t.Errorf("sessions bound to records: %v", scopes)
	}
	f.publish(*r.identity, "demo", "1.0.0", nil)
	theirs := must(other.Open(""))
	if _, err := theirs.SignAndSubmit(t.Context(), Draft{Subject: crateSubject("demo", "1.0.0"), Body: &record.Yank{Yanked: true}}); !errors.Is(err, ErrNotEntitled) {
		t.Errorf("not an owner: %v", err)
	}
}

func TestRegistryAnswersAreHeldToTheQuestion(t *testing.T) {
	answer := func(status int, header, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == sessionPath {
				return false
			}
			w.Header().Set("ALN-Log-Index", header)
			w.WriteHeader(status)
			w.Write([]byte(body))
			return true
		}
	}
	f, _, r := loggedIn(t)
	first, second := f.records[0], f.records[1]
	for name, test := range map[string]struct {
		tamper func(http.ResponseWriter, *http.Request) bool
		do     func() error
	}{
		"heads of another thing": {answer(200, "", `{"thing":"registry","prev":null,"by":null,"key":null,"origin":"`+string(r.pin.Origin)+`"}`), func() error {
			_, err := r.Heads(t.Context(), crateSubject("demo", "1.0.0"))
			return err
		}},
		"heads of another registry": {answer(200, "", `{"thing":"registry","prev":null,"by":null,"key":null,"origin":"did:web:a.example"}`), func() error {
			_, err := r.Heads(t.Context(), record.RegistrySubject())
			return err
		}},
		"another record": {answer(200, "0", string(first.Envelope())), func() error { _, _, err := r.Record(t.Context(), string(second.ID())); return err }},
		"no index":       {answer(200, "", string(first.Envelope())), func() error { _, _, err := r.Record(t.Context(), string(first.ID())); return err }},
		"attachment":     {answer(200, "", "bytes"), func() error { _, err := r.Attachment(t.Context(), "x", cidOf("other")); return err }},
		"another crate": {answer(200, "", `{"kind":"crate","name":"evil","version":"1.0.0","cid":"`+cidOf("x").String()+`"}`), func() error {
			_, err := r.Artifact(t.Context(), crateSubject("demo", "1.0.0"))
			return err
		}},
		"bundle out of order": {answer(200, "", `{"records":[{"index":1,"envelope":"","attachments":[]},{"index":1,"envelope":"","attachments":[]}]}`), func() error {
			_, err := r.Bundle(t.Context(), crateSubject("demo", "1.0.0"))
			return err
		}},
		"bundle not base64": {answer(200, "", `{"records":[{"index":1,"envelope":"!","attachments":[]}]}`), func() error {
			_, err := r.Bundle(t.Context(), crateSubject("demo", "1.0.0"))
			return err
		}},
		"no JSON":        {answer(200, "", `<html>`), func() error { _, err := r.Members(t.Context()); return err }},
		"duplicate keys": {answer(200, "", `{"members":[],"members":[]}`), func() error { _, err := r.Members(t.Context()); return err }},
		"endless":        {answer(200, "", strings.Repeat(" ", translog.MaxNoteBytes+1)), func() error { _, err := r.Checkpoint(t.Context()); return err }},
	} {
		f.tamper = test.tamper
		if err := test.do(); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.tamper = answer(200, "", `{"record":"`+string(first.ID())+`","index":1}`)
	if _, err := r.Submit(t.Context(), second, nil); !errors.Is(err, ErrAnswer) {
		t.Errorf("acknowledged another record: %v", err)
	}
}

func TestSessionAnswersAreChecked(t *testing.T) {
	f, _, r := loggedIn(t)
	for name, body := range map[string]string{
		"type":    `{"access_token":"a","token_type":"MAC","expires_in":900}`,
		"tilde":   `{"access_token":"a~b","token_type":"Bearer","expires_in":900}`,
		"newline": `{"access_token":"a\nb","token_type":"Bearer","expires_in":900}`,
		"empty":   `{"access_token":"","token_type":"Bearer","expires_in":900}`,
		"forever": `{"access_token":"a","token_type":"Bearer","expires_in":90000}`,
		"past":    `{"access_token":"a","token_type":"Bearer","expires_in":-1}`,
		"long":    `{"access_token":"` + strings.Repeat("a", maxTokenLength+1) + `","token_type":"Bearer","expires_in":900}`,
	} {
		f.tamper = func(w http.ResponseWriter, _ *http.Request) bool { w.Write([]byte(body)); return true }
		if s, err := r.Session(t.Context(), particle.ScopeRead, "", 0); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestRefusalsAreReadInAllTheirForms(t *testing.T) {
	f, _, r := loggedIn(t)
	for name, test := range map[string]struct {
		contentType, body string
		want              APIError
	}{
		"ours":       {"application/json", `{"error":{"code":"membership","detail":"no member"}}`, APIError{Status: 409, Code: "membership", Detail: "no member"}},
		"cargo's":    {"application/json", `{"errors":[{"detail":"no such crate"}]}`, APIError{Status: 409, Detail: "no such crate"}},
		"text":       {"text/plain; charset=utf-8", "withdrawn\x1b[2J\n", APIError{Status: 409, Detail: "withdrawn [2J"}},
		"a proxy's":  {"text/html", "<html>", APIError{Status: 409, Detail: ""}},
		"a long one": {"text/plain", strings.Repeat("x", 5000), APIError{Status: 409, Detail: strings.Repeat("x", 2000) + "…"}},
	} {
		f.tamper = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", test.contentType)
			w.WriteHeader(409)
			w.Write([]byte(test.body))
			return true
		}
		_, err := r.Checkpoint(t.Context())
		var got *APIError
		if !errors.As(err, &got) || *got != test.want {
			t.Errorf("%s: %+v", name, err)
		}
	}
}

func TestCredentialsDoNotFollowRedirects(t *testing.T) {
	f, _, r := loggedIn(t)
	asked := 0
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer evil.Close()
	f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == sessionPath {
			return false
		}
		http.Redirect(w, req, evil.URL+"/v1/members", http.StatusTemporaryRedirect)
		return true
	}
	if _, err := r.Members(t.Context()); !errors.Is(err, ErrAnswer) || asked != 0 {
		t.Errorf("%v; the other host was asked %d times", err, asked)
	}
	f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
		http.Redirect(w, req, "/again", http.StatusTemporaryRedirect)
		return true
	}
	if _, err := r.Checkpoint(t.Context()); !errors.Is(err, ErrAnswer) {
		t.Errorf("a circle of redirects: %v", err)
	}
}

func TestDownloadHashesWhatItWrites(t *testing.T) {
	_, _, r := loggedIn(t)
	var out bytes.Buffer
	cid, size, err := r.Download(t.Context(), must(record.VersionSubject(record.KindCrate, "demo", "1.0.0")), &out)
	if err != nil || cid != cidOf("crate bytes") || size != 11 || out.String() != "crate bytes" {
		t.Errorf("%v, %d, %v", cid, size, err)
	}
}

func TestEvidenceProvesAnArtifact(t *testing.T) {
	f, c, r := loggedIn(t)
	f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
	view, err := r.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.publish(*r.identity, "demo", "1.1.0", []byte("two")) // after the view was made
	subject := crateSubject("demo", "1.0.0")
	verdict, err := view.Verify(t.Context(), verify.Want{Subject: subject, CID: cidOf("one")})
	if err != nil || !verdict.OK() {
		t.Fatalf("%+v, %v", verdict, err)
	}
	if size := must(c.home.PinOf(f.server.URL)).Size(); size != 3 {
		t.Errorf("pinned %d entries, want the view's 3", size)
	}
	verdict, err = view.Verify(t.Context(), verify.Want{Subject: subject, CID: cidOf("else")})
	if failed, _ := verdict.Failure(); err != nil || failed.Name != verify.CheckBytes {
		t.Errorf("other bytes: %+v, %v", failed, err)
	}
	verdict, err = view.Verify(t.Context(), verify.Want{Subject: crateSubject("demo", "1.1.0")})
	if failed, _ := verdict.Failure(); err != nil || failed.Name != verify.CheckRecord {
		t.Errorf("a version that the view has not: %+v, %v", failed, err)
	}
	if ev, err := must(c.Open("")).Evidence(t.Context(), crateSubject("demo", "1.1.0")); err != nil || len(ev.Items) != 4 || len(ev.Consistency) == 0 {
		t.Errorf("%d items, %v", len(ev.Items), err)
	}
}

// TestAlteredAnswersNeverVerify changes one bit of every kind of answer in turn.
func TestAlteredAnswersNeverVerify(t *testing.T) {
	for _, path := range []string{"/log/checkpoint", "/log/tile/0/", "/log/tile/entries/"} {
		f, c, _ := loggedIn(t)
		f.publish(*must(c.Open("")).identity, "demo", "1.0.0", []byte("one"))
		f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasPrefix(req.URL.Path, path) {
				return false
			}
			recorder := httptest.NewRecorder()
			if req.URL.Path == "/log/checkpoint" {
				recorder.Write(f.note())
			} else {
				f.serveTile(recorder, strings.TrimPrefix(req.URL.Path, "/log/"))
			}
			w.Write(flip(recorder.Body.Bytes()))
			return true
		}
		r := must(c.Open(""))
		view, err := r.View(t.Context())
		if err == nil {
			var verdict verify.Verdict
			if verdict, err = view.Verify(t.Context(), verify.Want{Subject: crateSubject("demo", "1.0.0")}); err == nil && verdict.OK() {
				t.Errorf("altered %s: verified", path)
			}
		}
		if size := must(c.home.PinOf(f.server.URL)).Size(); size != 2 {
			t.Errorf("altered %s: pinned %d entries", path, size)
		}
	}
}

func TestLogCheckAdvancesThePinOnlyWhenAllHolds(t *testing.T) {
	f, c, r := loggedIn(t)
	f.publish(*r.identity, "demo", "1.0.0", nil)
	if opened, verdict, err := r.LogCheck(t.Context()); err != nil || !verdict.OK() || opened.Size != 3 {
		t.Fatalf("%+v, %+v, %v", opened, verdict, err)
	}
	if size := must(c.home.PinOf(f.server.URL)).Size(); size != 3 {
		t.Errorf("pinned %d", size)
	}
	r = must(c.Open(""))
	f.truncate(2)
	_, verdict, err := r.LogCheck(t.Context())
	if failed, _ := verdict.Failure(); err != nil || failed.Name != verify.CheckRollback {
		t.Errorf("rollback: %+v, %v", failed, err)
	}
	f.publish(*r.identity, "fork", "1.0.0", nil)
	f.publish(*r.identity, "fork", "1.0.1", nil)
	_, verdict, err = r.LogCheck(t.Context())
	if failed, _ := verdict.Failure(); err != nil || failed.Name != verify.CheckFork {
		t.Errorf("fork: %+v, %v", failed, err)
	}
	if pin := must(c.home.PinOf(f.server.URL)); string(pin.Checkpoint) != string(r.pin.Checkpoint) {
		t.Error("a log that failed was pinned")
	}
}

func TestReplay(t *testing.T) {
	f, _, r := loggedIn(t)
	f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
	var last, of int64
	verdict, replayed, err := r.Replay(t.Context(), func(done, all int64) { last, of = done, all })
	if err != nil || !verdict.OK() || replayed.Violated != 0 || replayed.Size != 3 || last != 3 || of != 3 {
		t.Fatalf("%+v, %d of %d violated, %v", verdict, replayed.Violated, replayed.Size, err)
	}
	f.log(f.records[2]) // the same record twice
	if _, replayed, err = must(clientIn(r.client.home).Open("")).Replay(t.Context(), nil); err != nil || replayed.Violated != 1 {
		t.Errorf("a replayed record: %d violations, %v", replayed.Violated, err)
	}
}

func TestLockEndsWithItsContext(t *testing.T) {
	home := OpenHome(t.TempDir())
	unlock, err := home.lock(t.Context(), folderSessions, "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := home.lock(ctx, folderSessions, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	again, err := home.lock(t.Context(), folderSessions, "x")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

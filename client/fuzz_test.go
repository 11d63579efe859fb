package client

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
)

func FuzzBundle(f *testing.F) {
	f.Add([]byte(`{"records":[{"index":0,"envelope":"e30=","attachments":["AA=="]},{"index":5,"envelope":"","attachments":[]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var j bundleJSON
		if json.Unmarshal(data, &j) != nil {
			return
		}
		records, err := j.decode()
		if err != nil {
			return
		}
		for i, r := range records {
			if r.Index < 0 || i > 0 && r.Index <= records[i-1].Index {
				t.Fatalf("accepted %+v", records)
			}
		}
	})
}

func FuzzPin(f *testing.F) {
	const base = "https://a.example"
	home := OpenHome(f.TempDir())
	if err := home.make(folderRegistries); err != nil {
		f.Fatal(err)
	}
	path := home.file(folderRegistries, fileID(IndexURL(base))+pinSuffix)
	if err := home.writePin(Pin{IndexURL: IndexURL(base), URL: base, Origin: "did:web:a.example", Checkpoint: []byte("x\n")}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		pin, err := home.PinOf(base)
		if err == nil && (pin.URL != base || pin.IndexURL != IndexURL(base) || pin.Origin == "") {
			t.Fatalf("accepted %+v", pin)
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(`{"error":{"code":"a","detail":"b"}}`, "application/json")
	f.Add("\x1b]0;title\x07", "text/plain")
	f.Fuzz(func(t *testing.T, body, contentType string) {
		err := readError(&http.Response{StatusCode: 400, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))})
		text := err.Error()
		if text == "" || !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\x07\r\x00\x7f\u009b") {
			t.Fatalf("%q", text)
		}
	})
}

// FuzzSessionFile: whatever stands in the file of a kept session, what is sent
// from it is a token that fits in a header, and not for longer than sessions live.
func FuzzSessionFile(f *testing.F) {
	_, _, r := loggedIn(f)
	name := r.sessionName()
	if _, err := r.Session(f.Context(), "read", "", 0); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(r.sessionFile(name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), `"token":"`, `"token":"x\r\nHost: evil`, 1)))
	f.Add([]byte(`{"expires":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(r.sessionFile(name), data, fileMode); err != nil {
			t.Fatal(err)
		}
		s, ok := r.cached(name)
		if !ok {
			return
		}
		if left := s.Expires.Sub(r.web.now()); left <= 0 || left > policy.MaxSession {
			t.Errorf("good for %s", left)
		}
		if strings.Trim(s.Token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" || s.Token == "" {
			t.Errorf("the token %q", s.Token)
		}
	})
}

// FuzzAnswers is a registry that answers every question with the same bytes:
// nothing panics or goes on for ever, and what is taken is about what was asked for.
func FuzzAnswers(f *testing.F) {
	registry, _, r := loggedIn(f)
	subject := crateSubject("demo-one", "0.1.0")
	first := registry.records[0]
	f.Add(first.Envelope(), "0", "application/json")
	f.Add([]byte(`{"settings":{"did":"`+string(r.pin.Origin)+`"},"record":"","document_record":""}`), "", "application/json")
	f.Add([]byte(`{"proposals":[{"needed":1}],"members":[{}],"artifacts":[{"kind":"crate"}],"next":"crate/a"}`), "-1", "application/json")
	f.Add([]byte(`{"kind":"crate","name":"demo-one","version":"0.1.0","versions":[{"version":"9"}],"next":"9","cid":"`+cidOf("x").String()+`"}`), "7", "")
	f.Add([]byte(`{"thing":"crate/demo_one","prev":"","by":"","key":null,"origin":"`+string(r.pin.Origin)+`"}`), "9223372036854775807", "")
	f.Add([]byte(`{"access_token":"a.b.c","token_type":"Bearer","expires_in":900}`), "", "")
	f.Fuzz(func(t *testing.T, body []byte, index, contentType string) {
		asked := 0
		r := *r
		r.web.client = &http.Client{Transport: answering(func(*http.Request) *http.Response {
			if asked++; asked > 500 {
				t.Fatal("it asks without end")
			}
			return &http.Response{
				StatusCode: 200, Header: http.Header{"Aln-Log-Index": {index}, "Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(body)),
			}
		})}
		ctx := t.Context()
		if rec, at, err := r.PublicRecord(ctx, string(first.ID())); err == nil && (rec.ID() != first.ID() || at < 0) {
			t.Errorf("the record %s at %d", rec.ID(), at)
		}
		if s, err := r.Settings(ctx); err == nil && s.Settings.DID != r.pin.Origin {
			t.Errorf("settings of %q", s.Settings.DID)
		}
		if a, err := r.Artifact(ctx, subject); err == nil && (a.Kind != record.KindCrate || a.CID.IsZero()) {
			t.Errorf("the artifact %+v", a)
		}
		if _, versions, err := r.Versions(ctx, subject, 10); err == nil && len(versions) > 10 {
			t.Errorf("%d versions", len(versions))
		}
		if found, _, err := r.Artifacts(ctx, "", "", 10); err == nil && len(found) > 10 {
			t.Errorf("%d artifacts", len(found))
		}
		_, _ = r.Proposals(ctx)
		_, _ = r.Members(ctx)
		if h, err := r.Heads(ctx, subject); err == nil && (h.Origin != r.pin.Origin || h.Thing != subject.Thing()) {
			t.Errorf("heads of %+v", h)
		}
		if s, err := r.mintOnce(ctx, "read", "", 0); err == nil && !validToken(s.Token) {
			t.Errorf("the token %q", s.Token)
		}
	})
}

// answering is a registry in place of the network.
type answering func(*http.Request) *http.Response

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := a(r)
	resp.Request = r
	return resp, nil
}

package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// saying publishes a version that says text of itself.
func (l *lab) saying(name, version, text string) {
	l.t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	for _, file := range [][2]string{
		{"Cargo.toml", fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\ndescription = %q\n", name, version, text)}, {"src/lib.rs", ""},
	} {
		must(0, w.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + file[0], Mode: 0o644, Size: int64(len(file[1]))}))
		must(w.Write([]byte(file[1])))
	}
	must(0, w.Close())
	must(0, z.Close())
	rec := l.sign(l.owner, versionSubject(name, version), &record.Publish{Evidence: []storage.CID{}}, sha256.Sum256(packed.Bytes()))
	asker := policy.Asker{DID: didOf(l.owner), Scopes: []string{"publish"}}
	must(l.registry.PublishCrate(context.Background(), asker, rec.Envelope(), bytes.NewReader(frame(name, version, packed.Bytes()))))
}

// A search must not say of a version that is not to be known of what it says of
// itself, not even by what finds it.
func TestASearchDoesNotFindByWhatIsHidden(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.saying("demo-one", "0.2.0", "drives the zeppelin")
	l.saying("demo-two", "0.2.0", "a zeppelin of its own")
	l.admitBound()
	host := l.newHost(particle.TierGuest, "builder")
	l.grant(host, func(g *particle.EnvGrant) {
		g.OffshoreFlag, g.AllowedCrates = true, []string{hexOf("demo-one", "0.1.0")}
	})
	token := l.session(host, "read")
	type results struct {
		Crates []struct{ Name, Description string } `json:"crates"`
		Meta   struct{ Total int }                  `json:"meta"`
	}
	for query, want := range map[string]int{"zeppelin": 0, "drives": 0, "nothing-at-all": 0, "demo": 1, "Demo_One": 1, "": 1} {
		var found results
		must(0, json.Unmarshal(l.get("/api/v1/crates?q="+query, token).want(t, 200).body, &found))
		if len(found.Crates) != want || found.Meta.Total != want || want > 0 && (found.Crates[0].Name != "demo-one" || found.Crates[0].Description != "") {
			t.Errorf("%q: %+v", query, found)
		}
	}
	l.get("/api/v1/crates?q=zeppelin", l.session(l.member, "read")).want(t, 200, "demo-one", "demo-two")
}

// A session that names a grant was handed on for what that allows: whoever holds it
// learns nothing more by naming another grant of the same host.
func TestASessionThatNamesAGrantTellsNoMoreByAnother(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	host := l.newHost(particle.TierGuest, "builder")
	wide := l.grant(host, allowing).String()
	narrow := l.grant(host, func(g *particle.EnvGrant) { g.OffshoreFlag = true }).String()
	naming := func(grant string) string {
		return l.session(host, "read", func(a *policy.Assertion) { a.Grant = grant })
	}
	for name, c := range map[string]struct {
		token, grant string
		status       int
	}{
		"narrow, asked by the wide":  {naming(narrow), wide, 404},
		"narrow, asked by itself":    {naming(narrow), narrow, 404},
		"narrow, asked by none":      {naming(narrow), "", 404},
		"wide, asked by itself":      {naming(wide), wide, 200},
		"wide, asked by the narrow":  {naming(wide), narrow, 200},
		"naming none, asked by wide": {naming(""), wide, 200},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/v1/decisions/crate/demo-one/0.1.0"
			if c.grant != "" {
				path += "?grant=" + c.grant
			}
			l.get(path, c.token).want(t, c.status)
			if d := l.decided(c.token, c.grant, hosted("demo-one", "0.1.0"))[0]; c.status == 404 && d.Known {
				t.Errorf("%+v", d)
			}
		})
	}
}

// Who sends a question byte by byte keeps nobody else from asking.
func TestSlowQuestionsHoldNoPlaceOfOthers(t *testing.T) {
	l := newLab(t)
	l.demo()
	slow := l.session(l.owner, "read")
	for range maxDecisions {
		body, w := io.Pipe()
		defer w.Close()
		req := must(http.NewRequest(http.MethodPost, l.url+"/v1/decisions", body))
		req.Header.Set("Authorization", slow)
		go func() {
			if answer, err := http.DefaultTransport.RoundTrip(req); err == nil {
				answer.Body.Close()
			}
		}()
		must(io.WriteString(w, `{"grant":`)) // returns when the transport took it
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, l.url+"/v1/decisions", strings.NewReader(`{"grant":"","artifacts":[]}`)))
	req.Header.Set("Authorization", l.session(l.member, "read"))
	answer, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
}

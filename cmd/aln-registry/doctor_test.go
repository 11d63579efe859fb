package main

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
)

// A registry that cannot answer is no registry that lies.
func TestDoctorTellsAnOutageFromALie(t *testing.T) {
	const attack, browser = "trust nothing of it", "in a browser"
	for name, c := range map[string]struct {
		status  int
		answer  string
		mend    string
		session string
	}{
		"the proxy has no server": {http.StatusBadGateway, "<html>502 Bad Gateway</html>", browser, "again later"},
		"too many requests":       {http.StatusTooManyRequests, "later", browser, "again later"},
		"something else answers":  {http.StatusForbidden, "blocked by policy", browser, "member add"},
		"not a log's checkpoint":  {http.StatusOK, "<html>welcome</html>", attack, "aln-registry login "},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.answer))
			}))
			defer server.Close()
			h := client.OpenHome(t.TempDir())
			if _, err := h.CreateIdentity("", rand.Reader); err != nil {
				t.Fatal(err)
			}
			pin, err := h.SavePin(t.Context(), client.Pin{
				IndexURL: client.IndexURL(server.URL), URL: server.URL, Identity: "default", Origin: "did:key:z6MkwCaRfavByxt8T3ExNbPsjeJK5Ss7dbcEdJLUtt8eoAQx",
			})
			if err != nil {
				t.Fatal(err)
			}
			d := &doctor{app: &app{}, client: client.New(client.Config{Home: h, Now: time.Now, Rand: rand.Reader})}
			r, err := d.client.Registry(pin)
			if err != nil {
				t.Fatal(err)
			}
			if answers, holds := d.checkLog(t.Context(), r); answers || holds {
				t.Errorf("answers %v, holds %v", answers, holds)
			}
			d.checkMembership(t.Context(), r)
			if len(d.findings) != 2 {
				t.Errorf("findings: %+v", d.findings)
			}
			for i, want := range []string{c.mend, c.session} {
				if f := d.findings[i]; f.Status != checkFail || !strings.Contains(f.Mend, want) || f.Detail == "" {
					t.Errorf("%+v; want a failure mended by %q", f, want)
				}
			}
		})
	}
}

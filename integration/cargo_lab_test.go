package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	le "encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

// frontDoor is a proxy before a lab's server, under the URL that the registry
// goes by. enter sees each request before the server does, leave each response
// before cargo does; either may be nil.
type frontDoor struct {
	server *httptest.Server
	target *url.URL
	enter  func(*http.Request)
	leave  func(*http.Response)
}

// newFrontLab is a lab whose clients come through the front door.
func newFrontLab(t *testing.T, f *frontDoor) *lab {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(f.target)
			if f.enter != nil {
				f.enter(r.In)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if f.leave != nil {
				f.leave(r)
			}
			return nil
		},
	}
	f.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(w, r) }))
	l := newLab(t, "--public-url", "http://"+f.server.Listener.Addr().String())
	var err error
	if f.target, err = url.Parse(l.url); err != nil {
		t.Fatal(err)
	}
	f.server.Start()
	t.Cleanup(f.server.Close)
	return l
}

// registry is the only registry that u has logged in to, asked as u.
func (u *user) registry() *client.Registry {
	u.t.Helper()
	c := client.New(client.Config{Home: client.OpenHome(u.home), Now: time.Now, Rand: rand.Reader, Version: "test"})
	r, err := c.Open("")
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

// session mints a session for scope; lifetime 0 is the default.
func (u *user) session(scope string, lifetime time.Duration) string {
	u.t.Helper()
	s, err := u.registry().Session(context.Background(), scope, "", lifetime)
	if err != nil {
		u.t.Fatal(err)
	}
	return s.Token
}

// logSize is the size of the log as its checkpoint says.
func (l *lab) logSize() int64 {
	l.t.Helper()
	_, _, note := l.get("/log/checkpoint", "")
	lines := strings.Split(string(note), "\n")
	if len(lines) < 3 {
		l.t.Fatalf("not a checkpoint: %q", note)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		l.t.Fatal(err)
	}
	return size
}

// admitPublisher makes u a member with the role publisher, the way an operator would.
func (l *lab) admitPublisher(u *user) {
	l.t.Helper()
	must(l.t, l.operator.aln(l.operator.folder, "member", "add", u.did(), "--role", "publisher"))
}

// newMember is a user who is logged in and admitted.
func (l *lab) newMember() *user {
	l.t.Helper()
	u := newUser(l.t)
	u.login(l, u.folder)
	l.operator.login(l, l.operator.folder)
	l.admitPublisher(u)
	return u
}

// publish publishes the crate in folder without building it first.
func (u *user) publish(l *lab, folder string) result {
	u.t.Helper()
	u.login(l, folder)
	return u.cargo(folder, "publish", "--registry", "aln", "--no-verify", "--allow-dirty")
}

// packaged is the .crate that cargo makes of the crate in folder.
func (u *user) packaged(folder, name, version string) []byte {
	u.t.Helper()
	must(u.t, u.cargo(folder, "package", "--no-verify", "--allow-dirty"))
	raw, err := os.ReadFile(filepath.Join(folder, "target", "package", name+"-"+version+".crate"))
	if err != nil {
		u.t.Fatal(err)
	}
	return raw
}

// upload is one publish request, made without cargo: the credential that its
// provider would have made, and the body.
type upload struct {
	credential string
	body       []byte
}

// signUpload signs crate as name@version by the heads as they are now.
func (u *user) signUpload(name, version string, crate []byte) upload {
	u.t.Helper()
	ctx, r := context.Background(), u.registry()
	subject, err := record.VersionSubject(record.KindCrate, name, version)
	if err != nil {
		u.t.Fatal(err)
	}
	rec, err := r.Sign(ctx, client.Draft{Subject: subject, Digest: sha256.Sum256(crate), Body: &record.Publish{}}, 5*time.Minute)
	if err != nil {
		u.t.Fatal(err)
	}
	s, err := r.Session(ctx, particle.ScopePublish, rec.ID(), time.Minute)
	if err != nil {
		u.t.Fatal(err)
	}
	metadata := fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"features":{},"authors":[],"links":null}`, name, version)
	var body bytes.Buffer
	for _, part := range [][]byte{[]byte(metadata), crate} {
		body.Write(le.LittleEndian.AppendUint32(nil, uint32(len(part))))
		body.Write(part)
	}
	return upload{s.Token + "~" + base64.RawURLEncoding.EncodeToString(rec.Envelope()), body.Bytes()}
}

// send does the request and returns its status and answer.
func (p upload) send(l *lab) (int, string, error) {
	req, err := http.NewRequest(http.MethodPut, l.url+"/api/v1/crates/new", bytes.NewReader(p.body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", p.credential)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// hexDigest is the sha256 of data as cargo writes it.
func hexDigest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// wantSays fails the test unless text holds all of want.
func wantSays(t testing.TB, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("does not say %q:\n%s", w, text)
		}
	}
}

package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// behindNginx is a lab that takes crates from a stand-in of crates.io, behind nginx with the
// configuration that is shipped; who trusts its certificate has logged in there.
func behindNginx(t *testing.T) (*composed, *upstreamLab) {
	t.Helper()
	c := newComposed(t)
	crates := testbed.CratesIO(t)
	l := &upstreamLab{newLab(t, "--public-url", c.proxy, "--upstream", upstreamSetting(crates), "--upstream-fresh", "0s"), crates}
	address := strings.TrimPrefix(l.url, "http://")
	c.nginx([]string{address, address})
	return c, l
}

// Unmodified cargo takes crates through nginx as it is shipped: those of crates.io, by the
// hundred at once, and one that is published through it.
func TestCargoFetchesThroughNginx(t *testing.T) {
	t.Parallel()
	c, l := behindNginx(t)
	u := l.operator
	folder := filepath.Join(u.folder, "program")
	testbed.CargoProgram(t, folder)
	login := func(folder string) {
		must(t, u.aln(folder, "login", c.proxy, "--ca-file", c.secret("tls.crt"), "--replace-crates-io"))
	}
	login(folder)
	began := time.Now()
	r := must(t, u.cargo(folder, "fetch"))
	l.summary("fetched through nginx", began)
	if crates, _ := l.requests(); crates < mostCrates {
		t.Errorf("upstream was asked for %d crates: %s", crates, r)
	}

	lib := filepath.Join(u.folder, "hosted-one")
	writeFiles(t, lib, map[string]string{
		"Cargo.toml": "[package]\nname = \"hosted-one\"\nversion = \"0.1.0\"\nedition = \"2021\"\ndescription = \"one\"\nlicense = \"MIT\"\n[workspace]\n", "src/lib.rs": "",
	})
	login(lib)
	must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
	app := filepath.Join(u.folder, "needing-both")
	writeFiles(t, app, map[string]string{
		"Cargo.toml": "[package]\nname = \"needing-both\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"1\"\nhosted-one = { version = \"0.1\", registry = \"aln\" }\n[workspace]\n", "src/lib.rs": "",
	})
	u.cargoHome = t.TempDir()
	login(app)
	must(t, u.cargo(app, "fetch"))
	if lock := lockOf(t, app); !strings.Contains(lock, `name = "hosted-one"`) || !strings.Contains(lock, `name = "itoa"`) {
		t.Errorf("the lock lacks one:\n%s", lock)
	}
	must(t, u.aln(app, "log", "check", "--full"))

	// What cargo does with an upstream that takes its time is the same as without nginx.
	l.crates.Use("/index/", testbed.Late(8*time.Second), 0)
	slow := l.needingThrough(c, "slow", `ryu = "1"`)
	must(t, u.cargo(slow, "fetch"))
	l.crates.Behave()
}

// needingThrough is needing, by nginx.
func (l *upstreamLab) needingThrough(c *composed, name, dependency string) (folder string) {
	l.t.Helper()
	u := l.operator
	folder = filepath.Join(u.folder, "through-"+name)
	writeFiles(l.t, folder, map[string]string{
		"Cargo.toml": fmt.Sprintf("[package]\nname = \"needing\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n%s\n[workspace]\n", dependency), "src/lib.rs": "",
	})
	u.cargoHome = l.t.TempDir()
	must(l.t, u.aln(folder, "login", c.proxy, "--ca-file", c.secret("tls.crt"), "--replace-crates-io"))
	return folder
}

// What an upstream sends slowly passes nginx as it comes, by the header that the registry sends
// with it: cargo gives up on who says nothing for half a minute. So do the lines by which
// prefetch shows that it is alive.
func TestNginxHoldsNothingBack(t *testing.T) {
	t.Parallel()
	c := newComposed(t)
	gate := make(chan struct{})
	s := &spoilt{do: func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", "65536")
		}
		w.Header().Set("X-Accel-Buffering", "no")
		io.WriteString(w, strings.Repeat("x", 600))
		http.NewResponseController(w).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	}}
	server := httptest.NewServer(s)
	defer server.Close()
	defer close(gate)
	address := server.Listener.Addr().String()
	c.nginx([]string{address, address})
	agent := insecure()
	for path, method := range map[string]string{
		"/crates-io/dl/a/1.0.0/00": http.MethodGet, "/upstream/lab/dl/a/1.0.0/00": http.MethodGet,
		"/v1/upstreams/crates-io/prefetch": http.MethodPost,
	} {
		req := must0(http.NewRequest(method, c.proxy+path, strings.NewReader("{}")))
		resp, err := agent.Do(req)
		if err != nil {
			t.Errorf("%s %s: not even the headers: %v", method, path, err)
			continue
		}
		if told := resp.Header.Get("X-Accel-Buffering"); told != "" {
			t.Errorf("%s %s: what is nginx's own is passed on: %q", method, path, told)
		}
		came := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(resp.Body, make([]byte, 600))
			came <- err
		}()
		select {
		case err := <-came:
			if err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s %s: the first bytes are kept until there are more", method, path)
		}
		resp.Body.Close()
	}
}

// What the guide shows of nginx is enough: large uploads, records in headers, and crates of an
// upstream pass with nothing but that.
func TestTheGuidesNginxServes(t *testing.T) {
	t.Parallel()
	testbed.Program(t, "nginx", "nginx")
	_, shown, found := strings.Cut(readRepository(t, "docs/OPERATIONS.md"), "```nginx\n")
	if !found {
		t.Fatal("the guide shows no nginx")
	}
	shown, _, _ = strings.Cut(shown, "```")
	crates, address := testbed.CratesIO(t), steadyAddress(t)
	l := &upstreamLab{newLab(t, "--public-url", "http://"+address, "--upstream", upstreamSetting(crates)), crates}
	folder := t.TempDir()
	if err := os.Chmod(filepath.Dir(folder), 0o755); err != nil { // its workers are nobody's
		t.Fatal(err)
	}
	temporary := ""
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += name + "_temp_path " + filepath.Join(folder, name) + ";\n"
	}
	config := "daemon off;\npid " + filepath.Join(folder, "pid") + ";\nerror_log /dev/stderr warn;\nevents {}\nhttp {\naccess_log off;\n" + temporary +
		"server {\nlisten " + address + ";\n" + strings.Replace(shown, "http://127.0.0.1:8585", l.url, 1) + "}\n}\n"
	writeFiles(t, folder, map[string]string{"nginx.conf": config})
	c := &composed{t: t, folder: folder}
	c.daemon("nginx", os.Environ(), "nginx", "-c", filepath.Join(folder, "nginx.conf"))
	c.until("nginx", func() error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	})

	u := l.operator
	app := filepath.Join(u.folder, "app")
	writeFiles(t, app, map[string]string{
		"Cargo.toml": "[package]\nname = \"needing\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nserde = { version = \"1\", features = [\"derive\"] }\n[workspace]\n", "src/lib.rs": "",
	})
	must(t, u.aln(app, "login", "http://"+address, "--replace-crates-io"))
	must(t, u.cargo(app, "fetch"))
	must(t, u.aln(app, "prefetch", "Cargo.lock"))
	for version, size := range map[string]int{"0.1.0": 100, "0.2.0": 60 << 20} {
		writeFiles(t, app, map[string]string{"noise": strings.Repeat("noise ", size/6)})
		must(t, u.aln(app, "publish", "noise", "--kind", "manifest", "--name", "noise", "--version", version))
		must(t, u.aln(app, "get", "manifest/noise@"+version, "--output", filepath.Join(t.TempDir(), "noise")))
	}
	writeFiles(t, app, map[string]string{"noise": strings.Repeat("noise ", 68<<20/6)})
	if r := u.aln(app, "publish", "noise", "--kind", "manifest", "--name", "noise", "--version", "0.3.0"); r.status == 0 || !strings.Contains(r.stderr, "67108864") {
		t.Errorf("what is too large is not refused in the registry's words: %s", r)
	}
}

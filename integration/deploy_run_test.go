package integration

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// composed is what docker-compose.yml describes, without containers: its secrets, made
// by the script, and its services' own commands and environments, on loopback.
type composed struct {
	t       *testing.T
	folder  string // the repository's, as far as the services see it
	compose composeFile
	// replaced leads from what the services call things to where these are here.
	replaced []string
	proxy    string
}

// daemon runs a program until the test's end, and until then from another one on;
// what it prints is told where the test fails.
func (c *composed) daemon(name string, env []string, program string, args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command(program, args...)
	var said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.folder, env, &said, &said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		ended := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		ended.Stop()
		if c.t.Failed() {
			c.t.Logf("%s said:\n%s", name, said.String())
		}
	})
	return cmd
}

func (c *composed) secret(name string) string {
	return filepath.Join(c.folder, "deploy", "secrets", name)
}

// here is text with everything in its place here.
func (c *composed) here(text string) string { return strings.NewReplacer(c.replaced...).Replace(text) }

// environment is a service's, with the image's.
func (c *composed) environment(service string, image map[string]string, more ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1 atexit_sleep_ms=0", "ALN_UPSTREAM=none"}
	all := map[string]string{}
	maps.Copy(all, image)
	delete(all, "PATH")
	maps.Copy(all, c.compose.Services[service].Environment)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+c.here(all[name]))
	}
	return append(env, more...)
}

// secrets makes the secrets by the script, twice: what is there stays.
func (c *composed) secrets() {
	c.t.Helper()
	for _, name := range []string{"deploy/secrets.sh", "deploy/minio/bucket.sh", "deploy/nginx.conf"} {
		writeFiles(c.t, c.folder, map[string]string{name: readRepository(c.t, name)})
	}
	u, names := newUser(c.t), c.t.TempDir()
	as := func(id string) { // tests run as root, whom the script refuses
		if err := os.WriteFile(filepath.Join(names, "id"), []byte("#!/bin/sh\necho "+id+"\n"), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	u.extra = append(u.extra, "PATH="+names+string(os.PathListSeparator)+os.Getenv("PATH"))
	as("0")
	mustFail(c.t, u.run(c.t.TempDir(), "sh", filepath.Join(c.folder, "deploy/secrets.sh")), "not as root")
	if _, err := os.Stat(filepath.Join(c.folder, ".env")); err == nil {
		c.t.Error("the script has made .env for root")
	}
	as("1234")
	before := map[string]string{}
	for range 2 {
		must(c.t, u.run(c.t.TempDir(), "sh", filepath.Join(c.folder, "deploy/secrets.sh")))
		for name, secret := range c.compose.Secrets {
			path := filepath.Join(c.folder, secret.File)
			if name == "registry.jwk" {
				if _, err := os.Stat(path); err == nil {
					c.t.Fatal("the script made the registry's key")
				}
				continue
			}
			text, info := textOf(c.t, path), must0(os.Stat(path))
			if len(text) < 16 || info.Mode() != 0o444 || before[name] != "" && before[name] != text {
				c.t.Errorf("%s is %d bytes, mode %s, and was %d bytes", name, len(text), info.Mode(), len(before[name]))
			}
			before[name] = text
		}
	}
	if mode := must0(os.Stat(c.secret(""))).Mode(); mode != os.ModeDir|0o700 {
		c.t.Errorf("the secrets' folder has mode %s", mode)
	}
	if len(before) == 0 || before["store_user"] == before["store_password"] || before["postgres_password"] == before["store_password"] {
		c.t.Error("secrets are alike")
	}
	wantSays(c.t, textOf(c.t, filepath.Join(c.folder, ".env")), "ALN_UID=1234\nALN_GID=1234\n")
	must(c.t, u.aln(c.folder, "key", "registry", "--out", "deploy/secrets/registry.jwk"))
}

func must0[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// store runs MinIO with the secrets as files, and makes the bucket, twice.
func (c *composed) store() {
	c.t.Helper()
	address := steadyAddress(c.t)
	c.replaced = append(c.replaced, "http://store:9000", "http://"+address)
	data := c.t.TempDir()
	s := c.compose.Services["store"]
	// The last two keep the console to loopback, and let the system's own disk be used.
	c.daemon("store", c.environment("store", nil, "MINIO_CI_CD=1"), testbed.MinIOProgram(c.t), "server", "--quiet", "--address", address, "--console-address", steadyAddress(c.t), data)
	check := s.Healthcheck.Test[1:]
	c.until("the store", func() error {
		return exec.Command(check[0], append(slices.Clone(check[1:len(check)-1]), strings.Replace(check[len(check)-1], "127.0.0.1:9000", address, 1))...).Run()
	})
	bucket := c.compose.Services["bucket"]
	for _, says := range []string{"is made", "is there"} {
		args := []string{filepath.Join(c.folder, "deploy/minio/bucket.sh")}
		for _, arg := range bucket.Entrypoint[2:] {
			args = append(args, c.here(arg))
		}
		cmd := exec.Command("/bin/sh", args...)
		cmd.Env = c.environment("bucket", nil)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), says) {
			c.t.Fatalf("%v: %s", err, out)
		}
	}
	cmd := exec.Command("/bin/sh", filepath.Join(c.folder, "deploy/minio/bucket.sh"), "http://"+address, "NOT")
	cmd.Env = c.environment("bucket", nil)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the store answers 400") {
		c.t.Errorf("a bucket that cannot be: %v\n%s", err, out)
	}
}

func (c *composed) until(what string, ready func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = ready(); err == nil {
			return
		}
	}
	c.t.Fatalf("%s is not ready: %v", what, err)
}

// nginx runs the proxy's configuration, at servers in place of the replicas.
func (c *composed) nginx(servers []string) {
	c.t.Helper()
	testbed.Program(c.t, "nginx", "nginx")
	temporary := c.t.TempDir()
	if err := os.Chmod(filepath.Dir(temporary), 0o755); err != nil {
		c.t.Fatal(err)
	}
	replaced := []string{
		"listen 8443", "listen " + strings.TrimPrefix(c.proxy, "https://"),
		"172.31.85.11:8585", servers[0], "172.31.85.12:8585", servers[1],
		"/run/secrets/", c.secret("") + "/", " /tmp/", " " + temporary + "/", "worker_processes auto;", "worker_processes 1; daemon off;",
	}
	config := strings.NewReplacer(replaced...).Replace(textOf(c.t, filepath.Join(c.folder, "deploy/nginx.conf")))
	writeFiles(c.t, temporary, map[string]string{"nginx.conf": config})
	path := filepath.Join(temporary, "nginx.conf")
	u := newUser(c.t)
	if r := must(c.t, u.run(c.folder, "nginx", "-t", "-q", "-c", path)); strings.Contains(r.stderr, "[") {
		c.t.Errorf("nginx warns: %s", r.stderr)
	}
	c.daemon("nginx", os.Environ(), "nginx", "-c", path)
	c.until("nginx", func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.proxy, "https://"))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func newComposed(t *testing.T) *composed {
	t.Helper()
	testbed.Program(t, "curl", "curl")
	c := &composed{t: t, folder: t.TempDir(), compose: readCompose(t)}
	c.proxy = "https://" + strings.Replace(steadyAddress(t), "127.0.0.1", "localhost", 1)
	c.secrets()
	c.replaced = []string{"/run/secrets/", c.secret("") + "/", "${ALN_PUBLIC_URL:?type deploy/secrets.sh first}", c.proxy}
	return c
}

// All that the composition says is done, but for its containers: two replicas over the
// engines, by their secrets, behind nginx; one of them is killed, and nobody notices.
func TestWhatIsComposedWorks(t *testing.T) {
	t.Parallel()
	c := newComposed(t)
	c.store()
	database := testbed.Postgres(t)
	c.replaced = append(c.replaced, "postgres://aln@database:5432/aln?sslmode=disable", database.URL)
	operator := newUser(t)
	must(t, operator.aln(operator.folder, "key", "new"))
	c.replaced = append(c.replaced, "${ALN_ADMIN:-}", operator.did())
	image := readDockerfile(t, "Dockerfile")

	migrate := exec.Command(binary, c.compose.Services["migrate"].Command...)
	migrate.Env = c.environment("migrate", image.env)
	if out, err := migrate.CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	var servers []string
	replicas := map[string]*exec.Cmd{}
	for _, name := range []string{"registry-1", "registry-2"} {
		address, metrics := steadyAddress(t), steadyAddress(t)
		servers = append(servers, address)
		replicas[name] = c.daemon(name, c.environment(name, image.env, "ALN_LISTEN="+address, "ALN_METRICS_LISTEN="+metrics), binary, "serve")
		health := exec.Command(binary, "doctor", "--ready", strings.Replace(image.health[3], "127.0.0.1:9585", metrics, 1))
		c.until(name, func() error {
			once := *health
			out, err := (&once).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	c.nginx(servers)

	u := operator
	must(t, u.aln(u.folder, "login", c.proxy, "--ca-file", c.secret("tls.crt")))
	put := func(n, size int) result {
		name := fmt.Sprint("noise-", n)
		writeFiles(t, u.folder, map[string]string{name: strings.Repeat(name+"\n", size/len(name))})
		return u.aln(u.folder, "publish", name, "--kind", "manifest", "--name", "noise", "--version", fmt.Sprintf("0.%d.0", n))
	}
	must(t, put(0, 100))
	must(t, put(1, 30<<20))
	for n := range 2 {
		out := filepath.Join(u.folder, fmt.Sprint("got-", n))
		must(t, u.aln(u.folder, "get", fmt.Sprintf("manifest/noise@0.%d.0", n), "--output", out))
		if textOf(t, out) != textOf(t, filepath.Join(u.folder, fmt.Sprint("noise-", n))) {
			t.Errorf("noise %d comes back otherwise", n)
		}
	}
	if r := put(2, 70<<20); r.status == 0 || !strings.Contains(r.stderr, "67108864") {
		t.Errorf("what is too large is not refused in the registry's words: %s", r)
	}

	replicas["registry-1"].Process.Kill()
	for n := 3; n < 8; n++ {
		must(t, put(n, 100))
		must(t, u.aln(u.folder, "list", "manifest/noise"))
	}
	must(t, u.aln(u.folder, "log", "check", "--full"))

	database.Kill()
	c.isAway("/readyz", "the registry cannot do this now")
	replicas["registry-2"].Process.Kill()
	c.isAway("/index/config.json", "no server of this registry can be reached now; try again in a moment")
	mustFail(t, u.aln(u.folder, "list", "manifest/noise"), "no server of this registry can be reached now")
}

// isAway waits until what is asked of the proxy gets a 503 of programs, with want in it.
func (c *composed) isAway(path, want string) {
	c.t.Helper()
	agent := insecure()
	c.until(path, func() error {
		resp, err := agent.Get(c.proxy + path)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "2" || !strings.Contains(string(said), want) || bytes.ContainsRune(said, '<') {
			return fmt.Errorf("%s, %v: %s (%v)", resp.Status, resp.Header, said, err)
		}
		return nil
	})
}

// Whoever asks for more than one may, and is told so with a 503 by every server, takes
// none of them away from others.
func TestWhoAsksTooMuchIsAloneRefused(t *testing.T) {
	c := newComposed(t)
	s := &spoilt{do: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer greedy" {
			w.Header().Set("Retry-After", "2")
			http.Error(w, "2 requests of this kind are under way for you already", http.StatusServiceUnavailable)
		}
	}}
	one, two := httptest.NewServer(s), httptest.NewServer(s)
	defer one.Close()
	defer two.Close()
	c.nginx([]string{one.Listener.Addr().String(), two.Listener.Addr().String()})
	agent := insecure()
	for n := range 60 {
		for token, want := range map[string]int{"greedy": http.StatusServiceUnavailable, "modest": http.StatusOK} {
			req := must0(http.NewRequest("GET", c.proxy+"/v1/audit", nil))
			req.Header.Set("Authorization", "Bearer "+token)
			resp := must0(agent.Do(req))
			said := string(must0(io.ReadAll(resp.Body)))
			resp.Body.Close()
			if resp.StatusCode != want || want != http.StatusOK && !strings.HasPrefix(said, "2 requests") {
				t.Fatalf("%s, request %d: %s %s", token, n, resp.Status, said)
			}
		}
	}
}

// spoilt is a server that does something to every request and notes which came.
type spoilt struct {
	do   func(w http.ResponseWriter, r *http.Request)
	mu   sync.Mutex
	came []string
}

func (s *spoilt) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.came = append(s.came, r.Method)
	s.mu.Unlock()
	s.do(w, r)
}

func (s *spoilt) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came = nil
}

func (s *spoilt) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.came)
}

// A request that may have changed something is never sent twice, one that reads is.
func TestTheProxyRepeatsOnlyWhatReads(t *testing.T) {
	t.Parallel()
	c := newComposed(t)
	for name, bad := range map[string]struct {
		do     func(w http.ResponseWriter, r *http.Request)
		status int
	}{
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		}, 0},
		"not now": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "2")
			http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
		}, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := &spoilt{do: bad.do}
			one, two := httptest.NewServer(s), httptest.NewServer(s)
			defer one.Close()
			defer two.Close()
			here := *c
			here.t, here.proxy = t, "https://"+steadyAddress(t)
			here.nginx([]string{one.Listener.Addr().String(), two.Listener.Addr().String()})
			agent := insecure()
			for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"} {
				s.forget()
				var body io.Reader
				if method != "GET" && method != "HEAD" {
					body = strings.NewReader("a body")
				}
				req := must0(http.NewRequest(method, here.proxy+"/v1/records", body))
				resp, err := agent.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				want, status := 1, cmp.Or(bad.status, http.StatusBadGateway)
				if body == nil {
					want, status = 2, http.StatusServiceUnavailable
				}
				if times := s.times(); times != want || resp.StatusCode != status {
					t.Errorf("%s: %d, sent %d times, want %d", method, resp.StatusCode, times, want)
				}
				if after := resp.Header.Get("Retry-After"); (status == http.StatusServiceUnavailable) != (after == "2") {
					t.Errorf("%s: Retry-After is %q", method, after)
				}
			}
		})
	}
}

func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
}

// What passes the proxy is what was sent: credentials, answers with all that says for
// whom they are, and bodies as they come.
func TestTheProxyChangesNothing(t *testing.T) {
	t.Parallel()
	c := newComposed(t)
	began := make(chan struct{}, 1)
	s := &spoilt{do: func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			io.ReadFull(r.Body, make([]byte, 1<<20))
			began <- struct{}{}
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
			return
		}
		for name, value := range map[string]string{"ETag": `"the-hash"`, "Cache-Control": "private, no-cache", "Vary": "Authorization", "X-Request-Id": "0123"} {
			w.Header().Set(name, value)
		}
		if r.Header.Get("If-None-Match") == `"the-hash"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, "%s %s %q %s", r.Header.Get("Authorization"), r.Host, r.Header.Get("X-Forwarded-For"), r.RequestURI)
	}}
	server := httptest.NewServer(s)
	defer server.Close()
	c.nginx([]string{server.Listener.Addr().String(), server.Listener.Addr().String()})
	agent := insecure()

	token := "Bearer " + strings.Repeat("x", 8<<10)
	for range 2 { // it keeps nothing: each is asked for
		s.forget()
		req := must0(http.NewRequest("GET", c.proxy+"/ipfs/..%2Fa%20b?format=raw", nil))
		req.Header.Set("Authorization", token)
		req.Header.Set("X-Forwarded-For", "192.0.2.1")
		req.Header.Set("Accept-Encoding", "gzip")
		resp := must0(agent.Do(req))
		body := string(must0(io.ReadAll(resp.Body)))
		resp.Body.Close()
		if want := token + " localhost" + ` "" /ipfs/..%2Fa%20b?format=raw`; body != want || s.times() != 1 {
			t.Errorf("%q came, asked %d times", body, s.times())
		}
		for name, want := range map[string]string{"ETag": `"the-hash"`, "Cache-Control": "private, no-cache", "Vary": "Authorization", "X-Request-Id": "0123", "Content-Encoding": ""} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
	}
	req := must0(http.NewRequest("GET", c.proxy+"/x", nil))
	req.Header.Set("If-None-Match", `"the-hash"`)
	resp, err := agent.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("unchanged: %d", resp.StatusCode)
	}

	in, out := io.Pipe()
	go func() {
		out.Write(make([]byte, 2<<20))
		select {
		case <-began: // before the rest was even made
			out.Write(make([]byte, 60<<20))
			out.Close()
		case <-time.After(20 * time.Second):
			out.CloseWithError(fmt.Errorf("the body is kept until it is whole"))
		}
	}()
	req = must0(http.NewRequest("PUT", c.proxy+"/api/v1/crates/new", in))
	req.ContentLength = 62 << 20
	resp, err = agent.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n := string(must0(io.ReadAll(resp.Body))); n != fmt.Sprint(61<<20) {
		t.Errorf("%s bytes came after the first MiB: %s", n, cmp.Or(resp.Status, ""))
	}
}

package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// request is what a client asks again and again, as bytes, and the status it expects.
type request struct {
	raw    []byte
	status int
}

// asking is a GET of path; header names and values take turns.
func asking(base, path string, status int, header ...string) request {
	var raw bytes.Buffer
	fmt.Fprintf(&raw, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n", path, strings.TrimPrefix(base, "http://"))
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(&raw, "%s: %s\r\n", header[i], header[i+1])
	}
	raw.WriteString("\r\n")
	return request{raw.Bytes(), status}
}

// benchClients is how many connections ask at once.
const benchClients = 8

// load asks n times over a few connections that stay open, and returns how long
// it took. The client does as little as it can: it shares the machine.
func load(b *testing.B, base string, r request, n int) time.Duration {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var clients sync.WaitGroup
	start := time.Now()
	for range benchClients {
		clients.Go(func() {
			err := askEach(strings.TrimPrefix(base, "http://"), func() (request, bool) { return r, left.Add(-1) >= 0 })
			if err != nil {
				b.Errorf("%s: %v", base, err)
			}
		})
	}
	clients.Wait()
	return time.Since(start)
}

// askEach asks what next says over one connection, until it says false.
func askEach(address string, next func() (request, bool)) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, 256<<10)
	for r, more := next(); more; r, more = next() {
		if _, err := conn.Write(r.raw); err != nil {
			return err
		}
		if err := readAnswer(reader, r.status); err != nil {
			return err
		}
	}
	return nil
}

func readAnswer(r *bufio.Reader, want int) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != strconv.Itoa(want) {
		return fmt.Errorf("answered %q, not %d", line, want)
	}
	length := 0
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !ok {
			break
		}
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if want == http.StatusNotModified {
		return nil
	}
	if length == 0 {
		return fmt.Errorf("a body without Content-Length")
	}
	_, err = r.Discard(length)
	return err
}

// bareRole makes this program a bare net/http server of one file, and no tests:
// the file, its content type, its ETag and the address follow, by line.
const bareRole = "ALN_BENCH_BARE"

// serveBare is what the registry's GETs are compared with: a handler that does
// nothing but write the bytes, or 304.
func serveBare(role string) error {
	parts := strings.Split(role, "\n")
	body, err := os.ReadFile(parts[0])
	if err != nil {
		return err
	}
	kind, etag, length := parts[1], parts[2], strconv.Itoa(len(body))
	return http.ListenAndServe(parts[3], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", kind)
		h.Set("Content-Length", length)
		_, _ = w.Write(body)
	}))
}

// bareServer runs this program as one.
func bareServer(b *testing.B, file, kind, etag string) process {
	b.Helper()
	address := steadyAddress(b)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := pinned(self)
	cmd.Env = append(os.Environ(), bareRole+"="+strings.Join([]string{file, kind, etag, address}, "\n"))
	cmd.Stderr = os.Stderr
	runFor(b, cmd)
	return process{"bare net/http", awaited(b, "http://"+address), cmd.Process.Pid}
}

// nginxServer runs nginx over folder, with TLS and HTTP/2 when there is a
// certificate, logging requests to a file as the registry does.
func nginxServer(b *testing.B, folder, certificate, key string) process {
	b.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		out, err := exec.Command("sh", "-c", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends nginx").CombinedOutput()
		if err != nil {
			b.Fatalf("nginx is compared with: %v\n%s", err, out)
		}
	}
	own, address, scheme, tls := benchFolder(b), steadyAddress(b), "http://", ""
	listen := address
	if certificate != "" {
		scheme, listen = "https://", address+" ssl http2"
		tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_session_cache shared:s:1m; keepalive_requests 100000;", certificate, key)
	}
	config := filepath.Join(own, "nginx.conf")
	writeFiles(b, own, map[string]string{"nginx.conf": fmt.Sprintf(`
user root; daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
  access_log %[1]s/access.log; sendfile on; tcp_nopush on; etag on; keepalive_requests 10000000;
  default_type text/plain; types { application/json json; }
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]s; %[3]s root %[4]s; }
}
`, own, listen, tls, folder)})
	cmd := pinned("nginx", "-c", config, "-p", own)
	cmd.Stderr = os.Stderr
	runFor(b, cmd)
	p := process{"nginx", scheme + address, cmd.Process.Pid}
	awaited(b, p.url)
	return p
}

// awaited waits until something listens at url, and returns it.
func awaited(b *testing.B, url string) string {
	b.Helper()
	_, address, _ := strings.Cut(url, "://")
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return url
		}
	}
	b.Fatalf("nothing listens at %s", url)
	return ""
}

// fetched is a GET's body and ETag.
func fetched(b *testing.B, url, token string) (body []byte, etag string) {
	b.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s %v", url, resp.Status, err)
	}
	return body, resp.Header.Get("ETag")
}

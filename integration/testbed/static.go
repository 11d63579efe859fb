package testbed

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// StaticCrates is nginx with the same tree as files, for comparisons.
type StaticCrates struct {
	// URL is without a slash at its end; Index is what Cargo is configured with,
	// CA the PEM file to trust, "" in the clear.
	URL, Index, CA string
	// Address is host:port. Where crates are comes from the host that config.json
	// was asked at, as with CratesServer.
	Address string
	// PID is of nginx's only process.
	PID int
}

// Static writes what s serves now as files and starts an nginx on them, which
// ends with the test.
func (s *CratesServer) Static(t testing.TB, secure bool) *StaticCrates {
	t.Helper()
	debian(t, []string{"nginx"}, []string{"nginx-light"})
	port, release := ports(t)
	t.Cleanup(release)
	d := newDaemons(t, "nginx")
	t.Cleanup(d.remove)
	c := &StaticCrates{Address: address(port)}
	scheme, listen, certificate := "http", c.Address, ""
	if secure {
		scheme, listen, c.CA = "https", c.Address+" ssl http2", s.ca
		certificate = "ssl_certificate cert.pem; ssl_certificate_key key.pem;"
		if err := s.writePair(d.folder); err != nil {
			t.Fatal(err)
		}
	}
	c.URL = scheme + "://" + c.Address
	c.Index = "sparse+" + c.URL + "/index/"
	if err := s.writeTree(filepath.Join(d.folder, "tree")); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`user root; daemon off; master_process off; pid nginx.run; error_log error.log;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; etag on; keepalive_requests 10000000; default_type text/plain; types { }
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {
    listen %s; %s root %s/tree;
    location = /index/config.json { return 200 '{"dl":"$scheme://$http_host/crates","api":"$scheme://$http_host"}'; }
  }
}
`, listen, certificate, d.folder)
	if err := os.WriteFile(filepath.Join(d.folder, "nginx.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.start("nginx", nil, "nginx", "-p", d.folder, "-c", filepath.Join(d.folder, "nginx.conf"), "-e", "error.log"); err != nil {
		t.Fatal(err)
	}
	err := until(20*time.Second, d.exited("nginx"), func() error {
		conn, err := net.Dial("tcp", c.Address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		t.Fatalf("testbed: nginx: %v\n%s", err, d.said("nginx"))
	}
	c.PID = d.running["nginx"].cmd.Process.Pid
	return c
}

func (s *CratesServer) writePair(folder string) error {
	key, err := x509.MarshalPKCS8PrivateKey(s.pair.PrivateKey)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.pair.Certificate[0]})
	if err := os.WriteFile(filepath.Join(folder, "cert.pem"), certificate, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}

// writeTree makes links to the crates that are files already.
func (s *CratesServer) writeTree(root string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.crates {
		path := filepath.Join(root, "index", filepath.FromSlash(IndexPath(file.lines[0].Name)))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.bytes(), 0o644); err != nil {
			return err
		}
		for _, line := range file.lines {
			if err := writeCrate(s.content[line.Name+"-"+line.Vers], filepath.Join(root, filepath.FromSlash(Download(line.Name, line.Vers)))); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeCrate(crate content, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if crate.file != "" {
		return os.Symlink(crate.file, path)
	}
	return os.WriteFile(path, crate.data, 0o644)
}

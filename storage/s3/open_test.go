package s3

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// quick are options for what is refused at once.
func quick(server *testbed.S3Server) Options {
	return Options{AccessKey: server.AccessKey, SecretKey: server.SecretKey, Patience: patienceOfTests}
}

func TestTLSTrustsOneFile(t *testing.T) {
	server, other := testbed.MinIOWithTLS(t), testbed.MinIOWithTLS(t)
	bucket := server.NewBucket(t)
	s, err := Open(t.Context(), server.BlobsURL(bucket), quick(server))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := bytes.Repeat([]byte("over TLS"), 20_000)
	id := storage.CIDOf(data)
	if err := s.Put(t.Context(), id, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, s, id); err != nil || !bytes.Equal(got, data) {
		t.Errorf("came back as %d bytes, %v", len(got), err)
	}
	none := filepath.Join(t.TempDir(), "none.pem")
	if err := os.WriteFile(none, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "s3://" + bucket + "?endpoint=" + server.Endpoint
	for name, test := range map[string]struct{ address, says string }{
		"another's certificate": {address + "&ca=" + url.QueryEscape(other.CA), "certificate"},
		"the system's":          {address, "certificate"},
		"no TLS":                {strings.Replace(address, "https:", "http:", 1), "400"},
		"a file without any":    {address + "&ca=" + url.QueryEscape(none), "PEM"},
		"no file":               {address + "&ca=" + url.QueryEscape(none+"x"), "no such file"},
	} {
		s, err := Open(t.Context(), test.address, quick(server))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, error %v, want one that says %q", name, s, err, test.says)
		}
	}
}

// Credentials come from the environment or from the file named there; without
// any the error says where they are looked for, and no error says them.
func TestCredentialsComeFromTheUsualPlaces(t *testing.T) {
	server := testbed.SharedMinIO(t)
	address := server.BlobsURL(server.NewBucket(t))
	file := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n[other]\naws_access_key_id = nobody\naws_secret_access_key = s3cr3t-wrong\n",
		server.AccessKey, server.SecretKey)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":%q,"Expiration":%q}`, server.AccessKey, server.SecretKey, time.Now().Add(time.Hour).Format(time.RFC3339))
	}))
	defer role.Close()
	const nobody = "http://127.0.0.1:9" // a role that cannot be asked for
	for _, test := range []struct {
		name string
		env  map[string]string
		says string // "" where it opens
	}{
		{"environment", map[string]string{"AWS_ACCESS_KEY_ID": server.AccessKey, "AWS_SECRET_ACCESS_KEY": server.SecretKey}, ""},
		{"file", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}, ""},
		{"the machine's role", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": role.URL}, ""},
		{"another profile", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": "other"}, "InvalidAccessKeyId"},
		{"wrong secret", map[string]string{"AWS_ACCESS_KEY_ID": server.AccessKey, "AWS_SECRET_ACCESS_KEY": "s3cr3t-wrong"}, "SignatureDoesNotMatch"},
		{"half", map[string]string{"AWS_ACCESS_KEY_ID": server.AccessKey, "AWS_CONTAINER_CREDENTIALS_FULL_URI": nobody}, "AWS_SECRET_ACCESS_KEY"},
		{"none", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": nobody}, "AWS_SHARED_CREDENTIALS_FILE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{
				"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
				"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
			} {
				t.Setenv(name, test.env[name])
			}
			nothing := filepath.Join(t.TempDir(), "nothing")
			t.Setenv("AWS_CONFIG_FILE", nothing)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", nothing)
			if file := test.env["AWS_SHARED_CREDENTIALS_FILE"]; file != "" {
				t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
			}
			s, err := Open(t.Context(), address, Options{Patience: patienceOfTests})
			if err == nil {
				s.Close()
			}
			switch {
			case test.says == "" && err != nil:
				t.Error(err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("error %v, want one that says %q", err, test.says)
			case err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), server.SecretKey)):
				t.Errorf("the error says a secret: %v", err)
			}
		})
	}
}

// A bucket that is not there is not made, and the error says how to.
func TestOpenMakesNoBucket(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		for range 2 {
			_, err := Open(t.Context(), server.BlobsURL("not-there"), quick(server))
			if err == nil || !strings.Contains(err.Error(), "create-bucket --bucket not-there") || unavailable(err) {
				t.Errorf("error %v", err)
			}
		}
	})
}

// Keys that the store does not take are not waited for, and where the bucket would be
// made is known.
func TestOpenSaysWhatTheStoreSays(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusForbidden: "blob storage does not let this server in (", http.StatusNotFound: "there is no bucket lab; make it, for instance: aws s3api create-bucket --bucket lab --endpoint-url ",
	} {
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Request-Id", "1")
			w.WriteHeader(status)
		}))
		defer store.Close()
		if status == http.StatusNotFound {
			want += store.URL
		}
		_, err := Open(t.Context(), "s3://lab?endpoint="+store.URL, Options{AccessKey: "key", SecretKey: "secret"})
		if err == nil || !strings.Contains(err.Error(), want) || unavailable(err) {
			t.Errorf("%d: error %v, want %q", status, err, want)
		}
	}
}

// Whether the bucket is there is asked with a patience of its own, and with no other.
func TestOpenMayBeLessPatient(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	readOnly := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Request-Id", "1")
		if r.Method != http.MethodHead {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer readOnly.Close()
	options := Options{AccessKey: "key", SecretKey: "secret", Patience: time.Minute, OpenPatience: 300 * time.Millisecond}
	begin := time.Now()
	if _, err := Open(t.Context(), "s3://bucket?endpoint=http://"+silent.Addr().String(), options); !unavailable(err) || time.Since(begin) > 30*time.Second {
		t.Errorf("error %v after %s, want ErrUnavailable", err, time.Since(begin))
	}
	s, err := Open(t.Context(), "s3://bucket?endpoint="+readOnly.URL, options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.patience != time.Minute {
		t.Errorf("the store's patience is %s", s.patience)
	}
}

// While the store is away operations fail within patience, and again succeed
// when it is back.
func TestAStoreThatGoesAndComesBack(t *testing.T) {
	server := testbed.MinIO(t)
	s, err := Open(t.Context(), server.BlobsURL(server.NewBucket(t)), quick(server))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Create(t.Context(), "log/entry/0", []byte("before")); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	begin := time.Now()
	for name, err := range map[string]error{"Create": s.Create(t.Context(), "log/entry/1", []byte("x")), "Probe": s.Probe(t.Context())} {
		if !unavailable(err) {
			t.Errorf("%s: error %v, want ErrUnavailable", name, err)
		}
	}
	if took := time.Since(begin); took > 3*patienceOfTests {
		t.Errorf("two operations took %s", took)
	}
	if _, err := Open(t.Context(), server.BlobsURL("bucket"), quick(server)); !unavailable(err) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Open: error %v, want ErrUnavailable and why", err)
	}
	// What was asked while it was away succeeds when it comes back in time.
	s.patience = time.Minute
	done := make(chan error, 1)
	go func() { done <- s.Create(t.Context(), "log/entry/2", []byte("meanwhile")) }()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Create: %v", err)
	}
	for key, want := range map[string]string{"log/entry/0": "before", "log/entry/2": "meanwhile"} {
		if got, err := s.Read(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("Read %s: %q, %v, want %q", key, got, err, want)
		}
	}
}

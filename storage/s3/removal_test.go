package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// hearing is a proxy that remembers what was asked to be removed, as it went over the wire.
type hearing struct {
	*httptest.Server
	mu    sync.Mutex
	heard []*http.Request
}

func hear(t *testing.T, server *testbed.S3Server) *hearing {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	h := &hearing{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host }}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			h.mu.Lock()
			h.heard = append(h.heard, r.Clone(context.Background()))
			h.mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

// deliver sends to the store itself what went over the wire, again.
func deliver(t *testing.T, server *testbed.S3Server, heard *http.Request, query url.Values) int {
	t.Helper()
	again, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, server.Endpoint+heard.URL.Path+"?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Host = heard.Host
	answer, err := http.DefaultClient.Do(again)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// A request to remove a blob that was held on the way does not outlive its minute:
// the blob may have been published anew.
func TestALateRemovalIsRefused(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		proxy := hear(t, server)
		direct := open(t, server, server.NewBucket(t)+"/a-lab/registry")
		s, err := newStore("s3://"+direct.place.bucket+"/a-lab/registry?path_style=true&endpoint="+url.QueryEscape(proxy.URL), quick(server))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		id := put(t, direct, "bytes")
		if err := s.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := direct.Stat(t.Context(), id); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("after Remove: error %v, want ErrNotFound", err)
		}
		heard := proxy.heard[0]
		query := heard.URL.Query()
		if query.Get("X-Amz-Expires") != "60" || heard.Header.Get("Authorization") != "" {
			t.Fatalf("%d removals went over the wire, the first for %q seconds", len(proxy.heard), query.Get("X-Amz-Expires"))
		}
		put(t, direct, "bytes")
		for name, value := range map[string]string{"X-Amz-Expires": "900", "X-Amz-Date": time.Now().UTC().Add(time.Minute).Format("20060102T150405Z")} {
			altered := heard.URL.Query()
			altered.Set(name, value)
			if status := deliver(t, server, heard, altered); status != http.StatusForbidden {
				t.Errorf("with another %s: HTTP %d, want 403", name, status)
			}
		}
		if _, err := direct.Stat(t.Context(), id); err != nil {
			t.Errorf("what was published anew: %v", err)
		}
		if err := s.removeSoon(t.Context(), s.blobKey(id), time.Second); err != nil {
			t.Fatal(err)
		}
		short := proxy.heard[len(proxy.heard)-1]
		for status := 0; status != http.StatusForbidden; {
			put(t, direct, "bytes")
			if status = deliver(t, server, short, short.URL.Query()); status != http.StatusForbidden && status != http.StatusNoContent {
				t.Fatalf("delivered again: HTTP %d, want 403", status)
			}
		}
		if _, err := direct.Stat(t.Context(), id); err != nil {
			t.Errorf("what was published anew: %v", err)
		}
	})
}

func put(t *testing.T, s *Store, text string) storage.CID {
	t.Helper()
	id := storage.CIDOf([]byte(text))
	if err := s.Put(t.Context(), id, int64(len(text)), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return id
}

// The signature of a removal, and the session token beside it, are in no error,
// whatever fails and whatever the store says.
func TestARemovalSaysNoSecret(t *testing.T) {
	id := storage.CIDOf([]byte("bytes"))
	var token string
	for name, answer := range map[string]http.HandlerFunc{
		"no answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"its URL": func(w http.ResponseWriter, r *http.Request) {
			token = r.URL.Query().Get("X-Amz-Security-Token")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<Error><Code>AccessDenied</Code><Message>%s</Message></Error>", strings.ReplaceAll(r.URL.String(), "&", "&amp;"))
		},
		"another place": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) },
	} {
		t.Run(name, func(t *testing.T) {
			s := played(t, answer)
			s.patience = patienceOfTests / 4
			core, err := newClient(s.place, credentials.NewStaticV4("key", "secret", "t0ken"), onlyS3{s.transport})
			if err != nil {
				t.Fatal(err)
			}
			s.core = core
			err = s.Remove(t.Context(), id)
			if !unavailable(err) {
				t.Fatalf("error %v, want ErrUnavailable", err)
			}
			for _, secret := range []string{"Signature=", "t0ken", "Credential="} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error says %s: %v", secret, err)
				}
			}
		})
	}
	if token != "t0ken" {
		t.Errorf("the session token went as %q", token)
	}
}

func TestWhatAStoreSaysOfARemoval(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"removed":                  {http.StatusNoContent, "", nil},
		"not there":                {http.StatusNotFound, "<Error><Code>NoSuchKey</Code></Error>", nil},
		"not there, in no words":   {http.StatusNotFound, "", nil},
		"no bucket":                {http.StatusNotFound, "<Error><Code>NoSuchBucket</Code></Error>", storage.ErrUnavailable},
		"full":                     {http.StatusInsufficientStorage, "", storage.ErrFull},
		"refused":                  {http.StatusForbidden, "", storage.ErrUnavailable},
		"a page":                   {http.StatusOK, "<html></html>", storage.ErrUnavailable},
		"an answer without an end": {http.StatusForbidden, strings.Repeat("<a>", maxTags+1), storage.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := played(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			})
			s.patience = patienceOfTests / 4
			if err := s.Remove(t.Context(), storage.CIDOf(nil)); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

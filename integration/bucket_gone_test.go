package integration

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// A server whose object store does not answer, or has not its bucket any more, lives,
// says that it is not ready, and refuses changes until later; it comes back by itself.
func TestAServerWhoseBucketIsGone(t *testing.T) {
	t.Parallel()
	store := testbed.SharedMinIO(t)
	proxy := testbed.NewHTTPProxy(t, strings.TrimPrefix(store.Endpoint, "http://"), 0)
	p := pair{}.onPostgres(t).onMinIO(t)
	named, err := url.Parse(p.blobs)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(store.Folder(), "data", named.Host)
	p.blobs = strings.ReplaceAll(p.blobs, store.Endpoint, "http://"+proxy.Address())
	s := newMortalLab(t, mortals{pair: p}, rand.New(rand.NewPCG(0, 0)))
	for _, gone := range []struct {
		name       string
		leave, end func() error
	}{
		{"store", func() error { proxy.Use(testbed.Plan{Refused: true}); proxy.CutAll(); return nil }, func() error { proxy.Use(testbed.Plan{}); return nil }},
		{"bucket", func() error { return os.Rename(folder, folder+"-away") }, func() error { return os.Rename(folder+"-away", folder) }},
	} {
		r := newRelease(s.rng, 0, "not-now", "1.0.0-"+gone.name, 10)
		token, err := s.people[0].token(s.ctx, "publish", r)
		if err != nil {
			t.Fatal(err)
		}
		if err := gone.leave(); err != nil {
			t.Fatal(err)
		}
		var refused *refusal
		if _, err := s.people[0].publishWith(s.ctx, token, r); !errors.As(err, &refused) || !unavailable(err) {
			t.Errorf("a publish while the %s is gone: %v", gone.name, err)
		}
		for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/healthz": http.StatusOK, "/log/checkpoint": http.StatusOK} {
			status, header, body := s.get(path, "")
			if status != want || status != http.StatusOK && header.Get("Retry-After") == "" {
				t.Errorf("%s while the %s is gone: %d %s", path, gone.name, status, body)
			}
		}
		if err := gone.end(); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		s.settle()
		t.Logf("it was ready %s after the %s was back", time.Since(back).Round(10*time.Millisecond), gone.name)
		if err := s.release(s.ctx, r); err != nil {
			t.Errorf("a publish when the %s is back: %v", gone.name, err)
		}
	}
	s.check()
	s.fsck()
}

package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the server works with is gone: /readyz says no, in words that tell
// strangers nothing, and yes again when it is back. The process lives meanwhile.
func TestReadyFollowsTheStores(t *testing.T) {
	l := newLab(t)
	incoming := filepath.Join(l.folder, "store", "incoming")
	l.get("/readyz", "").want(t, 200, "ready")
	if left := must(os.ReadDir(incoming)); len(left) != 0 {
		t.Errorf("asking leaves %v", left)
	}
	must(0, os.Rename(incoming, incoming+"-away"))
	l.awaitReady(http.StatusServiceUnavailable)
	if r := l.get("/readyz", "").want(t, 503); strings.Contains(string(r.body), "incoming") || strings.Contains(string(r.body), l.folder) || r.header.Get("Retry-After") == "" {
		t.Errorf("strangers are told %s", r)
	}
	if !strings.Contains(l.log.String(), "incoming") {
		t.Error("the operator is told nothing")
	}
	l.get("/healthz", "").want(t, 200, "ok")
	must(0, os.Rename(incoming+"-away", incoming))
	l.awaitReady(http.StatusOK)
	l.registry.Close()
	l.awaitReady(http.StatusServiceUnavailable)
	l.get("/healthz", "").want(t, 200, "ok")
}

func TestReadyFollowsTheCatalog(t *testing.T) {
	l := newLab(t)
	l.get("/readyz", "").want(t, 200, "ready")
	must(0, l.registry.Catalog.Close())
	l.awaitReady(http.StatusServiceUnavailable)
	l.get("/healthz", "").want(t, 200, "ok")
}

func (l *lab) awaitReady(status int) {
	l.t.Helper()
	var r reply
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if r = l.get("/readyz", ""); r.status == status {
			return
		}
	}
	l.t.Fatalf("/readyz: %s, not %d", r, status)
}

// However many ask, the disk is written to once a second.
func TestAHerdThatAsksCostsLittle(t *testing.T) {
	l := newLab(t)
	const probes = "aln_blob_operation_duration_seconds{operation=probe,outcome=ok}"
	start := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 5 {
				l.get("/readyz", "").want(t, 200)
			}
		})
	}
	all.Wait()
	if n, most := l.scrape()[probes], time.Since(start).Seconds()/readyFor.Seconds()+1; n < 1 || n > most {
		t.Errorf("%v probes for 100 who asked", n)
	}
}

package integration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// offer has the stand-in serve n crates of size bytes that nothing needs, and nobody knows yet.
func (l *upstreamLab) offer(prefix string, n, size int) (lines []testbed.IndexLine) {
	l.t.Helper()
	for i := range n {
		v := testbed.MakeCrate(fmt.Sprintf("%s-%d", prefix, i), "1.0.0", size, uint64(i))
		l.crates.Add(l.t, v)
		lines = append(lines, v.Line)
	}
	return lines
}

// cidOf is the CID of the crate that line is of.
func cidOf(t testing.TB, line testbed.IndexLine) storage.CID {
	t.Helper()
	sum, err := hex.DecodeString(line.Cksum)
	if err != nil || len(sum) != sha256.Size {
		t.Fatalf("%s: %q", line.Name, line.Cksum)
	}
	return storage.CIDFromDigest([32]byte(sum))
}

// taker takes crates of crates.io from a registry as cargo does, and keeps nothing.
type taker struct {
	base, token string
	client      *http.Client
}

// taker of l's own server, as its operator.
func (l *upstreamLab) taker() *taker {
	l.t.Helper()
	l.operator.login(l.lab, l.operator.folder)
	return &taker{base: l.url, token: l.operator.session(particle.ScopeRead, 0), client: &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}}
}

// errWrong is that of whole answers with bytes that are not the crate's.
var errWrong = errors.New("these are not the crate's bytes")

// take downloads a crate. A *refusal is another answer than 200, errWrong an answer that looks
// good and is not; any other error says that the connection was cut.
func (t *taker) take(ctx context.Context, line testbed.IndexLine) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base+"/crates-io/dl/"+line.Name+"/"+line.Vers+"/"+line.Cksum, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", t.token)
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return &refusal{resp.StatusCode, string(text), resp.Header.Get("Retry-After")}
	}
	digest := sha256.New()
	n, err := io.Copy(digest, resp.Body)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != line.Cksum {
		return fmt.Errorf("%w: %s has %d bytes that hash to %s", errWrong, line.Name, n, got)
	}
	return nil
}

// takeAll takes every one of lines, so many at once.
func (t *taker) takeAll(tb testing.TB, lines []testbed.IndexLine, atOnce int) {
	tb.Helper()
	work := make(chan testbed.IndexLine)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for line := range work {
				if err := t.take(tb.Context(), line); err != nil {
					tb.Errorf("%s: %v", line.Name, err)
				}
			}
		})
	}
	for _, line := range lines {
		work <- line
	}
	close(work)
	all.Wait()
}

// measured is newUpstreamLab whose server tells its figures at the URL that comes with it.
func measuredUpstreamLab(t testing.TB, flags ...string) (l *upstreamLab, scraped string) {
	t.Helper()
	address := steadyAddress(t)
	return newUpstreamLab(t, append([]string{"--metrics-listen", address}, flags...)...), "http://" + address
}

// upstreamLabOn is newUpstreamLab on a pair of engines.
func upstreamLabOn(t testing.TB, p pair, flags ...string) (l *upstreamLab, scraped string) {
	t.Helper()
	crates, address := testbed.CratesIO(t), steadyAddress(t)
	flags = append([]string{"--upstream", upstreamSetting(crates), "--metrics-listen", address}, flags...)
	return &upstreamLab{newLabOn(t, p, flags...), crates}, "http://" + address
}

// figuresNow are the figures of the server that tells them at scraped.
func figuresNow(t testing.TB, scraped string) func(name string) float64 {
	t.Helper()
	status, text := scrape(t, scraped+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d %s", status, text)
	}
	return func(name string) float64 { t.Helper(); return figure(t, text, name) }
}

// troubles are the lines of what the server printed that tell of an error of its own.
func (l *lab) troubles() (lines []string) {
	for line := range strings.Lines(l.log()) {
		if strings.Contains(line, "level=ERROR") && !strings.Contains(line, "msg=\"alarm: ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// checkHeld holds every crate that the catalog says is held against its name, and returns
// their CIDs. The server may run.
func (l *lab) checkHeld() map[storage.CID]bool {
	l.t.Helper()
	db, blobs, held := l.openCatalog(), l.blobs(), map[storage.CID]bool{}
	defer db.Close()
	for last := (storage.CID{}); ; {
		page, err := db.UpstreamBlobsAfter(l.t.Context(), last, 100)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, b := range page {
			blob, err := blobs.Open(l.t.Context(), b.CID) // which verifies
			if err != nil {
				l.t.Errorf("%s %s is said to be held: %v", b.Name, b.Version, err)
				continue
			}
			if blob.Size() != b.Size {
				l.t.Errorf("%s %s is said to have %d bytes, and has %d", b.Name, b.Version, b.Size, blob.Size())
			}
			blob.Close()
			held[b.CID] = true
		}
		if len(page) == 0 {
			return held
		}
		last = page[len(page)-1].CID
	}
}

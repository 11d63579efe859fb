package web

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// heldBlobs hold up who opens the next blob, once armed, until they are let on.
type heldBlobs struct {
	storage.Blobs
	armed  atomic.Bool
	at, on chan struct{}
}

func (b *heldBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	blob, err := b.Blobs.Open(ctx, id)
	// Records are opened too; a crate is a gzip stream.
	if magic := make([]byte, 1); err == nil && b.armed.Load() {
		if _, err := blob.Read(magic); err == nil && magic[0] == 0x1f && b.armed.CompareAndSwap(true, false) {
			b.at <- struct{}{}
			<-b.on
		}
		_, err = blob.Seek(0, 0)
	}
	return blob, err
}

// A crate's bytes and what it says of itself are not shown to who was removed, or may not
// have them by a rule, before blob storage was done with them.
func TestWhatIsAcknowledgedWhileABlobIsOpenedHolds(t *testing.T) {
	acts := map[string]func(l *lab){
		"removed": func(l *lab) {
			l.submit(l.admin, record.MemberSubject(didOf(l.guest)), &record.Member{Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
		},
		"forbidden": func(l *lab) { l.quarantine("late", "*", "slow") },
	}
	for name, act := range acts {
		for _, path := range []string{"/artifacts/crate/slow/1.0.0/download", "/artifacts/crate/slow/1.0.0"} {
			t.Run(name+path, func(t *testing.T) {
				blobs := &heldBlobs{at: make(chan struct{}), on: make(chan struct{})}
				l := newLab(t, func(c *registry.Config) { blobs.Blobs, c.Blobs = c.Blobs, blobs })
				l.publish("slow", "1.0.0", "readme = \"README.md\"\n", [2]string{"README.md", "what it says of itself"})
				l.admitReader(l.guest)
				token := l.session(l.guest, "read")
				blobs.armed.Store(true)
				answer := make(chan reply, 1)
				go func() { answer <- l.get(path, token) }()
				select {
				case <-blobs.at:
				case got := <-answer:
					t.Fatalf("it is answered without a look at blob storage: %s", got)
				}
				act(l)
				blobs.on <- struct{}{}
				got, anew := <-answer, l.get(path, token)
				if got.Code != anew.Code || strings.HasPrefix(got.Body.String(), "\x1f") || strings.Contains(got.Body.String(), "what it says of itself") {
					t.Errorf("it got %s; who asks anew gets %s", got, anew)
				}
				if strings.HasSuffix(path, "download") && got.Code < http.StatusBadRequest {
					t.Errorf("it got %d", got.Code)
				}
			})
		}
	}
}

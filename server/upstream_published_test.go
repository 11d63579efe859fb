package server

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// heldCheckpoints keep who stores a checkpoint waiting, while they are on.
type heldCheckpoints struct {
	storage.Blobs
	on            atomic.Bool
	waiting, gate chan struct{}
}

func (b *heldCheckpoints) Create(ctx context.Context, key string, data []byte) error {
	if b.on.Load() && strings.HasPrefix(key, translog.CheckpointPrefix) {
		b.waiting <- struct{}{}
		<-b.gate
	}
	return b.Blobs.Create(ctx, key, data)
}

// Between the entry of an import and its publication no route tells of it.
func TestNoRouteTellsOfAnImportThatIsNotPublished(t *testing.T) {
	blobs := &heldCheckpoints{waiting: make(chan struct{}, 1), gate: make(chan struct{})}
	l := newLab(t, func(c *registry.Config) { blobs.Blobs, c.Blobs = c.Blobs, blobs })
	l.upstreams.offer("remote", "1.0.0")
	file := l.upstreams.files["remote"]
	token, auditor := l.session(l.member, "read"), l.session(l.admin, "read audit")
	l.upstreams.files = map[string]string{} // whoever asks learns nothing there
	size := l.registry.Size()
	ways := map[string]ask{
		"index":    {method: "GET", path: "/crates-io/index/re/mo/remote", token: token},
		"download": {method: "HEAD", path: remoteDL("/crates-io"), token: token},
		"why":      {method: "GET", path: "/v1/decisions/crate/remote/1.0.0?source=crates-io", token: token},
		"records":  {method: "GET", path: "/v1/records/" + fmt.Sprint(size), token: auditor},
		"heads":    {method: "GET", path: "/v1/heads/upstream/crates-io/remote", token: token},
		"search":   {method: "GET", path: "/api/v1/crates?q=remote", token: token},
		"list":     {method: "GET", path: "/v1/artifacts/crate/remote", token: token},
		"bundle":   {method: "GET", path: "/v1/artifacts/crate/remote/1.0.0/bundle?source=crates-io", token: token},
	}
	before := map[string]reply{}
	for name, w := range ways {
		before[name] = l.do(w)
	}
	blobs.on.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := l.registry.Import(context.Background(), "crates-io", "remote", []byte(file))
		done <- err
	}()
	<-blobs.waiting
	if head := must(l.registry.Catalog.Head(t.Context())); head != size+1 {
		t.Errorf("it is not entered: %d", head)
	}
	for name, w := range ways {
		now := l.do(w)
		if was := before[name]; now.status != was.status || string(now.body) != string(was.body) {
			t.Errorf("%s tells of what is not published: %s\nbefore: %s", name, now, was)
		}
	}
	blobs.on.Store(false)
	close(blobs.gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.upstreams.fresh = true
	for _, name := range []string{"index", "download", "records", "bundle", "heads"} {
		now := l.do(ways[name])
		if now.status == before[name].status && string(now.body) == string(before[name].body) {
			t.Errorf("%s does not tell of it once it is published: %s", name, now)
		}
	}
}

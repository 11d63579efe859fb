//go:build unix

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// What one replica finds in a crate changes what another one lists.
func TestReplicasShareWhatTheyFind(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	u := uploadWith("hidden", blake3Source)
	if _, err := a.Import(ctx, cratesIO, u.name, []byte(thereLine(u.name, "1.0.0", string(u.crate), notYankedThere))); err != nil {
		t.Fatal(err)
	}
	v, err := b.UpstreamVersion(ctx, reader, cratesIO, u.name, "1.0.0", [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	yanked := func() bool {
		t.Helper()
		file, err := b.UpstreamIndexFile(ctx, reader, cratesIO, u.name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return isYanked(file)
	}
	if yanked() {
		t.Fatal("it is yanked before anybody has looked")
	}
	if err := a.Blobs.Put(ctx, v.CID, int64(len(u.crate)), bytes.NewReader(u.crate)); err != nil {
		t.Fatal(err)
	}
	if err := a.LookInto(ctx, v, nil); err != nil {
		t.Fatal(err)
	}
	b.countFindings(ctx, 0) // as it does every few seconds
	if !yanked() {
		t.Error("it is not yanked")
	}
}

// What one replica imports another shows, and both may import the same at once.
func TestReplicasShareWhatTheyImport(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	file := thereLine("serde", "1.0.0", "one", notYankedThere)
	if _, err := b.UpstreamIndexFile(ctx, reader, cratesIO, "serde", nil); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := a.Import(ctx, cratesIO, "serde", []byte(file)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.UpstreamVersion(ctx, reader, cratesIO, "serde", "1.0.0", [32]byte{}); err != nil {
		t.Errorf("what the other one said an index file has: %v", err)
	}
	eventually(t, time.Second, func() error {
		seen, err := b.UpstreamIndexFile(ctx, reader, cratesIO, "serde", nil)
		if err == nil && string(seen.Plain.Bytes) != file {
			err = fmt.Errorf("%s", seen.Plain.Bytes)
		}
		return err
	})
	for round := range 5 {
		var all sync.WaitGroup
		same := file + thereLine("serde", fmt.Sprintf("1.%d.0", round+1), "more", notYankedThere)
		for i, r := range []*replica{a, b, a, b} {
			all.Go(func() {
				text := same
				if i > 1 { // and something else
					text += thereLine("serde", fmt.Sprintf("2.%d.%d", round, i), "other", notYankedThere)
				}
				if _, err := r.Import(ctx, cratesIO, "serde", []byte(text)); err != nil {
					t.Errorf("%s, %d: %v", r.Replica, i, err)
					return
				}
				if _, err := r.UpstreamVersion(ctx, reader, cratesIO, "serde", fmt.Sprintf("1.%d.0", round+1), [32]byte{}); err != nil {
					t.Errorf("%s does not show what it imported: %v", r.Replica, err)
				}
			})
		}
		all.Wait()
	}
	g.oneLog(nil, a, b)
}

//go:build unix

package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

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

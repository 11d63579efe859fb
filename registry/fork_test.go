package registry

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/translog"
)

// A fork names the two objects that contradict each other, and leaves both.
func TestAForkNamesBothOfItsSides(t *testing.T) {
	ctx := context.Background()
	for name, other := range map[string]func(r *Registry) (key string, bytes []byte, says []string){
		"entries": func(*Registry) (string, []byte, []string) {
			bytes := []byte("of another log")
			return translog.EntryKey(genesisEntries), bytes, []string{"the catalog's entry 2 has ", translog.LeafHash(bytes).String()}
		},
		"checkpoints": func(r *Registry) (string, []byte, []string) {
			root := tlog.Hash{1}
			cp := translog.Checkpoint{Origin: string(r.origin), Size: genesisEntries + 1, Root: root}
			note, err := r.sign(cp, r.Settings(), r.Clock())
			if err != nil {
				t.Fatal(err)
			}
			return translog.CheckpointKey(cp.Size), note, []string{"signed by this log, says 3 entries with root " + root.String(), "the catalog's 3 entries have root "}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.start()
			key, theirs, says := other(r)
			if err := w.blobs.Create(ctx, key, theirs); err != nil {
				t.Fatal(err)
			}
			if _, err := w.publish(r, newUpload("aa")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a publish beside a fork: %v", err)
			}
			var failed error
			select {
			case failed = <-r.Failed():
			case <-time.After(10 * time.Second):
				t.Fatal("the fork was not reported")
			}
			for _, want := range append(says, key, "both are kept as they are") {
				if !errors.Is(failed, ErrFork) || !strings.Contains(failed.Error(), want) {
					t.Errorf("%v; it must say %q", failed, want)
				}
			}
			if stored, err := w.blobs.Read(ctx, key); err != nil || string(stored) != string(theirs) {
				t.Errorf("the stored object is %q, %v", stored, err)
			}
			w.closeAll(r)
			w.stores()
			defer w.close()
			if _, err := Open(ctx, w.config); !errors.Is(err, ErrFork) && !errors.Is(err, ErrBehind) {
				t.Errorf("a new start beside a fork: %v", err)
			}
		})
	}
}

package registry

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// forgetfulBlobs say of objects that they are stored, and while they forget store none
// whose key begins so.
type forgetfulBlobs struct {
	storage.Blobs
	forgets atomic.Pointer[string]
}

func (b *forgetfulBlobs) Create(ctx context.Context, key string, data []byte) error {
	if prefix := b.forgets.Load(); prefix != nil && strings.HasPrefix(key, *prefix) {
		return nil
	}
	return b.Blobs.Create(ctx, key, data)
}

// objects are the keys of all of the log.
func objects(t *testing.T, blobs storage.Blobs) (keys []string) {
	t.Helper()
	for key, err := range blobs.List(t.Context(), "log/", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

// Nothing is published onto a log that blob storage has not got any more, or never got: the
// registry ends, and says what is missing.
func TestNothingIsPublishedOntoALogThatIsLost(t *testing.T) {
	entry, note := translog.EntryKey(genesisEntries), translog.CheckpointKey(genesisEntries+1)
	forget := func(prefix string) func(t *testing.T, w *world, r *Registry, blobs *forgetfulBlobs) {
		return func(t *testing.T, w *world, r *Registry, blobs *forgetfulBlobs) {
			blobs.forgets.Store(&prefix)
			if _, err := w.publish(r, newUpload("lost")); err != nil {
				t.Fatal(err)
			}
			blobs.forgets.Store(nil)
		}
	}
	for name, c := range map[string]struct {
		lose func(t *testing.T, w *world, r *Registry, blobs *forgetfulBlobs)
		want error
		says string
	}{
		"all of it": {func(t *testing.T, w *world, r *Registry, _ *forgetfulBlobs) {
			if _, err := w.publish(r, newUpload("there")); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(w.folder, "store", "log")); err != nil {
				t.Fatal(err)
			}
		}, ErrLost, note},
		"the last entry":      {forget(translog.EntryPrefix), ErrLost, entry},
		"the last checkpoint": {forget(translog.CheckpointPrefix), ErrLost, note},
		"all that came last":  {forget("log/"), ErrLost, entry},
		"it is another log's": {func(t *testing.T, w *world, r *Registry, blobs *forgetfulBlobs) {
			forget(translog.CheckpointPrefix)(t, w, r, blobs)
			cp := translog.Checkpoint{Origin: string(r.origin), Size: genesisEntries + 1}
			other, err := r.sign(cp, r.Settings(), r.Clock())
			if err == nil {
				err = blobs.Create(t.Context(), note, other)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, ErrFork, note},
		"it is no checkpoint": {func(t *testing.T, w *world, r *Registry, blobs *forgetfulBlobs) {
			forget(translog.CheckpointPrefix)(t, w, r, blobs)
			if err := blobs.Create(t.Context(), note, []byte("something")); err != nil {
				t.Fatal(err)
			}
		}, ErrFork, note},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.stores()
			blobs := &forgetfulBlobs{Blobs: w.blobs}
			w.config.Blobs = blobs
			if err := w.genesis(); err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), w.config)
			if err != nil {
				t.Fatal(err)
			}
			defer w.closeAll(r)
			if err := r.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.lose(t, w, r, blobs)
			if err := r.Ready(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("ready: %v", err)
			}
			before, size := objects(t, blobs), r.Size()
			if _, err := w.publish(r, newUpload("next")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("published onto it: %v", err)
			}
			if after := objects(t, blobs); !slices.Equal(after, before) || r.Size() != size {
				t.Errorf("%q became %q, and %d entries are shown of %d", before, after, r.Size(), size)
			}
			select {
			case err := <-r.Failed():
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v; it must say %q", err, c.says)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it goes on")
			}
		})
	}
}

// A cosignature is not renewed over what is lost.
func TestNobodyVouchesForALogThatIsLost(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	defer w.closeAll(r)
	if err := os.RemoveAll(filepath.Join(w.folder, "store", "log")); err != nil {
		t.Fatal(err)
	}
	note, err := r.Checkpoint(t.Context())
	r.Clock = func() time.Time { return time.Now().Add(2 * renewAfter) }
	again, errAgain := r.Checkpoint(t.Context())
	if err != nil || errAgain != nil || !bytes.Equal(note, again) {
		t.Errorf("%v, %v: %q became %q", err, errAgain, note, again)
	}
	select {
	case err := <-r.Failed():
		if !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	default:
		t.Error("it goes on")
	}
}

// A store that does not answer has lost nothing, and the registry goes on when it does.
func TestAStoreThatDoesNotAnswerHasLostNothing(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	defer w.closeAll(r)
	w.blobs.arm(0, fault{forGood: true})
	if err := r.notLost(t.Context()); !errors.Is(err, errInjected) || ends(err) {
		t.Error(err)
	}
	if err := r.Ready(t.Context()); !errors.Is(err, errInjected) || ends(err) {
		t.Errorf("ready: %v", err)
	}
	w.blobs.disarm()
	if _, err := w.publish(r, newUpload("next")); err != nil {
		t.Error(err)
	}
	if err := r.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

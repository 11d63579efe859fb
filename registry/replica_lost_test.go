//go:build unix

package registry

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// beside opens a replica whose blob storage is a copy of the others'.
func (g *group) beside(name string) *replica {
	g.t.Helper()
	folder := filepath.Join(g.t.TempDir(), "copy")
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(g.folder, "store"))); err != nil {
		g.t.Fatal(err)
	}
	store, err := disk.Open(folder)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { store.Close() })
	r, err := g.openAt(name, g.url, func(c *Config) { c.Blobs = store })
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// A replica whose blob storage is not that of the others stops as soon as it shows what
// they published, before it enters anything whose bytes the log's own never gets.
func TestAReplicaWithABlobStorageOfItsOwnStops(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.beside("b")
	p, err := g.publish(a.Registry, newUpload("there"))
	if err != nil {
		t.Fatal(err)
	}
	g.failsWith(b, 10*time.Second, ErrLost)
	if _, err := g.publish(b.Registry, newUpload("elsewhere")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("published elsewhere: %v", err)
	}
	q, err := g.publish(a.Registry, newUpload("later"))
	if err != nil {
		t.Fatal(err)
	}
	g.oneLog([]Receipt{p.Receipt, q.Receipt}, a)
	if err := a.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is published is held against blob storage when it is confirmed, and while the next
// is stored: of a log that is gone under running replicas nothing more is acknowledged.
func TestReplicasStopOnALogThatIsLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]string{
		"all of it": "log", "the last entry": translog.EntryKey(genesisEntries), "the last checkpoint": translog.CheckpointKey(genesisEntries + 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGroup(t)
			a := g.replica("a")
			if _, err := g.publish(a.Registry, newUpload("there")); err != nil {
				t.Fatal(err)
			}
			if whole, err := a.showsStored(t.Context()); err != nil || !whole {
				t.Errorf("whole: %t, %v", whole, err)
			}
			if err := os.RemoveAll(filepath.Join(g.folder, "store", filepath.FromSlash(lose))); err != nil {
				t.Fatal(err)
			}
			if _, err := a.showsStored(t.Context()); !errors.Is(err, ErrLost) {
				t.Errorf("at a beat: %v", err)
			}
			size := a.Size()
			if _, err := g.publish(a.Registry, newUpload("next")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("published onto it: %v", err)
			}
			g.failsWith(a, 10*time.Second, ErrLost)
			if published, _, err := a.db.Published(t.Context()); err != nil || published != size {
				t.Errorf("%d are published, of %d, %v", published, size, err)
			}
			if _, err := a.Blobs.Read(t.Context(), translog.CheckpointKey(size+1)); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a checkpoint above: %v", err)
			}
		})
	}
}

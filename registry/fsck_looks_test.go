package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// brokenBlobs fails at one blob in a way that says nothing of it.
type brokenBlobs struct {
	storage.Blobs
	id   storage.CID
	err  error
	gone error // of everything else
}

func (b *brokenBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	if id == b.id {
		return nil, b.err
	}
	return b.Blobs.Open(ctx, id)
}

func (b *brokenBlobs) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	if b.gone != nil {
		return func(yield func(string, error) bool) { yield("", b.gone) }
	}
	return b.Blobs.List(ctx, prefix, after)
}

// What cannot be read is not called missing or corrupt; and where the store does not
// answer, or the key file is another's, nothing is said to be wrong at all.
func TestFsckThatCannotLook(t *testing.T) {
	a := newArchive(t)
	store, err := disk.Open(filepath.Join(a.folder, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	db, err := catalog.AttachSQLite(t.Context(), filepath.Join(a.folder, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	blobs := &brokenBlobs{Blobs: store, id: a.records[atTwo]}
	var found []Finding
	look := func(c Config) (Fscked, error) {
		found = nil
		c.Catalog, c.Blobs = db, blobs
		return Fsck(t.Context(), c, FsckOptions{Inventory: store, Temp: t.TempDir(), Found: func(f Finding) { found = append(found, f) }})
	}
	// a store may say of one object alone that it is busy, for ever
	for _, blobs.err = range []error{errors.New("input/output error"), fmt.Errorf("%w: input/output error", storage.ErrUnavailable)} {
		done, err := look(Config{Keys: a.keys})
		if err != nil || done.Unreadable() != 1 || len(found) != 1 || found[0].Code != "unreadable" || !strings.Contains(found[0].Detail, "input/output error") || done.Replayed != atTwo {
			t.Errorf("%+v, %v, %+v", done, err, found)
		}
	}
	blobs.id = a.manifest
	if done, err := look(Config{Keys: a.keys}); err != nil || len(found) != 1 || !slices.Equal(found[0].Suffers, []string{"manifest/notes@1.0.0"}) || done.Replayed != a.size {
		t.Errorf("%+v, %v, %+v", done, err, found)
	}
	blobs.id, blobs.gone = a.records[atTwo], blobs.err
	if _, err := look(Config{Keys: a.keys}); !errors.Is(err, storage.ErrUnavailable) || len(found) > 0 {
		t.Errorf("%v, %+v", err, found)
	}
	blobs.id, blobs.gone = storage.CID{}, nil
	if _, err := look(Config{Keys: newWorld(t).keys}); err == nil || !strings.Contains(err.Error(), "give the key file that belongs to it") || len(found) > 0 {
		t.Errorf("%v, %+v", err, found)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fsck(ended, Config{Keys: a.keys, Catalog: db, Blobs: store}, FsckOptions{Inventory: store, Temp: t.TempDir(), Found: func(f Finding) { found = append(found, f) }}); !errors.Is(err, context.Canceled) || len(found) > 0 {
		t.Errorf("%v, %+v", err, found)
	}
}

// Entries that are committed and not published are counted, and no finding.
func TestFsckCountsWhatIsNotPublishedYet(t *testing.T) {
	a := newArchive(t)
	a.exec("CREATE TABLE kept AS SELECT * FROM published")
	w := &world{t: t, folder: a.folder, keys: a.keys, admin: a.admin}
	r := w.start()
	if _, err := w.publish(r, newUpload("sooner")); err != nil {
		t.Fatal(err)
	}
	w.closeAll(r)
	a.sql("DELETE FROM published")
	a.sql("INSERT INTO published SELECT * FROM kept")
	for step, harm := range []func(){
		func() {}, // a crash before the published row was written
		func() { removeFile(t, a.object(translog.CheckpointKey(a.size+1))) }, // or the checkpoint
		func() { removeFile(t, a.object(translog.EntryKey(a.size))) },        // or the entry's object
	} {
		harm()
		if found, done := a.fsck(repairing); len(found) > 0 || done.Pending != 1 || done.Size != a.size || done.Repaired != 0 {
			t.Errorf("step %d: %q, %+v", step, found, done)
		}
	}
	a.size++
	a.goesOn(t)
	if found, done := a.fsck(nil); len(found) > 0 || done.Pending != 0 || done.Size != a.size+1 {
		t.Errorf("%q, %+v", found, done)
	}
}

// Blob storage without anything of the log is one finding, and an empty registry none
// where its keys have begun no log.
func TestFsckOfNothing(t *testing.T) {
	whole := newArchive(t)
	a := whole.another(t)
	if err := os.RemoveAll(filepath.Join(a.folder, "store")); err != nil {
		t.Fatal(err)
	}
	begun := func(o *FsckOptions) { o.Begun, o.Repair = true, true }
	empty := sha256.Sum256(nil)
	for _, change := range []func(*FsckOptions){nil, begun} {
		if found, done := a.fsck(change); !slices.Equal(found, []string{"log-absent: log"}) || done.Clean() || done.Size != 0 || done.Root != tlog.Hash(empty) {
			t.Errorf("without its store: %q, %+v", found, done)
		}
	}
	a.folder = t.TempDir()
	db, err := catalog.OpenSQLite(t.Context(), filepath.Join(a.folder, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if found, done := a.fsck(nil); len(found) > 0 || done.Size != 0 || done.Root != tlog.Hash(empty) {
		t.Errorf("of nothing: %q, %+v", found, done)
	}
	if found, done := a.fsck(begun); !slices.Equal(found, []string{"log-absent: log"}) || done.Clean() {
		t.Errorf("of what should be there: %q, %+v", found, done)
	}
	if err := os.Remove(filepath.Join(a.folder, "catalog.db")); err != nil {
		t.Fatal(err)
	}
	if found, _ := a.fsck(begun); !slices.Equal(found, []string{"log-absent: log"}) {
		t.Errorf("without a catalog, either: %q", found)
	}
}

// A catalog that is damaged says nothing of what blob storage lacks.
func TestWhatBlobStorageLacksOfAnOldCatalog(t *testing.T) {
	whole := newArchive(t)
	for name, c := range map[string]struct {
		harm string
		gone bool
		want int64
	}{
		"all there":                       {"", false, -1},
		"the last entry gone":             {"", true, whole.size - 1},
		"that is not published":           {"UPDATE published SET size = size - 1", true, -1},
		"published says too much":         {"UPDATE published SET size = size + 1", false, -1},
		"the head says too much":          {"UPDATE head SET size = size + 1", false, -1},
		"what is published cannot be had": {"DELETE FROM published", true, -1},
		"the head cannot be had":          {"DELETE FROM head", true, -1},
	} {
		t.Run(name, func(t *testing.T) {
			a := whole.another(t)
			if c.harm != "" {
				a.sql(c.harm)
			}
			if c.gone {
				removeFile(t, a.object(translog.EntryKey(a.size-1)))
			}
			store, err := disk.Open(filepath.Join(a.folder, "store"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			db, err := catalog.PeekSQLite(filepath.Join(a.folder, "catalog.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if lacks, err := Lacks(t.Context(), store, db); err != nil || lacks != c.want {
				t.Errorf("it lacks %d, %v; want %d", lacks, err, c.want)
			}
		})
	}
}

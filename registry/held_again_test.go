package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// linesOf is an index file of crate whose version 1.0.n has the n-th bytes.
func linesOf(crate string, bytes ...storage.CID) (file string) {
	for n, id := range bytes {
		digest := id.Digest()
		file += fmt.Sprintf(`{"name":%q,"vers":"1.0.%d","deps":[],"cksum":"%x","features":{},"yanked":false}`+"\n", crate, n, digest)
	}
	return file
}

// A catalog that is derived from blob storage alone knows again which crates of other
// registries are held, and takes nothing for one that is somebody's own.
func TestWhatIsHeldIsFoundAgain(t *testing.T) {
	c := newCourt(t, embedded)
	blobs := c.r.Blobs
	held, old := litter(t, blobs, "held"), litter(t, blobs, "listed no more")
	condemned, away := litter(t, blobs, "condemned"), storage.CIDOf([]byte("not stored"))
	evidence, hosted := litter(t, blobs, "evidence"), []byte("hosted")
	if _, err := c.admin.tryPublish(subjectOf(t, record.KindManifest, "hosted"), hosted, evidence); err != nil {
		t.Fatal(err)
	}
	litter(t, blobs, "garbage")
	c.sees("left-pad", linesOf("left-pad", old, away, evidence))
	c.sees("left-pad", linesOf("left-pad", storage.CIDOf([]byte("said later")), away, evidence))
	c.sees("right-pad", linesOf("right-pad", held, condemned, storage.CIDOf(hosted)))
	if _, err := c.r.storeAndSubmit(t.Context(), c.importsFrom("mirror", "left-pad", linesOf("left-pad", old, held))); err != nil {
		t.Fatal(err)
	}
	c.w.closeAll(c.r)
	w := c.w
	w.stores()
	defer w.close()
	w.config.Catalog = w.catalog("again.db")
	find := func() int64 {
		t.Helper()
		n, err := FindHeld(t.Context(), w.config, w.open[0].(*disk.Store), w.folder)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := find(); n != 0 {
		t.Errorf("%d are found in an empty log", n)
	}
	if _, err := Rebuild(t.Context(), w.config, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	err := w.config.Catalog.Update(t.Context(), func(tx *catalog.Tx) error { return tx.Condemn(t.Context(), []storage.CID{condemned}, time.Now()) })
	if err != nil {
		t.Fatal(err)
	}
	if n := find(); n != 2 {
		t.Errorf("%d are found, want 2", n)
	}
	if n := find(); n != 0 { // nothing is counted twice
		t.Errorf("%d are found again", n)
	}
	rows, err := w.config.Catalog.UpstreamBlobsAfter(t.Context(), storage.CID{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range rows {
		names = append(names, fmt.Sprintf("%s %s %s %d %t", b.Upstream, b.Name, b.Version, b.Size, b.Fetched.IsZero() || !b.Used.Equal(b.Fetched)))
	}
	for upstream, want := range map[string]int{"crates-io": 2, "mirror": 2, "another": 0} { // all whose index named the bytes
		if of, err := w.config.Catalog.UpstreamHolds(t.Context(), upstream, []storage.CID{held, old, condemned, evidence, storage.CIDOf(hosted)}); err != nil || len(of) != want {
			t.Errorf("of %s are found %d, want %d, %v", upstream, len(of), want, err)
		}
	}
	slices.Sort(names)
	if want := []string{"crates-io left-pad 1.0.0 14 false", "crates-io right-pad 1.0.0 4 false"}; !slices.Equal(names, want) {
		t.Errorf("held are %q, want %q", names, want)
	}
}

// fetchOne stores and holds a crate, as often as it takes, and says that it was used.
func fetchOne(t *testing.T, r *Registry, text string) {
	for tries := 0; tries < 20; tries++ {
		b := fetched(t, r.Blobs, text, 0)
		err := r.Hold(context.Background(), []catalog.UpstreamBlob{b})
		if err == nil {
			if err := r.Catalog.UseUpstreamBlobs(t.Context(), []storage.CID{b.CID}, time.Now()); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, ErrUnavailable) {
			t.Error(err)
			return
		}
	}
	t.Errorf("%s could not be held", text)
}

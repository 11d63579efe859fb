package registry

import (
	"errors"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What two upstreams have served is held of both, counts once for the room that there is, and of
// neither once it made room for others.
func TestWhatTwoUpstreamsServedMakesRoomOnce(t *testing.T) {
	c := newCourt(t, embedded)
	held := fetched(t, c.r.Blobs, "held", 0)
	also := held
	also.Upstream, also.Name = "mirror", "as there"
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{held, also}); err != nil {
		t.Fatal(err)
	}
	of := func(upstream string, want bool) {
		t.Helper()
		if got, err := c.r.HeldUpstream(t.Context(), upstream, []storage.CID{held.CID}); err != nil || got[held.CID] != want {
			t.Errorf("held of %s: %v, %v", upstream, got, err)
		}
	}
	of("crates-io", true)
	of("mirror", true)
	of("another", false)
	if done, err := c.evictor().MakeRoom(t.Context(), held.Size); err != nil || done.Held != held.Size || done.Removed != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if done, err := c.evictor().MakeRoom(t.Context(), 0); err != nil || done.Removed != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	of("crates-io", false)
	of("mirror", false)
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{fetched(t, c.r.Blobs, "held", 0)}); err != nil {
		t.Fatal(err)
	}
	of("crates-io", true)
	of("mirror", false)
}

// An Evictor that is killed when it has removed a crate, and before it forgets who served it, leaves
// that behind: once the tombstone is forgotten, gc does so. What is held, or may be again, stays known.
func TestWhoServedWhatIsGoneIsForgottenByGC(t *testing.T) {
	c := newCourt(t, embedded)
	held, evicted, leaving := fetched(t, c.r.Blobs, "held", 0), fetched(t, c.r.Blobs, "evicted", 0), fetched(t, c.r.Blobs, "leaving", 0)
	also := evicted
	also.Upstream, also.Name = "mirror", "as there"
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{held, evicted, also, leaving}); err != nil {
		t.Fatal(err)
	}
	gone, now := []storage.CID{evicted.CID, leaving.CID}, time.Now()
	err := c.r.Catalog.Update(t.Context(), func(tx *catalog.Tx) error {
		return errors.Join(tx.RemoveUpstreamBlobs(t.Context(), gone), tx.Condemn(t.Context(), gone[:1], now.Add(-condemnedKept-time.Minute)),
			tx.Condemn(t.Context(), gone[1:], now.Add(-time.Minute)))
	})
	if err != nil {
		t.Fatal(err)
	}
	c.w.closeAll(c.r)
	a := &archive{world: c.w}
	removeFile(t, a.blob(evicted.CID))
	for _, of := range []struct {
		change func(*GCOptions)
		want   int64
	}{{func(*GCOptions) {}, 4}, {func(o *GCOptions) { o.Delete, o.Grace = true, 24*time.Hour }, 4}, {deleting, 2}} {
		if _, _, err := a.gc(of.change); err != nil {
			t.Fatal(err)
		}
		if n := a.count("SELECT COUNT(*) FROM upstream_source"); n != of.want {
			t.Errorf("of %d it is known who served them, want %d", n, of.want)
		}
	}
}

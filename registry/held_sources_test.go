package registry

import (
	"testing"

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

package registry

import (
	"errors"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What is held of other registries and is damaged is found, and named; repaired, it is not held
// any more, of anybody, and everything else is.
func TestFsckFindsWhatIsHeldAndDamaged(t *testing.T) {
	for name, damage := range map[string]struct {
		do    func(*testing.T, string)
		quick bool
		code  string
	}{
		"gone": {removeFile, false, codeHeldMissing}, "gone, quickly": {removeFile, true, codeHeldMissing},
		"flipped": {flipByte, false, codeHeld}, "flipped, quickly": {flipByte, true, ""},
		"cut": {cutShort, false, codeHeld}, "cut, quickly": {cutShort, true, codeHeld},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, embedded)
			bad, good := fetched(t, c.r.Blobs, "bad crate", 0), fetched(t, c.r.Blobs, "good crate", 0)
			also := bad
			also.Upstream, also.Name = "mirror", "as-there"
			if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{bad, good, also}); err != nil {
				t.Fatal(err)
			}
			c.w.closeAll(c.r)
			a := &archive{world: c.w}
			damage.do(t, a.blob(bad.CID))
			looking := func(o *FsckOptions) { o.Quick = damage.quick }
			if damage.code == "" {
				if found, done := a.fsck(looking); len(found) > 0 || !done.Clean() {
					t.Errorf("%q, %+v", found, done)
				}
				return
			}
			want := damage.code + ": blob " + bad.CID.String() + " (upstream/crates-io/" + bad.Name + "@1.0.0, upstream/mirror/as-there@1.0.0)"
			if found, done := a.fsck(looking); !slices.Equal(found, []string{want}) || done.Clean() {
				t.Errorf("found %q, want %q, %+v", found, want, done)
			}
			mending := func(o *FsckOptions) { o.Quick, o.Repair = damage.quick, true }
			if found, done := a.fsck(mending); !slices.Equal(found, []string{want + " repaired"}) || !done.Clean() {
				t.Errorf("repaired %q, %+v", found, done)
			}
			if found, done := a.fsck(nil); len(found) > 0 || !done.Clean() {
				t.Errorf("afterwards %q, %+v", found, done)
			}
			if rows, sources := a.count("SELECT COUNT(*) FROM upstream_blob"), a.count("SELECT COUNT(*) FROM upstream_source"); rows != 1 || sources != 1 {
				t.Errorf("%d are held of %d upstreams, want the good one", rows, sources)
			}
		})
	}
}

// What a server fetches anew, or evicts, while it is looked at is no finding, and stays held.
func TestFsckLeavesAloneWhatIsFetchedAnewMeanwhile(t *testing.T) {
	c := newCourt(t, embedded)
	b := fetched(t, c.r.Blobs, "crate", 0)
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{b}); err != nil {
		t.Fatal(err)
	}
	f := &fsck{Config: c.r.Config, FsckOptions: FsckOptions{Repair: true, Found: func(f Finding) { t.Errorf("%+v", f) }}}
	f.done.Found = map[string]int64{}
	rows, err := c.r.Catalog.UpstreamBlobs(t.Context(), []storage.CID{b.CID})
	if err != nil {
		t.Fatal(err)
	}
	wrong := heldLook{rows[0], codeHeld, "it was"}
	b.Fetched = b.Fetched.Add(time.Minute)
	err = errors.Join(c.r.Hold(t.Context(), []catalog.UpstreamBlob{b}), f.heldIsWrong(t.Context(), wrong))
	if err != nil || !isHeld(t, c.r, b.CID) {
		t.Errorf("fetched anew and held: %v, %v", isHeld(t, c.r, b.CID), err)
	}
	if done, err := c.evictor().MakeRoom(t.Context(), 0); err != nil || done.Removed != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := f.heldIsWrong(t.Context(), wrong); err != nil {
		t.Error(err)
	}
}

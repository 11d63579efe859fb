package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// describe publishes a version of the crate name that says text of itself.
func (c *court) describe(name, version, text string) storage.CID {
	c.t.Helper()
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\ndescription = %q\n", name, version, text)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: name + "-" + version + "/Cargo.toml", Mode: 0o644, Size: int64(len(manifest)), Format: tar.FormatGNU})
	_, failed := io.WriteString(w, manifest)
	subject, malformed := record.VersionSubject(record.KindCrate, name, version)
	heads, unknown := c.r.HeadsFor(c.t.Context(), policy.Asker{DID: c.admin.id.DID}, "crate/"+name)
	if err := errors.Join(err, failed, w.Close(), z.Close(), malformed, unknown); err != nil {
		c.t.Fatal(err)
	}
	id, now := storage.CIDOf(packed.Bytes()), time.Now().UTC().Truncate(time.Second)
	rec, err := record.Sign(record.Draft{Subject: subject, Digest: id.Digest(), Body: &record.Publish{Evidence: []storage.CID{}}, Header: record.Header{
		Registry: heads.Origin, IssuedAt: now, Expires: now.Add(time.Minute), Prev: heads.Prev, By: heads.By,
	}}, c.admin.key.Signer(c.admin.id))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.r.Publish(c.t.Context(), c.asker(c.admin, "publish", ""), rec.Envelope(), subject, &packed); err != nil {
		c.t.Fatal(err)
	}
	return id
}

// What only a hidden version says of a crate does not find it.
func TestSearchDoesNotFindByWhatIsHidden(t *testing.T) {
	c := newCourt(t)
	old := c.describe("demo", "1.0.0", "about herons")
	c.describe("demo", "2.0.0", "about wyverns")
	open, offshore := c.member(particle.TierCoreStakeholder), c.member(particle.TierCoreStakeholder)
	c.grant(c.admin, offshore, func(g *particle.EnvGrant) { g.OffshoreFlag, g.AllowedCrates = true, []string{old.Hex()} })
	for _, want := range []struct {
		who   actor
		query string
		found []Found
	}{
		{open, "wyvern", []Found{{"demo", "2.0.0", "about wyverns"}}},
		{open, "DEM", []Found{{"demo", "2.0.0", "about wyverns"}}},
		{offshore, "wyvern", nil},
		{offshore, "DEM", []Found{{"demo", "1.0.0", ""}}},
		{offshore, "", []Found{{"demo", "1.0.0", ""}}},
	} {
		found, total, err := c.r.Search(t.Context(), c.asker(want.who, "read", ""), want.query, 10, 0)
		if err != nil || total != len(want.found) || fmt.Sprint(found) != fmt.Sprint(want.found) {
			t.Errorf("%q finds %v of %d, %v, want %v", want.query, found, total, err, want.found)
		}
	}
}

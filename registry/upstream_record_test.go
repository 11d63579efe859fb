package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// seenLine is a line of an upstream's index file, with text where its description would be.
func seenLine(name, version, text string) string {
	return fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"cksum":"%064x","features":{%q:[]},"yanked":false}`+"\n", name, version, len(version), text)
}

// imports is a record that the registry saw file as the index file of a crate of crates.io.
func (c *court) imports(crate, file string) *submission {
	c.t.Helper()
	return c.importsFrom("crates-io", crate, file)
}

// importsFrom is imports of another upstream.
func (c *court) importsFrom(upstream, crate, file string) *submission {
	c.t.Helper()
	subject, err := record.UpstreamSubject(upstream, crate)
	if err != nil {
		c.t.Fatal(err)
	}
	head, _, err := state.HeadOf(c.r.visible(c.t.Context()), subject.Thing())
	if err != nil {
		c.t.Fatal(err)
	}
	now, id := c.now().UTC(), storage.CIDOf([]byte(file))
	rec, err := record.Sign(record.Draft{Subject: subject, Digest: id.Digest(), Body: &record.Import{}, Header: record.Header{
		Registry: c.r.Origin(), IssuedAt: now, Expires: now.Add(time.Minute), Prev: head.Record, By: c.r.Settings().Record, Key: c.r.Settings().DocumentRecord,
	}}, c.r.Keys.Signer())
	if err != nil {
		c.t.Fatal(err)
	}
	return &submission{record: rec, attachments: state.Attachments{id: []byte(file)}}
}

// sees enters that record.
func (c *court) sees(crate, file string) Receipt {
	c.t.Helper()
	receipt, err := c.r.storeAndSubmit(c.t.Context(), c.imports(crate, file))
	if err != nil {
		c.t.Fatal(err)
	}
	return receipt
}

// A snapshot is a blob like others that records attach: it is told to who may read the
// record, and the log alone gives what is known of the crate.
func TestASnapshotIsAnAttachment(t *testing.T) {
	c := newCourt(t)
	large := seenLine("left-pad", "1.0.0", strings.Repeat("x", 4*maxAttachment))
	c.sees("left-pad", seenLine("left-pad", "1.0.0", "first"))
	terms := c.r.published.Load().terms
	receipt := c.sees("left-pad", large)
	if c.r.published.Load().terms != terms {
		t.Error("who may do what was read again for the index file of a crate")
	}
	asker := c.asker(c.admin, particle.ScopeRead, "")
	stored, err := c.r.Record(t.Context(), asker, receipt.Record)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.r.Attachment(t.Context(), stored, stored.Record.Snapshot()); err != nil || string(got) != large {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	heads, err := c.r.HeadsFor(t.Context(), asker, "upstream/crates-io/Left_Pad")
	if err != nil || heads.Prev != receipt.Record || heads.By != "" {
		t.Errorf("heads %+v, %v", heads, err)
	}
	if heads, err = c.r.HeadsFor(t.Context(), policy.Asker{DID: c.r.Origin()}, "upstream/crates-io/left-pad"); err != nil || heads.By != c.r.Settings().Record {
		t.Errorf("heads of the registry's %+v, %v", heads, err)
	}
	u, ok, err := state.UpstreamOf(c.r.visible(t.Context()), "crates-io", "left-pad")
	if err != nil || !ok || len(u.Versions) != 1 || u.Snapshot != storage.CIDOf([]byte(large)) || u.Record != receipt.Record {
		t.Errorf("%+v, %v, %v", u, ok, err)
	}
	c.w.rebuilds(c.r)
}

// Not even an admin, nor who has the registry's own session, enters what was seen elsewhere.
func TestNobodySubmitsWhatTheRegistrySaw(t *testing.T) {
	c := newCourt(t)
	s := c.imports("left-pad", seenLine("left-pad", "1.0.0", ""))
	for id, raw := range s.attachments {
		for _, asker := range []policy.Asker{c.asker(c.admin, particle.ScopeAdmin, ""), {DID: c.r.Origin(), Admin: true, Scopes: []string{particle.ScopeAdmin}}} {
			if _, err := c.r.Submit(t.Context(), asker, s.record.Envelope(), [][]byte{raw}); !errors.Is(err, ErrRequest) {
				t.Errorf("by %s, with %s: %v", asker.DID, id, err)
			}
		}
	}
}

// What another registry says keeps nothing here from being removed, nor makes it missing.
func TestASnapshotKeepsNoBlobButItself(t *testing.T) {
	c := newCourt(t)
	garbage := litter(t, c.r.Blobs, "named by a stranger")
	file := seenLine("left-pad", "1.0.0", garbage.String()) + seenLine("left-pad", "1.0.1", storage.CIDOf([]byte("of what is not there")).String())
	c.sees("left-pad", file)
	w := &archive{world: c.w}
	c.w.closeAll(c.r)
	if found, done, err := w.gc(deleting); err != nil || len(found) != 1 || found[0] != garbage.String() || done.Removed != 1 {
		t.Errorf("%q, %+v, %v", found, done, err)
	}
	if found, done := w.fsck(nil); len(found) > 0 || done.Unreferenced > 0 {
		t.Errorf("fsck: %q, %+v", found, done)
	}
	snapshot := storage.CIDOf([]byte(file))
	removeFile(t, w.blob(snapshot))
	want := "attachment-missing: blob " + snapshot.String() + " (upstream/crates-io/left-pad)"
	if found, _ := w.fsck(nil); len(found) != 1 || found[0] != want {
		t.Errorf("fsck: %q, want %q", found, want)
	}
	w.stores()
	defer w.close()
	w.config.Catalog = w.catalog("again.db")
	if _, err := Rebuild(context.Background(), w.config, func(int64) {}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("rebuild without the snapshot: %v", err)
	}
}

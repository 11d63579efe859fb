package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// mostSnapshots bounds the index files that are fetched to prove one crate, in bytes.
const mostSnapshots = 256 << 20

// Behind returns the pinned registry through which cargo takes crates from source, as a
// lock or cargo's configuration spells it, and the place that source is to it: PlaceHosted,
// PlaceProxied or PlaceUpstream as a rule. ErrNotPinned, ErrURL.
func (c *Client) Behind(source string) (*Registry, Place, error) {
	source = strings.TrimPrefix(source, "registry+")
	known := source
	pin, err := c.home.PinOf(known)
	if base, ok := behind(source); ok && errors.Is(err, ErrNotPinned) {
		known = base
		pin, err = c.home.PinOf(known)
	}
	if err != nil {
		return nil, Place{}, err
	}
	r, err := c.Registry(pin)
	if err != nil {
		return nil, Place{}, err
	}
	bases, err := r.Bases()
	if err != nil {
		return nil, Place{}, err
	}
	for _, url := range []string{known, source} {
		base, err := ParseURL(url)
		if err != nil {
			return nil, Place{}, err
		}
		bases = append(bases, base) // known may be a name that it had, and has no more
	}
	last := len(bases) - 1
	return r, PlaceOf(IndexURL(bases[last]), bases[:last]), nil
}

// UpstreamOf is the name of the upstream that a place is, "" for what is hosted.
func (p Place) UpstreamOf() string {
	if name, ok := particle.UpstreamOf(p.Source()); ok {
		return name
	}
	return ""
}

// UpstreamBundle fetches the import records about the crate that w names, with the index
// files that they name, and what entitles the registry to them, sorted by log index.
func (r *Registry) UpstreamBundle(ctx context.Context, w verify.WantUpstream) ([]BundleRecord, error) {
	path := "/v1/artifacts/" + escapePath(string(record.KindCrate)+"/"+w.Subject.Crate()+"/"+w.Version) +
		"/bundle?source=" + url.QueryEscape(particle.UpstreamSource(w.Subject.Upstream()))
	var j bundleJSON
	if err := r.readJSON(ctx, path, maxBundle, &j); err != nil {
		return nil, err
	}
	records, err := j.records(r.web.base, path)
	if err != nil {
		return nil, err
	}
	return records, r.fillSnapshots(ctx, records)
}

// fillSnapshots fetches the index files for which there was no room in a bundle.
func (r *Registry) fillSnapshots(ctx context.Context, records []BundleRecord) error {
	have, room := map[storage.CID]bool{}, int64(mostSnapshots)
	for _, one := range records {
		for _, a := range one.Attachments {
			have[storage.CIDOf(a)] = true
		}
	}
	for i := range records {
		rec, err := record.Parse(records[i].Envelope)
		if err != nil || rec.Snapshot().IsZero() || have[rec.Snapshot()] { // what is no record is for package verify to say
			continue
		}
		if room <= 0 {
			return fmt.Errorf("the index files of %s that were seen have more than %d bytes; prove it with the whole log: `aln-registry log check --full`", rec.Subject(), int64(mostSnapshots))
		}
		raw, err := r.attachment(ctx, string(rec.ID()), rec.Snapshot(), record.MaxSnapshot)
		if err != nil {
			return err
		}
		have[rec.Snapshot()], room = true, room-int64(len(raw))
		records[i].Attachments = append(records[i].Attachments, raw)
	}
	return nil
}

// UpstreamEvidence is Evidence of a version of a crate of another registry.
func (v *View) UpstreamEvidence(ctx context.Context, w verify.WantUpstream) (verify.Evidence, error) {
	records, err := v.registry.UpstreamBundle(ctx, w)
	if err != nil {
		return verify.Evidence{}, err
	}
	items, err := v.items(records)
	if err != nil {
		return verify.Evidence{}, err
	}
	return verify.Evidence{Checkpoint: v.note, Consistency: v.consistency, Items: items}, nil
}

// VerifyUpstream is Verify of a version of a crate of another registry.
func (v *View) VerifyUpstream(ctx context.Context, w verify.WantUpstream) (verify.Verdict, error) {
	ev, err := v.UpstreamEvidence(ctx, w)
	if err != nil {
		return verify.Verdict{}, err
	}
	return v.settle(ctx, verify.Upstream(w, ev, v.registry.client.believed(v.past)))
}

// DownloadUpstream is Download of a version of a crate of another registry, whose sha256 is
// id's: it is fetched from there where it is not held.
func (r *Registry) DownloadUpstream(ctx context.Context, w verify.WantUpstream, id storage.CID, out io.Writer) (cid storage.CID, size int64, err error) {
	path := upstreamPath(w.Subject.Upstream()) + "/dl/" + escapePath(w.Subject.Crate()+"/"+w.Version+"/"+id.Hex())
	return r.download(ctx, path, out)
}

// upstreamPath is the path before the index and the downloads of an upstream.
func upstreamPath(name string) string {
	if name == particle.SourceCratesIO {
		return "/" + name
	}
	return "/upstream/" + url.PathEscape(name)
}

// download writes what is at path to out.
func (r *Registry) download(ctx context.Context, path string, out io.Writer) (cid storage.CID, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	err = r.asReader(ctx, func(token string) error {
		resp, err := r.web.send(ctx, call{method: http.MethodGet, path: path, token: token})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		cid, size, err = copyHashed(out, resp.Body)
		return err
	})
	return cid, size, err
}

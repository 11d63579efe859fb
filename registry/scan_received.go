package registry

import (
	"context"
	"io"

	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/storage"
)

// LookIntoReceived looks into the bytes of a version of another registry that are not kept, for
// the next LookInto: they are crate's, which ends with io.EOF only if what was read before is
// what v names.
func (r *Registry) LookIntoReceived(ctx context.Context, v Judged, crate io.Reader) error {
	if known, err := r.scanKnown(ctx, v.CID); err != nil || known {
		return err
	}
	return r.scanReceived(ctx, v.CID, crate)
}

// scanReceived looks into a crate as it comes, and keeps what it finds once all has come.
func (r *Registry) scanReceived(ctx context.Context, id storage.CID, crate io.Reader) error {
	turn, cancel := context.WithTimeout(ctx, scanWait)
	defer cancel()
	select {
	case r.scans.room <- struct{}{}:
		defer func() { <-r.scans.room }()
	case <-turn.Done():
		return scanStopped(turn)
	}
	ctx, stop := context.WithTimeout(ctx, r.scans.most)
	defer stop()
	s, err := r.scan(ctx, id, crate)
	if err == nil {
		_, err = io.Copy(io.Discard, crate)
	}
	if err != nil {
		return err
	}
	r.scans.know(s)
	if s.Failure != "" || len(s.Findings) > 0 {
		r.scans.hits.Add(1)
	}
	if err := r.Catalog.PutScan(ctx, s); err != nil {
		r.Log.Warn("what was found in a crate is not kept", "cid", id.String(), "error", err)
	}
	return nil
}

// scanKnown reports whether today's recognisers have looked into the crate id.
func (r *Registry) scanKnown(ctx context.Context, id storage.CID) (bool, error) {
	if _, ok := r.scans.lookUp(id); ok {
		return true, nil
	}
	s, ok, err := r.Catalog.ScanOf(ctx, id)
	if err != nil || !ok || s.Recognisers != content.Version {
		return false, err
	}
	r.scans.know(s)
	return true, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	cratesioproxy "phoenix-lab.org/aln-registry/cratesio-proxy"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// upstreamEvidence is a registry as the proxy needs it: what upstreams said is signed and
// logged there.
type upstreamEvidence struct{ registry *registry.Registry }

// Import implements cratesioproxy.Evidence.
func (e upstreamEvidence) Import(ctx context.Context, upstream, crate string, snapshot []byte) (cratesioproxy.Imported, error) {
	in, err := e.registry.Import(ctx, upstream, crate, snapshot)
	if errors.Is(err, registry.ErrSnapshot) {
		err = fmt.Errorf("%w: %w", cratesioproxy.ErrSnapshot, err)
	}
	return cratesioproxy.Imported{Changed: in.Changed, Dropped: in.Dropped}, err
}

// Known implements cratesioproxy.Evidence.
func (e upstreamEvidence) Known(ctx context.Context, upstream, canonical string) (cratesioproxy.Known, bool, error) {
	c, ok, err := e.registry.UpstreamCrate(ctx, upstream, canonical)
	return cratesioproxy.Known{Name: c.Name, Snapshot: c.Snapshot}, ok, err
}

// PrivateName implements cratesioproxy.Evidence.
func (e upstreamEvidence) PrivateName(canonical string) bool {
	return e.registry.PrivateName(canonical)
}

// upstreamFacts keeps in a catalog what the proxy notes. What is held is noted through the
// registry, since garbage is collected beside.
type upstreamFacts struct {
	catalog  *catalog.DB
	registry *registry.Registry
}

// keptAlarms is how many alarms are kept of one upstream.
const keptAlarms = 10_000

// File implements cratesioproxy.Facts.
func (f upstreamFacts) File(ctx context.Context, upstream, name string) (cratesioproxy.File, bool, error) {
	row, ok, err := f.catalog.UpstreamFile(ctx, upstream, name)
	return cratesioproxy.File{
		Upstream: row.Upstream, Name: row.Name, ETag: row.ETag, LastModified: row.LastModified,
		Snapshot: row.Snapshot, Status: row.Status, Checked: row.Checked,
	}, ok, err
}

// PutFiles implements cratesioproxy.Facts.
func (f upstreamFacts) PutFiles(ctx context.Context, files []cratesioproxy.File) error {
	rows := make([]catalog.UpstreamFile, len(files))
	for i, file := range files {
		rows[i] = catalog.UpstreamFile{
			Upstream: file.Upstream, Name: file.Name, ETag: file.ETag, LastModified: file.LastModified,
			Snapshot: file.Snapshot, Status: file.Status, Checked: file.Checked,
		}
	}
	return f.catalog.PutUpstreamFiles(ctx, rows)
}

// HasBlob implements cratesioproxy.Facts.
func (f upstreamFacts) HasBlob(ctx context.Context, id storage.CID) (bool, error) {
	rows, err := f.catalog.UpstreamBlobs(ctx, []storage.CID{id})
	return len(rows) > 0, err
}

// PutBlobs implements cratesioproxy.Facts.
func (f upstreamFacts) PutBlobs(ctx context.Context, list []cratesioproxy.Blob) error {
	rows := make([]catalog.UpstreamBlob, len(list))
	for i, b := range list {
		rows[i] = catalog.UpstreamBlob{
			CID: b.ID, Upstream: b.Upstream, Name: b.Name, Version: b.Version, Size: b.Size, Fetched: b.Fetched, Used: b.Fetched,
		}
	}
	return f.registry.Hold(ctx, rows)
}

// UsedBlobs implements cratesioproxy.Facts.
func (f upstreamFacts) UsedBlobs(ctx context.Context, ids []storage.CID, at time.Time) error {
	return f.catalog.UseUpstreamBlobs(ctx, ids, at)
}

// PutAlarm implements cratesioproxy.Facts.
func (f upstreamFacts) PutAlarm(ctx context.Context, a cratesioproxy.Alarm) error {
	return f.catalog.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{
		Upstream: a.Upstream, Name: a.Name, Version: a.Version, Kind: a.Kind, Detail: a.Detail, At: a.At,
	}, keptAlarms)
}

// fromNewest is what alarms before that begin with.
func fromNewest(before int64) int64 {
	if before <= 0 {
		return math.MaxInt64
	}
	return before
}

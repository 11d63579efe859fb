package registry

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Spelling is how the artifact that name means spells its name. ErrNotFound when
// there is none.
func (r *Registry) Spelling(ctx context.Context, kind record.Kind, name string) (string, error) {
	a, ok, err := state.ArtifactOf(r.visible(ctx), kind, name)
	if err == nil && !ok {
		err = fmt.Errorf("%w: there is no %s of that name", ErrNotFound, kind)
	}
	return a.Name, err
}

// VersionsOf returns an artifact with all its versions, the newest by SemVer
// first. ErrNotFound when there is none of exactly that name.
func (r *Registry) VersionsOf(ctx context.Context, kind record.Kind, name string) (listed Listed, versions []state.Version, err error) {
	at := r.Size()
	if listed.Artifact, err = r.namedAt(ctx, kind, name, at); err != nil {
		return Listed{}, nil, err
	}
	prefix := state.VersionPrefix(kind, name)
	rows, err := r.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), at, mostVersions)
	if err != nil {
		return Listed{}, nil, err
	}
	all := make([]ranked, len(rows))
	newest := 0
	for i, row := range rows {
		if all[i], err = decodeRanked(row.Value); err != nil {
			return Listed{}, nil, err
		}
		if all[i].preferredTo(all[newest]) {
			newest = i
		}
	}
	if listed.Versions = len(all); len(all) > 0 {
		listed.Newest = all[newest].Version
	}
	slices.SortFunc(all, func(a, b ranked) int { return b.order.Compare(a.order) })
	versions = make([]state.Version, len(all))
	for i, v := range all {
		versions[i] = v.Version
	}
	return listed, versions, nil
}

// Describe reads what a crate says of itself out of its stored, verified
// .crate: the manifest and the README. It stops when ctx ends.
func (r *Registry) Describe(ctx context.Context, v state.Version) (*cargo.Crate, error) {
	if v.Kind != record.KindCrate {
		return nil, fmt.Errorf("%w: a %s describes nothing", ErrRequest, v.Kind)
	}
	blob, err := r.OpenArtifact(ctx, v)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return cargo.Describe(untilDone{ctx, blob}, v.Name, v.Version, r.Limits)
}

// untilDone ends reading when ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// EntryTimes returns the times of the published entries from ≤ index < to.
func (r *Registry) EntryTimes(ctx context.Context, from, to int64) ([]time.Time, error) {
	entries, err := r.LogEntries(ctx, from, to)
	if err != nil {
		return nil, err
	}
	times := make([]time.Time, len(entries))
	for i, raw := range entries {
		entry, err := translog.ParseEntry(raw)
		if err != nil {
			return nil, err
		}
		times[i] = entry.Time
	}
	return times, nil
}

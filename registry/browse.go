package registry

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// Spelling is how the artifact that name means spells its name. ErrNotFound when
// there is none that asker may know of.
func (r *Registry) Spelling(ctx context.Context, asker policy.Asker, kind record.Kind, name string) (string, error) {
	if err := r.knows(ctx, asker, kind, name); err != nil {
		return "", err
	}
	a, ok, err := r.artifactOf(ctx, kind, name)
	if err == nil && !ok {
		err = unknownName(kind, name)
	}
	return a.Name, err
}

// VersionsOf returns an artifact with all its versions that asker may know of, the
// newest by SemVer first. ErrNotFound when there is none of exactly that name.
func (r *Registry) VersionsOf(ctx context.Context, asker policy.Asker, kind record.Kind, name string) (listed Listed, versions []Judged, err error) {
	listed, s, err := r.named(ctx, asker, kind, name)
	if err != nil {
		return Listed{}, nil, err
	}
	slices.SortFunc(s.versions, func(a, b seenVersion) int { return b.order.Compare(a.order) })
	versions = make([]Judged, len(s.versions))
	for i, v := range s.versions {
		versions[i] = v.judged()
	}
	return listed, versions, nil
}

// Describe reads what a crate says of itself out of its stored, verified
// .crate: the manifest and the README. It stops when ctx ends. A *Denied where the
// asker does not get the bytes.
func (r *Registry) Describe(ctx context.Context, v Judged) (*cargo.Crate, error) {
	if v.Kind != record.KindCrate {
		return nil, fmt.Errorf("%w: a %s describes nothing", ErrRequest, v.Kind)
	}
	blob, err := r.OpenArtifact(ctx, v)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return cargo.Describe(untilDone{ctx, blob}, v.Name, v.Version.Version, r.Limits)
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

// Publications are the indexes of the published entries from ≤ index < to that
// published something, the newest first, at most most. What each is about only
// those are told who may read its record.
func (r *Registry) Publications(ctx context.Context, from, to int64, most int) ([]int64, error) {
	if to > r.Size() {
		return nil, ErrNotFound
	}
	rows, err := r.Catalog.Entries(ctx, from, to)
	if err != nil {
		return nil, err
	}
	var found []int64
	for _, row := range slices.Backward(rows) {
		if len(found) == most {
			break
		}
		stored, err := r.storedRecord(ctx, record.ID(row.RecordID))
		if err != nil {
			return nil, err
		}
		if stored.Record.Type() == record.TypePublish {
			found = append(found, stored.Index)
		}
	}
	return found, nil
}

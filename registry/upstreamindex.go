package registry

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// mostSnapshots bounds the index files from which one is put together: the last one has all
// lines but those of versions that upstream dropped at some time.
const mostSnapshots = 64

// Bytes of the held of a view.
const (
	lineHeld   = '+'
	lineAbsent = '-'
)

// Held tells which blobs are held: those of ids that are true in it.
type Held func(ctx context.Context, ids []storage.CID) (map[storage.CID]bool, error)

// UpstreamIndexFile is IndexFile of a crate of another registry: the lines are upstream's,
// verbatim but for `yanked`, which is true also where upstream no longer lists the version
// as it first did. With held (nil: whatever is held), lines of versions that are not held
// are left out. ErrNotFound also for private names.
func (r *Registry) UpstreamIndexFile(ctx context.Context, asker policy.Asker, upstream, lowerName string, held Held) (*IndexFile, error) {
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return nil, err
	}
	file, err := r.upstreamFile(ctx, upstream, lowerName)
	if err != nil {
		return nil, err
	}
	if file == nil || len(file.lines) == 0 || file.name != lowerName {
		return nil, ErrNotFound
	}
	name := upstreamThing(upstream, lowerName)
	if held == nil {
		return r.seenAs(ctx, asker, t, thing{family: viewFamily, name: name}, file, "")
	}
	lines, err := file.heldBy(ctx, held)
	if err != nil {
		return nil, err
	}
	return r.seenAs(ctx, asker, t, thing{family: narrowFamily, name: name}, file, lines)
}

// heldBy says of each line whether the bytes of its version are held.
func (f *IndexFile) heldBy(ctx context.Context, held Held) (string, error) {
	ids := make([]storage.CID, len(f.lines))
	for i, l := range f.lines {
		ids[i] = f.of.versions[l.version].CID
	}
	have, err := held(ctx, ids)
	if err != nil {
		return "", err
	}
	lines := bytes.Repeat([]byte{lineAbsent}, len(ids))
	for i, id := range ids {
		if have[id] {
			lines[i] = lineHeld
		}
	}
	return string(lines), nil
}

// upstreamFile is a crate's index file as it is known, however its name is spelled; nil
// where there is none, or its name is a private one. Only views of it are anybody's to see.
func (r *Registry) upstreamFile(ctx context.Context, upstream, name string) (*IndexFile, error) {
	if _, err := record.UpstreamSubject(upstream, name); err != nil || r.PrivateName(name) {
		return nil, nil // there is nothing of such a name
	}
	value, err := r.cache.get(ctx, thing{family: indexFamily, name: upstreamThing(upstream, name)}, r.Size, func(ctx context.Context, at int64) (found, error) {
		u, ok, err := r.upstreamAt(ctx, state.UpstreamKey(upstream, name), at)
		if err != nil || !ok {
			return found{}, err
		}
		file, err := r.makeUpstreamFile(ctx, u)
		if err != nil {
			return found{}, err
		}
		return found{file, file.bytes() + file.of.bytes()}, nil
	})
	if err != nil || value == nil {
		return nil, err
	}
	return value.(*IndexFile), nil
}

// makeUpstreamFile puts together the index file of all versions of u, in the order first seen.
func (r *Registry) makeUpstreamFile(ctx context.Context, u state.Upstream) (*IndexFile, error) {
	turn := turn{of: r.large}
	defer turn.end()
	lines, err := r.upstreamLines(ctx, u, &turn)
	if err != nil {
		return nil, err
	}
	file := &IndexFile{
		name: strings.ToLower(u.Name), what: "upstream/" + u.Upstream + "/" + u.Name,
		of: upstreamLineage(u), lines: make([]indexLine, 0, len(lines)),
	}
	var text bytes.Buffer
	text.Grow(textBytes(lines)) // one that grows by itself leaves as much behind again
	for i, v := range u.Versions {
		line, ok := lines[i]
		if !ok || line.Crashes {
			continue
		}
		place := indexLine{version: file.of.find(withoutBuild(v.Version))}
		file.of.versions[place.version].Name = line.Name // upstream may spell later ones otherwise, and has this one under that name
		if gone := !v.Gone.IsZero(); gone || line.Yanked {
			text.Write(line.Marshal(true))
		} else {
			from, to, _ := line.PlaceOfYanked()
			place.yanked, place.rest = text.Len()+from, text.Len()+to
			text.Write(line.Marshal(false))
		}
		place.end = text.Len()
		file.lines = append(file.lines, place)
	}
	packed, err := pack(text.Bytes())
	if err != nil {
		return nil, err
	}
	file.Plain, file.Packed = Represent(text.Bytes(), packed)
	return file, nil
}

// upstreamLines are the lines of u's versions, by their place there. Those of what upstream
// dropped long ago are left out where they stand in too many snapshots, or where all
// together would be larger than an index file may be.
func (r *Registry) upstreamLines(ctx context.Context, u state.Upstream, turn *turn) (map[int]cargo.UpstreamLine, error) {
	in := map[storage.CID][]int{}
	for i, v := range u.Versions {
		in[v.Line] = append(in[v.Line], i)
	}
	// The last one first, then those whose versions are gone since last.
	snapshots := make([]storage.CID, 0, len(in))
	for id := range in {
		snapshots = append(snapshots, id)
	}
	slices.SortFunc(snapshots, func(a, b storage.CID) int {
		if last := u.Snapshot; a == last || b == last {
			return cmp.Compare(boolean(b == last), boolean(a == last))
		}
		return cmp.Or(u.Versions[in[b][0]].Gone.Compare(u.Versions[in[a][0]].Gone), cmp.Compare(in[b][0], in[a][0]))
	})
	if len(snapshots) > mostSnapshots {
		r.Log.Warn("an upstream dropped versions of a crate too often: the earliest are not listed any more", "upstream", u.Upstream, "crate", u.Name, "snapshots", len(snapshots))
		snapshots = snapshots[:mostSnapshots]
	}
	lines, room := make(map[int]cargo.UpstreamLine, len(u.Versions)), maxIndexFile
	for _, id := range snapshots {
		file, err := r.snapshot(ctx, u.Name, id, turn)
		if err != nil {
			return nil, err
		}
		wanted := make(map[string]int, len(in[id]))
		for _, i := range in[id] {
			wanted[u.Versions[i].Version] = i
		}
		for _, l := range file.Lines {
			i, ok := wanted[l.Version]
			if _, have := lines[i]; ok && !have && u.Versions[i].Lists(l) && len(l.Raw) < room {
				lines[i] = l
				room -= len(l.Raw) + len(sayYanked) + 1
			}
		}
	}
	return lines, nil
}

// snapshot is an index file as it was seen. It is read when turn has come for what is large.
func (r *Registry) snapshot(ctx context.Context, name string, id storage.CID, turn *turn) (cargo.UpstreamFile, error) {
	if file, ok := r.snapshots.take(id); ok {
		size := 0
		for _, l := range file.Lines {
			size += len(l.Raw)
		}
		return file, turn.wait(ctx, int64(size))
	}
	raw, err := readBlobWhen(ctx, r.Blobs, id, cargo.MaxUpstreamFile, func(size int64) error { return turn.wait(ctx, size) })
	if err != nil {
		return cargo.UpstreamFile{}, fmt.Errorf("the index file of %s as it was seen: %w", name, err)
	}
	return cargo.ParseUpstreamFile(name, raw)
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// withoutBuild is cargo.Version.WithoutBuild of what has been parsed.
func withoutBuild(version string) string {
	id, _, _ := strings.Cut(version, "+")
	return id
}

// upstreamLineage is what decisions about the versions of u are made of.
func upstreamLineage(u state.Upstream) *lineage {
	order := make([]int, len(u.Versions))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return strings.Compare(withoutBuild(u.Versions[a].Version), withoutBuild(u.Versions[b].Version))
	})
	l := &lineage{
		upstream: u.Upstream, generation: u.Index,
		ids: make([]string, len(order)), versions: make([]ranked, len(order)), facts: make([]policy.Facts, len(order)),
	}
	for i, place := range order {
		v := u.Versions[place]
		l.ids[i] = withoutBuild(v.Version)
		l.versions[i].Version = upstreamVersion(u, v)
		l.versions[i].order, _ = cargo.ParseVersion(v.Version) // it was, when it was imported
		l.facts[i] = upstreamFacts(u.Upstream, l.versions[i].Version)
		l.facts[i].Since = v.Since
	}
	return l
}

// upstreamVersion is v of u, as if it were hosted here.
func upstreamVersion(u state.Upstream, v state.UpstreamVersion) state.Version {
	return state.Version{
		Kind: record.KindCrate, Name: u.Name, Version: v.Version, CID: storage.CIDFromDigest(v.Digest),
		Record: u.Record, Index: u.Index, Time: v.First, Yanked: v.Yanked || !v.Gone.IsZero(),
	}
}

// upstreamFacts is what is known of v, of an upstream, besides its age and what it holds.
func upstreamFacts(upstream string, v state.Version) policy.Facts {
	f := plainFacts(v)
	f.Source, f.Publisher = particle.UpstreamSource(upstream), ""
	return f
}

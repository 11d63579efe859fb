package server

import (
	"context"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// lackFirst notes, before any of it is fetched, what a lock names by its bytes, or all versions of: what
// it does not pin yet it lacks, and still does where the list is cut.
func (f prefetching) lackFirst(ctx context.Context, request prefetchRequest) error {
	var lacks []registry.Lack
	for _, name := range request.Whole {
		if f.mayBe(name, "") {
			lacks = append(lacks, f.lackOf(name, "", "", ""))
		}
	}
	if request.Lacking == nil && len(lacks) == 0 {
		return nil
	}
	if request.Lacking == nil { // it is a further part of a list
		return f.server.registry.Lack(ctx, f.by, f.lock, lacks)
	}
	for _, all := range [][]prefetchedJSON{request.Crates, request.Lacking} {
		for _, c := range all {
			if c.Checksum != "" && f.mayBe(c.Name, c.Version) {
				lacks = append(lacks, f.lackOf(c.Name, c.Version, c.Checksum, ""))
			}
		}
	}
	return f.server.registry.LackAnew(ctx, f.by, f.lock, f.upstream, lacks)
}

// mayBe reports whether there may be such a crate: what nobody can have is told, and not noted. version
// is "" for all of them.
func (f prefetching) mayBe(name, version string) bool {
	if _, err := record.UpstreamSubject(f.upstream, name); err != nil {
		return false
	}
	_, err := cargo.ParseVersion(version)
	return err == nil || version == ""
}

// lackOf is a crate as the list names it. checksum is one, or "".
func (f prefetching) lackOf(name, version, checksum, why string) registry.Lack {
	l := registry.Lack{Upstream: f.upstream, Name: name, Version: version, Why: why}
	if digest, err := particle.ParseHash(checksum); err == nil {
		l.CID = storage.CIDFromDigest(digest)
	}
	return l
}

// keeping is what of a list is to be noted for its lock: what is held and not pinned yet, what it
// lacked and has now, and what it lacks.
type keeping struct {
	prefetching
	unpinned    []UpstreamCrate
	had, lacked []registry.Lack
}

// add takes up an outcome, and says how many there are.
func (k *keeping) add(line prefetchLine) int {
	switch {
	case line.crate.ID.IsZero() && !k.mayBe(line.Name, line.Version):
	case line.crate.ID.IsZero():
		k.lacked = append(k.lacked, k.lackOf(line.Name, line.Version, line.Checksum, line.Outcome))
	case line.Checksum == "": // else it is known by its bytes
		k.had = append(k.had, k.lackOf(line.Name, line.Version, "", ""))
		fallthrough
	default:
		k.unpinned = append(k.unpinned, line.crate)
	}
	return len(k.unpinned) + len(k.lacked)
}

// note notes all of it, unless that has failed before; count tells of it.
func (k *keeping) note(ctx context.Context, count *prefetchCount) {
	if k.lock == "" || count.Error != "" {
		return
	}
	err := k.pin(ctx)
	if r := k.server.registry; err == nil && len(k.had) > 0 {
		err = r.Have(ctx, k.by, k.lock, k.had)
	}
	if r := k.server.registry; err == nil && len(k.lacked) > 0 {
		err = r.Lack(ctx, k.by, k.lock, k.lacked)
	}
	if err != nil {
		o := observed(k.r.Context())
		k.server.log.Error("crates cannot be pinned", "request", o.id, "error", err)
		count.Error = "the lock cannot be kept now; what was fetched is held, but may be evicted: try again in a moment (request " + o.id + ")"
		return
	}
	count.Pinned += len(k.unpinned)
	k.unpinned, k.had, k.lacked = k.unpinned[:0], k.had[:0], k.lacked[:0]
}

// pin pins crates that were held a moment ago, and sees to it that they still are: what
// was evicted before it was pinned is fetched again, and stays.
func (k *keeping) pin(ctx context.Context) error {
	if len(k.unpinned) == 0 {
		return nil
	}
	var ids []storage.CID
	for _, c := range k.unpinned {
		ids = append(ids, c.ID)
	}
	if err := k.server.registry.Pin(ctx, k.by, k.lock, ids); err != nil {
		return err
	}
	held, err := k.server.upstreams.Held(ctx, k.upstream, ids)
	for _, c := range k.unpinned {
		if err == nil && !held[c.ID] {
			_, err = k.server.upstreams.Hold(ctx, k.upstream, c)
		}
	}
	return err
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Bounds on listings.
const (
	mostVersions = 100_000
	mostMembers  = 100_000
)

// Version returns one version of an artifact, by its exact name and version, as
// asker may see it. ErrNotFound also when asker may not know of it;
// ErrUnauthenticated or a *policy.Denial when asker may not read at all.
func (r *Registry) Version(ctx context.Context, asker policy.Asker, kind record.Kind, name, version string) (Judged, error) {
	if err := r.gate(&asker, r.published.Load().terms); err != nil {
		return Judged{}, err // before it is looked for: whether it exists is not told
	}
	// What is hidden takes as long as what is not there.
	return caughtUp(ctx, r, isNotFound, func() (Judged, error) {
		v, err := r.version(ctx, kind, name, version)
		if err != nil {
			return Judged{}, err
		}
		return r.judged(ctx, asker, v)
	})
}

// version is Version for nobody: as the state has it.
func (r *Registry) version(ctx context.Context, kind record.Kind, name, version string) (state.Version, error) {
	subject, err := record.VersionSubject(kind, name, version)
	if err != nil {
		return state.Version{}, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	key, err := state.VersionKey(subject)
	if err != nil {
		return state.Version{}, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	v, ok, err := cachedState(ctx, r, key, state.DecodeVersion)
	if err != nil {
		return state.Version{}, err
	}
	if !ok || v.Name != name || v.Version != version {
		return state.Version{}, unknownVersion(kind, name, version)
	}
	return v, nil
}

// OpenArtifact opens the bytes of a version, whose asker gets them; they have been
// verified against its CID. A blob with a method Bytes() []byte is in memory, as
// long as it is open. A *Denied where the asker does not get them.
func (r *Registry) OpenArtifact(ctx context.Context, v Judged) (storage.Blob, error) {
	if err := v.Refusal(); err != nil {
		return nil, err
	}
	return r.artifacts.open(ctx, r.Blobs, v.CID)
}

// ArtifactSize is the number of bytes of a version.
func (r *Registry) ArtifactSize(ctx context.Context, v Judged) (int64, error) {
	return r.Blobs.Stat(ctx, v.CID)
}

// Owners returns the owners of a crate that asker may know of, in the order in
// which they became so.
func (r *Registry) Owners(ctx context.Context, asker policy.Asker, name string) ([]did.DID, error) {
	if err := r.knows(ctx, asker, record.KindCrate, name); err != nil {
		return nil, err
	}
	a, ok, err := r.artifactOf(ctx, record.KindCrate, name)
	if err != nil {
		return nil, err
	}
	if !ok || a.Name != name {
		return nil, fmt.Errorf("%w: there is no crate named %q", ErrNotFound, name)
	}
	var owners []did.DID
	for _, o := range a.Owners {
		owners = append(owners, o.DID)
	}
	return owners, nil
}

// CheckOwner says why asker may not change the owners of the crate name: there is
// no such crate that asker may know of (ErrNotFound) or nothing entitles asker
// (state.ErrNotEntitled). nil: they may.
func (r *Registry) CheckOwner(ctx context.Context, asker policy.Asker, name string) error {
	if _, err := r.Owners(ctx, asker, name); err != nil {
		return err
	}
	d := asker.DID
	heads, err := r.HeadsFor(ctx, asker, string(record.KindCrate)+"/"+name)
	if err != nil || heads.By != "" {
		return err
	}
	return fmt.Errorf("%w: %s is not an owner of %s; an owner adds it with `%s`", state.ErrNotEntitled, d, name, record.AddOwnerCommand(record.KindCrate, name, d))
}

// Members returns all members, former ones left out, ordered by DID.
func (r *Registry) Members(ctx context.Context) ([]state.Member, error) {
	prefix := state.MemberPrefix()
	rows, err := r.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), r.Size(), mostMembers)
	if err != nil {
		return nil, err
	}
	if len(rows) == mostMembers {
		return nil, fmt.Errorf("there are more than %d members", mostMembers)
	}
	var members []state.Member
	for _, row := range rows {
		m, err := state.DecodeMember(row.Value)
		if err != nil {
			return nil, err
		}
		if m.Active() {
			members = append(members, m)
		}
	}
	return members, nil
}

// Heads is all that an asker needs to sign a record about a thing.
type Heads struct {
	Thing  string    `json:"thing"`
	Prev   record.ID `json:"prev"`
	By     record.ID `json:"by"`
	Key    record.ID `json:"key"`
	Origin did.DID   `json:"origin"`
}

// HeadsFor answers prev, by and key for asker, from the published state, what other
// replicas have published included. By is empty when nothing entitles the asker. Of an
// artifact that asker neither may know of nor change it says what it would if there were none.
func (r *Registry) HeadsFor(ctx context.Context, asker policy.Asker, thing string) (Heads, error) {
	subject, err := record.ParseSubject(thing)
	if err != nil || subject.Version() != "" {
		return Heads{}, fmt.Errorf("%w: %q is not a thing that records are about", ErrRequest, thing)
	}
	r.catchUp(ctx, 0) // the asker may have been told of it already
	s, err := r.stateFor(ctx, asker, r.visible(ctx), subject)
	if err != nil {
		return Heads{}, err
	}
	head, _, err := state.HeadOf(s, subject.Thing())
	if err != nil {
		return Heads{}, err
	}
	by, err := r.entitlement(s, asker.DID, subject)
	if err != nil {
		return Heads{}, err
	}
	key, err := r.documentRecord(s, asker.DID)
	if err != nil {
		return Heads{}, err
	}
	return Heads{Thing: subject.Thing(), Prev: head.Record, By: by, Key: key, Origin: r.origin}, nil
}

// entitlement is the record that asker would cite as `by` about subject (the
// table of FORMATS §2): as owner, as publisher of a new name, as grantor or
// reviewer, else as admin. A role goes before, since a grant that cites it holds
// for an admin too, but one that cites the settings for nobody else.
func (r *Registry) entitlement(s state.Store, asker did.DID, subject record.Subject) (record.ID, error) {
	member, _, err := state.MemberOf(s, asker)
	if err != nil {
		return "", err
	}
	settings := r.Settings()
	if subject.Upstream() != "" { // also an admin says nothing of what the registry saw
		if asker == r.origin {
			return settings.Record, nil
		}
		return "", nil
	}
	if subject.Kind() != "" && member.Active() {
		artifact, known, err := state.ArtifactOf(s, subject.Kind(), subject.Name())
		if err != nil {
			return "", err
		}
		if owner, ok := artifact.Owner(asker); ok {
			return owner.Record, nil
		}
		if !known && member.Has(state.RolePublisher) {
			return member.Record, nil
		}
	}
	if role := roleFor(subject); role != "" && member.Has(role) {
		return member.Record, nil
	}
	if slices.Contains(settings.Admins, asker) {
		return settings.Record, nil
	}
	if subject.Member() == asker && len(member.Documents) > 0 {
		return member.Documents[len(member.Documents)-1].Record, nil
	}
	return "", nil
}

// roleFor is the role of those who change subject besides admins, "" if there is none.
func roleFor(subject record.Subject) string {
	switch {
	case !subject.Grant().IsZero():
		return state.RoleGrantor
	case subject.Rule() != "":
		return state.RoleReviewer
	}
	return ""
}

func (r *Registry) documentRecord(s state.Store, d did.DID) (record.ID, error) {
	if d.Method() == "key" {
		return "", nil
	}
	member, _, err := state.MemberOf(s, d)
	if err != nil || len(member.Documents) == 0 {
		return "", err
	}
	return member.Documents[len(member.Documents)-1].Record, nil
}

// LogEntries returns the published entries from ≤ index < to.
func (r *Registry) LogEntries(ctx context.Context, from, to int64) ([][]byte, error) {
	if to > r.Size() {
		return nil, ErrNotFound
	}
	rows, err := r.Catalog.Entries(ctx, from, to)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for _, row := range rows {
		entries = append(entries, row.Bytes)
	}
	return entries, nil
}

// Tile returns a hash tile or an entry bundle of the published log, in the
// encoding of C2SP tlog-tiles. ErrNotFound when the log is not that large.
func (r *Registry) Tile(ctx context.Context, path string) ([]byte, error) {
	return caughtUp(ctx, r, isNotFound, func() ([]byte, error) { return r.tile(ctx, path) })
}

func (r *Registry) tile(ctx context.Context, path string) ([]byte, error) {
	t, err := translog.ParseTilePath(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	size := r.Size()
	if !t.Entries {
		tile, err := translog.ReadTile(t, size, storedHashes(ctx, &r.Catalog.Reader))
		if errors.Is(err, translog.ErrRange) {
			return nil, fmt.Errorf("%w: the log has %d entries", ErrNotFound, size)
		}
		return tile, err
	}
	from, to, err := t.EntryRange(size)
	if err != nil {
		return nil, fmt.Errorf("%w: the log has %d entries", ErrNotFound, size)
	}
	entries, err := r.LogEntries(ctx, from, to)
	if err != nil {
		return nil, err
	}
	var bundle []byte
	for _, entry := range entries {
		if bundle, err = translog.AppendBundle(bundle, entry); err != nil {
			return nil, err
		}
	}
	return bundle, nil
}

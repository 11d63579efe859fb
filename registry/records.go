package registry

import (
	"context"
	"fmt"
	"sort"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// Stored is a record as it stands in the log.
type Stored struct {
	Index    int64
	Record   *record.Record
	Document storage.CID // the signer's, zero for did:key
}

// Record returns the published record whose identity is id, if asker may read
// it. ErrNotFound also when the asker may not know of it.
func (r *Registry) Record(ctx context.Context, asker policy.Asker, id record.ID) (Stored, error) {
	return caughtUp(ctx, r, isNotFound, func() (Stored, error) { return r.readableRecord(ctx, asker, id) })
}

func (r *Registry) readableRecord(ctx context.Context, asker policy.Asker, id record.ID) (Stored, error) {
	stored, err := r.storedRecord(ctx, id)
	if err != nil {
		return Stored{}, err
	}
	if err := r.MayReadRecord(ctx, asker, stored); err != nil {
		return Stored{}, err
	}
	return stored, nil
}

// mayReadAuthority says why asker may not read the record at index, which is about
// no artifact.
func (r *Registry) mayReadAuthority(asker policy.Asker, index int64) error {
	if err := r.Current(); err != nil {
		return err
	}
	return asError(asker, policy.ReadRecords(asker, index, false, r.published.Load().terms.Settings))
}

// MayReadRecord says why asker may not read a published record, by what is shown now: that of a version is known to
// whoever may know of the version, that of a name to whoever may know of any
// version of it; that of a crate of another registry tells of all its versions, and
// is known to whoever may know of them all. Bytes are in none.
func (r *Registry) MayReadRecord(ctx context.Context, asker policy.Asker, stored Stored) error {
	if err := r.Current(); err != nil {
		return err
	}
	t := r.published.Load().terms
	subject := stored.Record.Subject()
	about := subject.Kind() != "" || subject.Upstream() != ""
	if err := asError(asker, policy.ReadRecords(asker, stored.Index, about, t.Settings)); err != nil || !about {
		return err
	}
	unknown := fmt.Errorf("%w: no record %s", ErrNotFound, stored.Record.ID())
	if subject.Upstream() != "" {
		return r.knowsUpstream(ctx, &asker, t, subject, unknown)
	}
	if subject.Version() == "" {
		s, err := r.seenUnder(ctx, &asker, t, subject.Kind(), subject.Name())
		if err == nil && len(s.versions) == 0 {
			err = hiddenOr(unknown, subject, s.hidden)
		}
		return err
	}
	key, err := state.VersionKey(subject)
	if err != nil {
		return unknown
	}
	v, ok, err := cachedState(ctx, r, key, state.DecodeVersion)
	if err != nil {
		return err
	}
	if ok {
		var d policy.Decision
		if d, err = r.decide(ctx, &asker, t, v); err != nil {
			return err
		}
		if !d.Known {
			return hiddenOr(unknown, subject, d)
		}
	}
	if !ok {
		return unknown
	}
	return nil
}

// RecordAt returns the record of the published entry at index.
func (r *Registry) RecordAt(ctx context.Context, asker policy.Asker, index int64) (Stored, error) {
	if index < 0 {
		return Stored{}, ErrNotFound
	}
	return caughtUp(ctx, r, isNotFound, func() (Stored, error) {
		if index >= r.Size() {
			return Stored{}, ErrNotFound
		}
		row, err := r.Catalog.Entry(ctx, index)
		if err != nil {
			return Stored{}, err
		}
		return r.readableRecord(ctx, asker, record.ID(row.RecordID))
	})
}

func (r *Registry) storedRecord(ctx context.Context, id record.ID) (Stored, error) {
	row, ok, err := r.Catalog.EntryByRecord(ctx, string(id))
	if err != nil {
		return Stored{}, err
	}
	if !ok || row.Index >= r.Size() {
		return Stored{}, fmt.Errorf("%w: no record %s", ErrNotFound, id)
	}
	entry, err := translog.ParseEntry(row.Bytes)
	if err != nil {
		return Stored{}, err
	}
	envelope, err := readBlob(ctx, r.Blobs, row.Record, record.MaxEnvelope)
	if err != nil {
		return Stored{}, err
	}
	rec, err := record.Parse(envelope)
	if err != nil {
		return Stored{}, err
	}
	return Stored{Index: row.Index, Record: rec, Document: entry.DIDDocument}, nil
}

// RecordByCID returns the record whose envelope has that CID. Only the log is
// asked for it: a stranger learns nothing of what else is stored.
func (r *Registry) RecordByCID(ctx context.Context, asker policy.Asker, id storage.CID) (Stored, error) {
	row, ok, err := r.Catalog.EntryByRecordCID(ctx, id)
	if err != nil {
		return Stored{}, err
	}
	if !ok || row.Index >= r.Size() {
		return Stored{}, fmt.Errorf("%w: no record %s", ErrNotFound, id)
	}
	return r.Record(ctx, asker, record.ID(row.RecordID))
}

// Attachment returns a blob that a record which the asker may read names, or
// its signer's DID document.
func (r *Registry) Attachment(ctx context.Context, stored Stored, attachment storage.CID) ([]byte, error) {
	for _, named := range append(stored.Record.Attachments(), stored.Document) {
		if named == attachment && !named.IsZero() {
			return readBlob(ctx, r.Blobs, attachment, stored.Record.MostAttached())
		}
	}
	return nil, fmt.Errorf("%w: the record %s names no %s", ErrNotFound, stored.Record.ID(), attachment)
}

// BundleItem is one record of a proof bundle.
type BundleItem struct {
	Index       int64    `json:"index"`
	Envelope    []byte   `json:"envelope"`
	Attachments [][]byte `json:"attachments"`
}

// mostInBundle bounds a bundle's records.
const mostInBundle = 10_000

// Bundle returns, sorted by index, what a verifier needs besides the log itself:
// every record about an artifact's name and every one about the registry
// (settings, proposals and votes), every record that `by` and `key` of these lead
// to, down to entry 0, and the did records of all who signed any of them, since a
// later one may say from when on keys are not to be believed. Whoever may know of
// any version gets the records of all: without one of them the others prove nothing.
func (r *Registry) Bundle(ctx context.Context, v Judged) ([]BundleItem, error) {
	if !v.decided || !v.Decision.Known {
		return nil, unknownVersion(v.Kind, v.Name, v.Version.Version)
	}
	if v.Source != particle.SourceHosted {
		return nil, fmt.Errorf("%w: nobody here published %s; what was seen of it UpstreamBundle proves", ErrNotFound, whatOf(v.Source, v.Version))
	}
	kind, name := v.Kind, v.Name
	subject, err := record.ArtifactSubject(kind, name)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return r.bundleAbout(ctx, subject.Thing())
}

// bundle is a proof bundle being gathered.
type bundle struct {
	registry *Registry
	size     int64
	items    map[record.ID]BundleItem
	// signers are the did:web signers met; true: their did records are in.
	signers map[did.DID]bool
	// room is how many bytes of index files may yet be added.
	room int64
}

func anyType(record.Type) bool { return true }

// history adds the records about thing that are of the types wanted.
func (b *bundle) history(ctx context.Context, thing string, wanted func(record.Type) bool) error {
	rows, err := b.registry.Catalog.StateHistory(ctx, state.HeadKey(thing), b.size)
	if err != nil {
		return err
	}
	for _, row := range rows {
		head, err := state.DecodeHead(row.Value)
		if err != nil {
			return err
		}
		if !wanted(head.Type) {
			continue
		}
		if err := b.collect(ctx, head.Record); err != nil {
			return err
		}
	}
	return nil
}

// changesOfKeys adds the did records of every signer, and of theirs in turn.
func (b *bundle) changesOfKeys(ctx context.Context) error {
	for {
		var todo []did.DID
		for d, done := range b.signers {
			if !done {
				todo = append(todo, d)
			}
		}
		if len(todo) == 0 {
			return nil
		}
		for _, d := range todo {
			b.signers[d] = true
			err := b.history(ctx, record.MemberSubject(d).Thing(), func(t record.Type) bool { return t == record.TypeDID })
			if err != nil {
				return err
			}
		}
	}
}

// signed notes that d signed something in the bundle.
func (b *bundle) signed(d did.DID) {
	if d.Method() == "web" && !b.signers[d] {
		b.signers[d] = false
	}
}

func sorted(items map[record.ID]BundleItem) []BundleItem {
	list := make([]BundleItem, 0, len(items))
	for _, item := range items {
		list = append(list, item)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Index < list[j].Index })
	return list
}

// collect adds the record id and what it leads to. The log orders every record
// after those it cites, so this ends.
func (b *bundle) collect(ctx context.Context, id record.ID) error {
	if _, have := b.items[id]; have || id == "" {
		return nil
	}
	if len(b.items) >= mostInBundle {
		return fmt.Errorf("%w: its history has more than %d records; use the log itself (`log check --full`)", ErrRequest, mostInBundle)
	}
	stored, err := b.registry.storedRecord(ctx, id)
	if err != nil {
		return err
	}
	item := BundleItem{Index: stored.Index, Envelope: stored.Record.Envelope(), Attachments: [][]byte{}}
	header := stored.Record.Header()
	b.signed(header.Signer.DID)
	cited := []record.ID{header.By, header.Key}
	for _, attachment := range append(stored.Record.Attachments(), stored.Document) {
		if attachment.IsZero() {
			continue
		}
		raw, ok, err := b.attached(ctx, stored.Record, attachment)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		item.Attachments = append(item.Attachments, raw)
		if own, ok := stored.Record.Body().(*record.Own); ok && own.Intent != nil && *own.Intent == attachment {
			intent, err := record.Parse(raw)
			if err != nil {
				return err
			}
			b.signed(intent.Header().Signer.DID)
			cited = append(cited, intent.Header().By, intent.Header().Key)
		}
	}
	b.items[id] = item
	for _, next := range cited {
		if err := b.collect(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

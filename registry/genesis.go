package registry

import (
	"bytes"
	"context"
	"fmt"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// genesisEntries is how many entries a log begins with: the registry's own
// record and the first admin's.
const genesisEntries = 2

// NeedsGenesis reports whether the log's first two entries are still to be
// written: the catalog has fewer, and blob storage no more than it. A catalog
// that is empty beside a stored log, or what is left of one, is not a first
// start but ErrBehind.
func NeedsGenesis(ctx context.Context, c Config) (bool, error) {
	head, err := c.Catalog.Head(ctx)
	if err != nil || head >= genesisEntries {
		return false, err
	}
	last, err := lastKey(ctx, c.Blobs, translog.EntryPrefix, "", translog.ParseEntryKey)
	if err != nil {
		return false, err
	}
	size, err := lastKey(ctx, c.Blobs, translog.CheckpointPrefix, "", translog.ParseCheckpointKey)
	if err != nil {
		return false, err
	}
	if last >= head || size > head {
		return false, fmt.Errorf("%w (catalog: %d entries; blob storage: checkpoint of %d, entry %d)", ErrBehind, head, size, last)
	}
	return true, nil
}

// Genesis writes entry 0, the registry's own record, and entry 1, the first
// admin's member record (FORMATS §4), in one transaction. One that was
// interrupted is completed by calling it again. admin is a did:key's.
func Genesis(ctx context.Context, c Config, admin did.Signer) error {
	r, err := prepare(ctx, c)
	if err != nil {
		return err
	}
	r.origin = c.Keys.DID()
	if admin.KeyID().DID.Method() != "key" {
		return fmt.Errorf("%w: the first admin is a did:key", ErrRequest)
	}
	settings, document, err := r.firstSettings(admin.KeyID().DID)
	if err != nil {
		return err
	}
	err = c.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		refusal, err := r.genesis(ctx, tx, settings, document, admin)
		if err == nil {
			err = refusal // half a genesis is none
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set up the registry: %w", err)
	}
	return nil
}

// firstSettings are the shipped ones (docs/ARCHITECTURE.md lists them).
func (r *Registry) firstSettings(admin did.DID) (*record.Registry, []byte, error) {
	settings := &record.Registry{
		DID: r.origin, LogKeys: []string{r.Keys.logs[0].multikey}, IndexURLs: []string{r.IndexURL()},
		Admins: []did.DID{admin}, AdminThreshold: 1, ReleaseK: 2,
		TierDefault:          record.TierDefault{CoreStakeholder: record.Allow, Collaborator: record.Deny, Guest: record.Deny},
		DependencyRegistries: []string{}, PrivateNames: []string{},
	}
	document, err := r.Keys.document()
	if err != nil {
		return nil, nil, err
	}
	if document != nil {
		id := storage.CIDOf(document)
		settings.DIDDocument = &id
	}
	return settings, document, nil
}

func (r *Registry) genesis(ctx context.Context, tx *catalog.Tx, settings *record.Registry, document []byte, admin did.Signer) (refusal, err error) {
	now, err := r.entryTime(ctx, tx)
	if err != nil {
		return nil, err
	}
	header := record.Header{Registry: r.origin, IssuedAt: now, Expires: now.Add(recordValidity)}
	head, err := tx.Head(ctx)
	if err != nil {
		return nil, err
	}
	if head == 0 {
		first, err := record.Sign(record.Draft{Subject: record.RegistrySubject(), Header: header, Body: settings}, r.Keys.Signer())
		if err != nil {
			return nil, err
		}
		attachments := state.Attachments{}
		if document != nil {
			attachments[*settings.DIDDocument] = document
		}
		if refusal, err := r.storeAndApply(ctx, tx, &submission{record: first, attachments: attachments}); refusal != nil || err != nil {
			return refusal, err
		}
		header.By = first.ID()
	} else {
		row, err := tx.Entry(ctx, 0)
		if err != nil {
			return nil, err
		}
		header.By = record.ID(row.RecordID)
	}
	member, err := record.Sign(record.Draft{
		Subject: record.MemberSubject(admin.KeyID().DID), Header: header,
		Body: &record.Member{
			Roles: []string{state.RolePublisher, state.RoleGrantor, state.RoleReviewer, state.RoleAuditor},
			Tier:  particle.TierCoreStakeholder, StakeholderAddrs: []string{},
		},
	}, admin)
	if err != nil {
		return nil, err
	}
	return r.storeAndApply(ctx, tx, &submission{record: member, attachments: state.Attachments{}})
}

// storeAndApply makes blobs durable and applies in tx.
func (r *Registry) storeAndApply(ctx context.Context, tx *catalog.Tx, s *submission) (refusal, err error) {
	blobs := [][]byte{s.record.Envelope()}
	for _, raw := range s.attachments {
		blobs = append(blobs, raw)
	}
	for _, raw := range blobs {
		if err := r.Blobs.Put(ctx, storage.CIDOf(raw), int64(len(raw)), bytes.NewReader(raw)); err != nil {
			return nil, err
		}
	}
	now, err := r.entryTime(ctx, tx)
	if err != nil {
		return nil, err
	}
	return r.applyOne(ctx, tx, s, now)
}

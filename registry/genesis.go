package registry

import (
	"context"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// genesisEntries is how many entries a log begins with: the registry's own
// record and the first admin's.
const genesisEntries = 2

// Begun returns how many of the log's first two entries the catalog has, where
// blob storage has no more of the log. A catalog that is empty beside a stored log,
// or what is left of one, is not a first start but ErrBehind. Others may write
// meanwhile: what they have stored they had committed, so the catalog is asked again.
func Begun(ctx context.Context, c Config) (entries int64, err error) {
	if head, err := c.Catalog.Head(ctx); err != nil || head >= genesisEntries {
		return genesisEntries, err
	}
	entries, err = notBehind(ctx, c, 0)
	return min(entries, genesisEntries), err
}

// Genesis is Begin by an admin whose key is at hand: both entries.
func Genesis(ctx context.Context, c Config, admin did.Signer) error {
	entries, err := Begin(ctx, c, admin.KeyID().DID, admin)
	if err == nil && entries < genesisEntries {
		err = fmt.Errorf("set up the registry: %w: it was begun for another admin than %s", ErrRequest, admin.KeyID().DID)
	}
	return err
}

// Begin writes what there is not yet of the log's first two entries (FORMATS §4), in
// one transaction, and returns how many there are then. Entry 0 is the registry's own
// record, which names admin, a did:key, as the first admin (asked for then only); entry 1 is the member
// record of the admin whom entry 0 names, signed by theirs of held. Where that is
// not held the log begins with entry 0 alone, and the admin sends entry 1. Several
// processes may call it at once: one log begins.
func Begin(ctx context.Context, c Config, admin did.DID, held ...did.Signer) (entries int64, err error) {
	r, err := prepare(ctx, c)
	if err != nil {
		return 0, err
	}
	r.origin = c.Keys.DID()
	settings, document, err := r.firstSettings(admin)
	if err != nil {
		return 0, err
	}
	err = c.Catalog.Update(ctx, func(tx *catalog.Tx) error { // from the start, however often
		if entries, err = tx.Head(ctx); err != nil || entries >= genesisEntries {
			return err
		}
		if entries == 0 {
			if admin.Method() != "key" {
				return fmt.Errorf("%w: the first admin is a did:key", ErrRequest)
			}
			if err := r.enterFirst(ctx, tx, settings, document); err != nil {
				return err
			}
			entries++
		}
		entered, err := r.enterAdmin(ctx, tx, held)
		if entered {
			entries++
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("set up the registry: %w", err)
	}
	return entries, nil
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

// enterFirst enters the registry's own record.
func (r *Registry) enterFirst(ctx context.Context, tx *catalog.Tx, settings *record.Registry, document []byte) error {
	header, err := r.genesisHeader(ctx, tx)
	if err != nil {
		return err
	}
	first, err := record.Sign(record.Draft{Subject: record.RegistrySubject(), Header: header, Body: settings}, r.Keys.Signer())
	if err != nil {
		return err
	}
	attachments := state.Attachments{}
	if document != nil {
		attachments[*settings.DIDDocument] = document
	}
	return r.storeAndApply(ctx, tx, &submission{record: first, attachments: attachments})
}

// enterAdmin enters the member record of the admin whom entry 0 names, if held has its key.
func (r *Registry) enterAdmin(ctx context.Context, tx *catalog.Tx, held []did.Signer) (entered bool, err error) {
	settings, _, err := state.SettingsOf(r.viewAt(ctx, &tx.Reader, maxIndex))
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(held, func(s did.Signer) bool { return slices.Contains(settings.Admins, s.KeyID().DID) })
	if i < 0 {
		return false, nil
	}
	header, err := r.genesisHeader(ctx, tx)
	if err != nil {
		return false, err
	}
	row, err := tx.Entry(ctx, 0)
	if err != nil {
		return false, err
	}
	header.By = record.ID(row.RecordID)
	member, err := record.Sign(record.Draft{Subject: record.MemberSubject(held[i].KeyID().DID), Header: header, Body: record.FirstMember()}, held[i])
	if err != nil {
		return false, err
	}
	return true, r.storeAndApply(ctx, tx, &submission{record: member, attachments: state.Attachments{}})
}

func (r *Registry) genesisHeader(ctx context.Context, tx *catalog.Tx) (record.Header, error) {
	now, err := r.entryTime(ctx, tx)
	return record.Header{Registry: r.origin, IssuedAt: now, Expires: now.Add(recordValidity)}, err
}

// storeAndApply makes s durable and enters it in tx; half a genesis is none, so a
// refusal is an error here.
func (r *Registry) storeAndApply(ctx context.Context, tx *catalog.Tx, s *submission) error {
	if err := r.store(ctx, s); err != nil {
		return err
	}
	if err := r.applyBatch(ctx, tx, []*submission{s}, false); err != nil {
		return err
	}
	return s.refusal
}

package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// ErrNothingDisowned: a word about a theft would leave all that was signed as believed as it was.
var ErrNothingDisowned = errors.New("--compromised-since would disown nothing")

// mostTenures bounds the records about one member that are looked through.
const mostTenures = 1000

// tenure is the time for which a document of a did:web member was in force.
type tenure struct {
	cid      storage.CID
	document *did.Document
	// from is the log index of the record that put it in force, to that of the one
	// that put the next there, math.MaxInt64 for the document in force.
	from, to int64
	// compromised is the lowest index from which on the keys before it were called
	// compromised, nil if they never were.
	compromised *int64
}

// says reports whether it was said of the keys before t that they are compromised
// since the index; nil asks for nothing.
func (t tenure) says(since *int64) bool {
	return since == nil || t.compromised != nil && *t.compromised <= *since
}

// tenures lists the documents of the did:web member d, the one in force last. Each
// record is what it is by its identity; where they stand in the log, and that the
// first is the last one about d, is the registry's word. ErrNotMember.
func (r *Registry) tenures(ctx context.Context, d did.DID) ([]tenure, error) {
	subject := record.MemberSubject(d)
	h, err := r.Heads(ctx, subject)
	if err != nil {
		return nil, err
	}
	var list []tenure // the latest first
	count := 0
	for id := h.Prev; id != ""; count++ {
		rec, index, err := r.Record(ctx, string(id))
		if err != nil {
			return nil, err
		}
		if n := len(list); rec.Subject() != subject || n > 0 && index >= list[n-1].from || count == mostTenures {
			return nil, fmt.Errorf("%w: the records about %s do not lead to the first, or are more than %d", ErrAnswer, d, mostTenures)
		}
		list = withRecord(list, rec, index)
		id = rec.Header().Prev
		if len(list) > 0 && list[len(list)-1].document == nil {
			last := &list[len(list)-1]
			raw, err := r.Attachment(ctx, string(rec.ID()), last.cid)
			if err != nil {
				return nil, err
			}
			if last.document, err = did.ParseDocument(raw); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no record brings a document of %s", ErrNotMember, d)
	}
	slices.Reverse(list)
	return list, nil
}

// withRecord adds what rec, which comes before all in list, says of the documents.
func withRecord(list []tenure, rec *record.Record, index int64) []tenure {
	named := rec.Attachments()
	if len(named) == 0 {
		return list
	}
	n := len(list)
	if n > 0 && list[n-1].cid == named[0] { // it stayed in force
		list[n-1].from = index
	} else {
		to := int64(math.MaxInt64)
		if n > 0 {
			to = list[n-1].from
		}
		list = append(list, tenure{cid: named[0], from: index, to: to})
	}
	last := &list[len(list)-1]
	if body, ok := rec.Body().(*record.DIDChange); ok && body.CompromisedSince != nil && !last.says(body.CompromisedSince) {
		last.compromised = body.CompromisedSince
	}
	return list
}

// disown says in update what a did record with document and compromised_since
// since does: ErrNothingDisowned if that is nothing.
func (r *Registry) disown(ctx context.Context, update *DIDUpdate, document []byte, since int64) error {
	list, err := r.tenures(ctx, update.DID)
	if err != nil {
		return err
	}
	next, err := did.ParseDocument(document)
	if err != nil {
		return err
	}
	if last := len(list) - 1; list[last].cid == update.Document {
		update.Repeated = true
		list = list[:last]
	}
	update.Disowned, update.Kept = disowned(list, next, since)
	if len(update.Disowned) > 0 {
		return nil
	}
	if len(update.Kept) > 0 {
		return fmt.Errorf("%w: the document holds every key of %s from before that could sign at log index %d or later; give one without the stolen key (`aln-registry key rotate` makes another)", ErrNothingDisowned, update.DID, since)
	}
	return fmt.Errorf("%w: no key of %s that the document does not hold could sign at log index %d or later", ErrNothingDisowned, update.DID, since)
}

// disowned are the keys that could sign from the log index since on, split by
// whether next holds them, as Multikeys.
func disowned(list []tenure, next *did.Document, since int64) (gone, kept []string) {
	gone, kept = []string{}, []string{}
	for _, t := range list {
		if t.to <= since {
			continue
		}
		for _, key := range t.document.PublicKeys() {
			into := &gone
			if next.Holds(key) {
				into = &kept
			}
			if name := key.Multikey(); !slices.Contains(*into, name) {
				*into = append(*into, name)
			}
		}
	}
	return gone, kept
}

package client

import (
	"context"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Settings are those in force.
type Settings struct {
	// Record is the registry record that put them in force, DocumentRecord the
	// one that brought the registry's DID document ("" for did:key).
	Record         record.ID        `json:"record"`
	DocumentRecord record.ID        `json:"document_record"`
	Settings       *record.Registry `json:"settings"`
}

// Settings asks for the settings in force, as the registry tells them; not proved.
func (r *Registry) Settings(ctx context.Context) (Settings, error) {
	var s Settings
	if err := r.Bare().readJSON(ctx, "/v1/settings", maxAnswer, &s); err != nil {
		return Settings{}, err
	}
	if s.Settings == nil || s.Settings.DID != r.pin.Origin {
		return Settings{}, fmt.Errorf("%w: asked %s for its settings, got another's", ErrAnswer, r.pin.Origin)
	}
	return s, nil
}

// Proposal are settings that wait for the votes of admins.
type Proposal struct {
	Record    record.ID        `json:"record"`
	Proposer  did.DID          `json:"proposer"`
	Approvals []did.DID        `json:"approvals"`
	Needed    int              `json:"needed"`
	Settings  *record.Registry `json:"settings"`
}

// Proposals lists what waits for votes, as the registry tells it.
func (r *Registry) Proposals(ctx context.Context) ([]Proposal, error) {
	var answer struct {
		Proposals []Proposal `json:"proposals"`
	}
	if err := r.Bare().readJSON(ctx, "/v1/proposals", maxBundle, &answer); err != nil {
		return nil, err
	}
	for _, p := range answer.Proposals {
		if p.Settings == nil {
			return nil, fmt.Errorf("%w: a proposal without settings", ErrAnswer)
		}
	}
	return answer.Proposals, nil
}

// settingsRecord fetches the registry record id: what it says follows from its
// identity, whoever hands it out.
func (r *Registry) settingsRecord(ctx context.Context, id record.ID) (*record.Record, *record.Registry, error) {
	rec, _, err := r.Record(ctx, string(id))
	if err != nil {
		return nil, nil, err
	}
	body, ok := rec.Body().(*record.Registry)
	if !ok {
		return nil, nil, fmt.Errorf("%w: the record %s is not of settings but a %s record", ErrAnswer, id, rec.Type())
	}
	return rec, body, nil
}

// ChangeSettings signs the settings in force as change alters them, and submits
// them: with an admin_threshold above 1 that is a proposal. A document replaces
// the registry's own, nil leaves it. What is altered is read from the very record
// that the new one cites, so that a registry cannot slip anything in. It returns
// the settings before and after. Errors: those of SignAndSubmit; change's own.
func (r *Registry) ChangeSettings(ctx context.Context, document []byte, change func(*record.Registry) error) (before, after *record.Registry, done Submitted, err error) {
	h, err := r.Heads(ctx, record.RegistrySubject())
	if err != nil {
		return nil, nil, done, err
	}
	if h.By == "" {
		return nil, nil, done, r.notEntitled(h, record.RegistrySubject())
	}
	if _, before, err = r.settingsRecord(ctx, h.By); err != nil {
		return nil, nil, done, err
	}
	next := cloneSettings(before)
	if err := change(next); err != nil {
		return before, nil, done, err
	}
	attachments, err := r.settingsDocument(ctx, h.By, next, document)
	if err != nil {
		return before, nil, done, err
	}
	draft := Draft{Subject: record.RegistrySubject(), Body: next, Attachments: attachments}
	rec, err := r.sign(h, draft, recordValidity)
	if err != nil {
		return before, next, done, err
	}
	done, err = r.Submit(ctx, rec, attachments)
	return before, next, done, err
}

// settingsDocument names document in next, or fetches the one that it names
// already: the record brings it along either way.
func (r *Registry) settingsDocument(ctx context.Context, inForce record.ID, next *record.Registry, document []byte) ([][]byte, error) {
	switch {
	case document != nil:
		if err := checkDocument(document, next.DID); err != nil {
			return nil, err
		}
		id := storage.CIDOf(document)
		next.DIDDocument = &id
	case next.DIDDocument == nil:
		return nil, nil
	default:
		var err error
		if document, err = r.Attachment(ctx, string(inForce), *next.DIDDocument); err != nil {
			return nil, err
		}
	}
	return [][]byte{document}, nil
}

// checkDocument demands that raw is the DID document of d.
func checkDocument(raw []byte, d did.DID) error {
	document, err := did.ParseDocument(raw)
	if err != nil {
		return err
	}
	if document.ID() != d {
		return fmt.Errorf("%w: it is of %s, not %s", did.ErrDocument, document.ID(), d)
	}
	return nil
}

func cloneSettings(s *record.Registry) *record.Registry {
	c := *s
	c.LogKeys, c.IndexURLs, c.Admins = slices.Clone(s.LogKeys), slices.Clone(s.IndexURLs), slices.Clone(s.Admins)
	c.DependencyRegistries, c.PrivateNames = slices.Clone(s.DependencyRegistries), slices.Clone(s.PrivateNames)
	return &c
}

// Vote is an admin's, on proposed settings.
type Vote struct {
	Submitted
	// Before are the settings in force when it was cast, Proposed what it is on.
	Before, Proposed *record.Registry
	// Enacted: the proposed settings are in force now.
	Enacted bool
	// Unsure is why Enacted could not be asked for, nil where it was.
	Unsure error
}

// Approve signs and submits a vote on the proposal id; reject ends it. show is
// called with the settings in force and those proposed, both by the identity of
// their records, before anything is signed; its error ends it. Of a vote that was
// entered there is no error, whatever cannot be asked for after it.
func (r *Registry) Approve(ctx context.Context, id record.ID, reject bool, reason string, show func(before, proposed *record.Registry) error) (Vote, error) {
	h, err := r.Heads(ctx, record.RegistrySubject())
	if err != nil {
		return Vote{}, err
	}
	if h.By == "" {
		return Vote{}, r.notEntitled(h, record.RegistrySubject())
	}
	var v Vote
	if _, v.Before, err = r.settingsRecord(ctx, h.By); err != nil {
		return Vote{}, err
	}
	if _, v.Proposed, err = r.settingsRecord(ctx, id); err != nil {
		return Vote{}, err
	}
	if err := show(v.Before, v.Proposed); err != nil {
		return v, err
	}
	body := &record.Approve{Record: id, Verdict: record.VerdictApprove, Reason: reason}
	if reject {
		body.Verdict = record.VerdictReject
	}
	rec, err := r.sign(h, Draft{Subject: record.RegistrySubject(), Body: body}, recordValidity)
	if err != nil {
		return v, err
	}
	if v.Submitted, err = r.Submit(ctx, rec, nil); err != nil || reject {
		return v, err
	}
	var in Settings
	in, v.Unsure = r.Settings(ctx)
	v.Enacted = in.Record == id
	return v, nil
}

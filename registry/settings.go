package registry

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// mostProposals bounds a listing; closed ones count too, since state keeps them.
// proposalsPage is how many are read at once.
const (
	mostProposals = 100_000
	proposalsPage = 500
)

// OpenProposals lists the proposals of settings that still wait for votes, in no
// order that matters; those that other settings have voided are left out.
func (r *Registry) OpenProposals(ctx context.Context) ([]state.Proposal, error) {
	prefix, at, inForce := state.ProposalPrefix(), r.Size(), r.Settings().Record
	from, end := prefix, catalog.PrefixEnd(prefix)
	var open []state.Proposal
	for {
		rows, err := r.Catalog.StateRange(ctx, from, end, at, proposalsPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			p, err := state.DecodeProposal(row.Value)
			if err != nil {
				return nil, err
			}
			if p.Open && p.Base == inForce {
				open = append(open, p)
			}
		}
		if len(rows) < proposalsPage {
			return open, nil
		}
		from = rows[len(rows)-1].Key + "\x01"
	}
}

// checkOwnDocument refuses settings with a DID document of this registry that
// does not hold the key it signs with, in every relationship: it could not change
// owners for cargo any more, and nobody could tell its sessions.
func (r *Registry) checkOwnDocument(rec *record.Record, attachments state.Attachments) error {
	body, ok := rec.Body().(*record.Registry)
	if !ok || body.DIDDocument == nil {
		return nil
	}
	raw, ok := attachments[*body.DIDDocument]
	if !ok {
		return nil // Apply says so
	}
	return r.Keys.checkDocument(raw)
}

// checkDocument is ErrRequest for a document of this registry without its key.
func (k Keys) checkDocument(raw []byte) error {
	document, err := did.ParseDocument(raw)
	if err == nil {
		err = k.in(document)
	}
	if err != nil {
		return fmt.Errorf("%w: %v", ErrRequest, err)
	}
	return nil
}

// checkOwn refuses what would put settings in force under which this server
// could not sign: log_keys whose first it does not hold, or, also by a vote on what
// was proposed long ago, a DID document without its key; and those under which
// clients would let nobody log in to it (checkIndexURLs).
func (r *Registry) checkOwn(ctx context.Context, before state.Store, changes []state.Change, attachments state.Attachments) (refusal, err error) {
	settings, ok, err := state.SettingsIn(changes)
	if err != nil || !ok {
		return nil, err
	}
	if _, err := r.Keys.signers(settings, r.Clock()); err != nil {
		return fmt.Errorf("%w: the first of log_keys must be a key that this server holds; its operator makes one with `aln-registry log new-key`, then starts it again; if it did print this one, restart the server first and type this again", ErrRequest), nil
	}
	if refusal, err := r.checkIndexURLs(before, settings.IndexURLs); refusal != nil || err != nil {
		return refusal, err
	}
	if settings.DIDDocument == nil {
		return nil, nil
	}
	raw, ok := attachments[*settings.DIDDocument]
	if !ok {
		if raw, err = readBlob(ctx, r.Blobs, *settings.DIDDocument, maxAttachment); err != nil {
			return fmt.Errorf("%w: the DID document of these settings: %v", ErrUnavailable, err), nil
		}
	}
	return r.Keys.checkDocument(raw), nil
}

// checkIndexURLs refuses to put index URLs in force that are none, or that leave
// out the one that this server is reached by. What the settings name already may
// stay, and a server that they do not name is not held to it: how else would it be
// mended?
func (r *Registry) checkIndexURLs(before state.Store, next []string) (refusal, err error) {
	inForce, ok, err := state.SettingsOf(before)
	if err != nil || !ok { // entry 0 names what this server is started with
		return nil, err
	}
	for _, v := range next {
		if !slices.Contains(inForce.IndexURLs, v) && !isIndexURL(v) {
			return fmt.Errorf("%w: index_urls: %.200q is not an index URL; write it like sparse+https://host/index/", ErrRequest, v), nil
		}
	}
	if own := r.IndexURL(); slices.Contains(inForce.IndexURLs, own) && !slices.Contains(next, own) {
		return fmt.Errorf("%w: index_urls must go on naming %s: this server is reached by it, and login there would be refused; restart it with --public-url of another URL first", ErrRequest, own), nil
	}
	return nil, nil
}

// isIndexURL reports whether v has the form of sparse+https://host/index/.
func isIndexURL(v string) bool {
	base, sparse := strings.CutPrefix(v, "sparse+")
	u, err := url.Parse(base)
	return err == nil && sparse && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && strings.HasSuffix(u.Path, "/index/")
}

// checkOwnKey refuses to run a did:web registry with a key that its document in
// force does not hold.
func (r *Registry) checkOwnKey(ctx context.Context) error {
	id := r.Settings().DIDDocument
	if id == nil {
		return nil
	}
	document, err := r.document(ctx, *id)
	if err == nil {
		err = r.Keys.in(document)
	}
	if err != nil {
		return fmt.Errorf("the DID document %s of this registry: %w; put the key file back whose key it holds", id, err)
	}
	return nil
}

// in demands that document holds the registry's key, for every use.
func (k Keys) in(document *did.Document) error {
	for _, use := range []did.Relationship{did.Authentication, did.AssertionMethod, did.CapabilityInvocation} {
		if key, err := did.ResolveKey(k.id, use, document); err != nil || key != k.key.Public() {
			return fmt.Errorf("it must hold the key that this registry signs with, %s (%s), for %s", k.id, k.key.Public(), use)
		}
	}
	return nil
}

// IsAdmin reports whether d is an admin by the settings in force.
func (r *Registry) IsAdmin(d did.DID) bool { return slices.Contains(r.Settings().Admins, d) }

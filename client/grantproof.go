package client

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// prove holds the record that puts g in force against the log: it stands there with
// all that it rests on, down to the pinned entry 0, each signed by who was entitled;
// and of a grant that only admins make, the issuer is one by the settings in force.
// Otherwise a finding says what does not hold. That nothing was left out, such as a
// revocation, it does not prove. The error is of a registry that shows no proof.
func (r *Registry) prove(ctx context.Context, g Grant) (finding Finding, bad bool, err error) {
	v, err := r.Bare().View(ctx)
	if err != nil {
		return Finding{}, false, err
	}
	in, verdict, err := r.client.inForce(ctx, v.shown, v.past, v.consistency)
	if err != nil {
		return Finding{}, false, err
	}
	gathered := gathering{registry: v.registry, records: map[record.ID]BundleRecord{}, asked: map[did.DID]bool{}}
	rec, err := gathered.grant(ctx, v.shown, g)
	if err != nil {
		return Finding{}, false, err
	}
	items, err := v.items(gathered.sorted())
	if err != nil {
		return Finding{}, false, err
	}
	verdict = verify.Authority(rec.ID(), verify.Evidence{Checkpoint: v.note, Consistency: v.consistency, Items: items}, r.client.believed(v.past))
	r.client.keepConflict(ctx, v.past, &verdict)
	if verdict.OK() {
		verdict, err = v.advance(ctx, verdict)
	}
	if err != nil {
		return Finding{}, false, err
	}
	const mend = "do not build, and have `aln-registry log check --full` say what else does not hold"
	byAdmin := g.Env.Subject == g.Env.Issuer || isSettings(gathered.records[rec.Header().By])
	switch check, failed := verdict.Failure(); {
	case failed:
		return found(ClauseGrant, mend, "the log does not prove that somebody entitled put the grant %s in force (%s): %s", g.CID, check.Name, check.Detail), true, nil
	case byAdmin && !slices.Contains(in.Settings.Admins, g.Env.Issuer):
		return found(ClauseGrant, mend, "the grant %s is one that only an admin makes, and its issuer %s is none by the settings in force", g.CID, g.Env.Issuer), true, nil
	}
	return Finding{}, false, nil
}

func isSettings(r BundleRecord) bool {
	rec, err := record.Parse(r.Envelope)
	return err == nil && rec.Type() == record.TypeRegistry
}

// gathering collects a record with all that it rests on.
type gathering struct {
	registry *Registry
	records  map[record.ID]BundleRecord
	// asked are the signers of whose documents the records are in.
	asked map[did.DID]bool
}

// grant collects the settings, and the record of g with what that rests on.
func (c *gathering) grant(ctx context.Context, s shown, g Grant) (*record.Record, error) {
	settings, err := s.settingsRecords(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range settings {
		rec, err := record.Parse(one.Envelope)
		if err != nil {
			return nil, fmt.Errorf("%w: the record at index %d: %w", ErrAnswer, one.Index, err)
		}
		c.records[rec.ID()] = one
	}
	rec, index, err := c.registry.Record(ctx, string(g.Record))
	if err != nil {
		return nil, err
	}
	if err := g.agrees(rec, c.registry.pin.Origin); err != nil {
		return nil, err
	}
	c.records[rec.ID()] = BundleRecord{Index: index, Envelope: rec.Envelope(), Attachments: [][]byte{g.Raw}}
	return rec, c.follow(ctx, rec)
}

// add collects the record id, unless it is in.
func (c *gathering) add(ctx context.Context, id record.ID) error {
	if _, have := c.records[id]; have || id == "" {
		return nil
	}
	if len(c.records) >= maxBundleRecords {
		return fmt.Errorf("%w: a grant rests on more than %d records", ErrAnswer, maxBundleRecords)
	}
	rec, index, err := c.registry.Record(ctx, string(id))
	if err != nil {
		return err
	}
	one := BundleRecord{Index: index, Envelope: rec.Envelope()}
	for _, cid := range rec.Attachments() {
		blob, err := c.registry.Attachment(ctx, string(id), cid)
		if err != nil {
			return err
		}
		one.Attachments = append(one.Attachments, blob)
	}
	c.records[id] = one
	return c.follow(ctx, rec)
}

// follow collects what rec rests on; of a signer with a document also whatever was
// said about it since, as that may be that its keys were stolen.
func (c *gathering) follow(ctx context.Context, rec *record.Record) error {
	h := rec.Header()
	rests := []record.ID{h.By, h.Key}
	if rec.Subject().Member().Method() == "web" {
		rests = append(rests, h.Prev)
	}
	if d := h.Signer.DID; d.Method() == "web" && d != c.registry.pin.Origin && !c.asked[d] {
		c.asked[d] = true
		heads, err := c.registry.Heads(ctx, record.MemberSubject(d))
		if err != nil {
			return err
		}
		rests = append(rests, heads.Prev)
	}
	for _, id := range rests {
		if err := c.add(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (c *gathering) sorted() []BundleRecord {
	return slices.SortedFunc(maps.Values(c.records), func(a, b BundleRecord) int { return cmp.Compare(a.Index, b.Index) })
}

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// shown is a log at the checkpoint that a registry showed. Nothing of it is
// believed before package verify has judged the note: judge and inForce here, or the
// evidence for an artifact. There is no other way in this package from a note to
// something believed, so none can forget the signature, the pinned past or the age.
type shown struct {
	web web
	// as asks for what is not everybody's.
	as   *Registry
	note []byte
	// lag is how long servers that are behind this checkpoint are waited for.
	lag        *patience
	checkpoint translog.Checkpoint
	reader     *translog.TileReader
}

// show fetches the newest checkpoint. Its tiles can be read as long as ctx lives.
// Whose it is to be judged as, the caller adds.
func (w web) show(ctx context.Context, lag *patience) (shown, error) {
	note, err := w.checkpoint(ctx)
	if err != nil {
		return shown{}, err
	}
	cp, err := translog.Peek(note)
	if err != nil {
		return shown{}, fmt.Errorf("checkpoint of %s: %w", w.base, err)
	}
	return shown{web: w, note: note, lag: lag, checkpoint: cp, reader: translog.NewTileReader(ctx, cp, w.covered(lag))}, nil
}

// freshness is what the age of a checkpoint is held against: by this computer's
// own clock, uncorrected (verify.Freshness says why).
func (c *Client) freshness() verify.Freshness {
	return verify.Freshness{Now: c.web.now(), MaxAge: c.maxAge}
}

// believed returns what package verify starts from for a registry pinned as p;
// without a checkpoint for one that is met for the first time.
func (c *Client) believed(p Pin) verify.Pin {
	return verify.Pin{Origin: p.Origin, Entry0: p.Entry0, Checkpoint: p.Checkpoint, Keys: p.Keys, Freshness: c.freshness()}
}

// judge holds the checkpoint against pin, to whose checkpoint proof is its
// relation: the log's keys, the pinned past, its age. What contradicts that past is
// kept. Only of a verdict that is OK the note may be pinned, with the verdict's keys.
func (c *Client) judge(ctx context.Context, s shown, pin Pin, proof tlog.TreeProof) (translog.Opened, verify.Verdict, error) {
	items, err := s.keys(ctx)
	if err != nil {
		return translog.Opened{}, verify.Verdict{}, err
	}
	opened, verdict := verify.Checkpoint(s.note, proof, c.believed(pin), items[0], items[1:]...)
	c.keepConflict(ctx, pin, &verdict)
	return opened, verdict, nil
}

// relation is the proof that leads from the smaller to the larger one of the
// pinned checkpoint and this: computed from tiles that are verified against the
// larger one, so that where it does not lead there, nothing does. nil where there
// is nothing to prove, or this is the smaller one and nobody shows the tiles that
// the pinned one covers: package verify knows what that means.
func (s shown) relation(ctx context.Context, pinnedNote []byte) (tlog.TreeProof, error) {
	pinned, err := translog.Peek(pinnedNote)
	if err != nil || pinned.Size == 0 {
		return nil, nil // a pin without a checkpoint has nothing to extend
	}
	switch {
	case pinned.Size < s.checkpoint.Size:
		return translog.ConsistencyProof(pinned.Size, s.checkpoint.Size, s.reader)
	case pinned.Size > s.checkpoint.Size:
		before := translog.NewTileReader(ctx, pinned, s.web.covered(s.lag))
		proof, err := translog.ConsistencyProof(s.checkpoint.Size, pinned.Size, before)
		if err != nil {
			return nil, ctx.Err()
		}
		return proof, nil
	}
	return nil, nil
}

// inForce is judge for a member, and the settings that are in force by the rules of
// the registry's own records; an error where the verdict is not OK. Who answers can
// leave out the newest settings, if not those before them: so nobody is trusted for
// them alone (Registry.vouched).
func (c *Client) inForce(ctx context.Context, s shown, pin Pin, proof tlog.TreeProof) (verify.InForce, verify.Verdict, error) {
	items, err := s.settings(ctx)
	if err != nil {
		return verify.InForce{}, verify.Verdict{}, err
	}
	in, _, verdict := verify.Settings(s.note, proof, c.believed(pin), items[0], items[1:]...)
	c.keepConflict(ctx, pin, &verdict)
	return in, verdict, unproved(pin.URL, verdict)
}

// keys fetches what the log's keys follow from, those of it that the checkpoint
// covers: entry 0, which everybody may have while they are its keys; otherwise all
// settings since. ErrWithheld where these are not shown to us.
func (s shown) keys(ctx context.Context) ([]verify.Item, error) {
	records, err := s.web.logKeys(ctx, "")
	if statusOf(err) == http.StatusUnauthorized {
		return s.settings(ctx)
	}
	return s.proof(ctx, records, err)
}

// settings fetches every record about the registry's settings, which is for
// members. ErrWithheld.
func (s shown) settings(ctx context.Context) ([]verify.Item, error) {
	records, err := s.settingsRecords(ctx)
	if status := statusOf(err); status != 0 && status != http.StatusNotFound {
		return nil, fmt.Errorf("%w: %w", ErrWithheld, err)
	}
	return s.proof(ctx, records, err)
}

func (s shown) settingsRecords(ctx context.Context) (records []BundleRecord, err error) {
	err = s.as.asReader(ctx, func(token string) (err error) {
		records, err = s.web.logKeys(ctx, token)
		return err
	})
	return records, err
}

// proof makes of records, or of the err in place of them, what package verify judges by.
func (s shown) proof(ctx context.Context, records []BundleRecord, err error) ([]verify.Item, error) {
	if statusOf(err) == http.StatusNotFound { // a registry from before keys could be replaced
		first, err := s.entry0(ctx)
		return []verify.Item{first}, err
	}
	if err != nil {
		return nil, err
	}
	if len(records) == 0 || records[0].Index != 0 {
		return nil, fmt.Errorf("%w: %s proves its log's keys without entry 0", ErrAnswer, s.web.base)
	}
	return s.items(records)
}

// statusOf is the HTTP status of a refusal by the registry; 0: err is none.
func statusOf(err error) int {
	if refused := (*APIError)(nil); errors.As(err, &refused) {
		return refused.Status
	}
	return 0
}

// items adds entries and proofs to the records that the checkpoint covers; what
// was logged since is left out: all before stands without it.
func (s shown) items(records []BundleRecord) ([]verify.Item, error) {
	var items []verify.Item
	for _, r := range records {
		if r.Index >= s.checkpoint.Size {
			break
		}
		item, err := s.item(r)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

func (s shown) item(r BundleRecord) (verify.Item, error) {
	entry, err := s.reader.ReadEntry(r.Index)
	if err != nil {
		return verify.Item{}, err
	}
	proof, err := translog.InclusionProof(s.checkpoint.Size, r.Index, s.reader)
	if err != nil {
		return verify.Item{}, err
	}
	return verify.Item{Index: r.Index, Entry: entry, Envelope: r.Envelope, Attachments: r.Attachments, Proof: proof}, nil
}

// entry0 fetches the log's first entry with its public record and attachments.
func (s shown) entry0(ctx context.Context) (verify.Item, error) {
	line, err := s.reader.ReadEntry(0)
	if err != nil {
		return verify.Item{}, err
	}
	entry, err := translog.ParseEntry(line)
	if err != nil {
		return verify.Item{}, err
	}
	rec, _, err := s.web.record(ctx, entry.Record.String())
	if err != nil {
		return verify.Item{}, err
	}
	r := BundleRecord{Index: 0, Envelope: rec.Envelope()}
	if !entry.DIDDocument.IsZero() {
		document, err := s.web.attachment(ctx, entry.Record.String(), entry.DIDDocument)
		if err != nil {
			return verify.Item{}, err
		}
		r.Attachments = [][]byte{document}
	}
	return s.item(r)
}

// Unproved is a checkpoint that package verify refused, as an error.
type Unproved struct {
	URL     string
	Verdict verify.Verdict
}

// unproved returns verdict as an error; nil where it is OK.
func unproved(url string, verdict verify.Verdict) error {
	if verdict.OK() {
		return nil
	}
	return &Unproved{url, verdict}
}

// Error implements error.
func (e *Unproved) Error() string {
	check, _ := e.Verdict.Failure()
	return fmt.Sprintf("the log at %s is not believed (%s): %s", e.URL, check.Name, check.Detail)
}

// Is makes an Unproved what it is for callers that branch: ErrNotFresh, translog's
// ErrRollback or ErrConsistency; and ErrUntrusted in any case.
func (e *Unproved) Is(target error) bool {
	check, _ := e.Verdict.Failure()
	switch check.Name {
	case verify.CheckFreshness:
		return target == ErrNotFresh || target == ErrUntrusted
	case verify.CheckStale, verify.CheckRollback:
		return target == translog.ErrRollback || target == ErrUntrusted
	case verify.CheckFork:
		return target == translog.ErrConsistency || target == ErrUntrusted
	}
	return target == ErrUntrusted
}

// mostMeanwhile bounds how often a note is judged anew, since another process pinned
// something meanwhile.
const mostMeanwhile = 16

// pin writes p, of the checkpoint shown, that was judged good against the notes
// judged. What another process pinned meanwhile the checkpoint is held against too,
// so that of two that are shown different pasts at once, one finds it: *Unproved, and
// the contradiction is kept. That it is an older state of what is pinned now, and
// agrees with it, is no fault: the other process came later.
func (c *Client) pin(ctx context.Context, s shown, p Pin, judged [][]byte, write func(context.Context, Pin, ...[]byte) (Pin, error)) (Pin, error) {
	for range mostMeanwhile {
		now, err := write(ctx, p, judged...)
		if !errors.Is(err, ErrMeanwhile) {
			return now, err
		}
		proof, err := s.relation(ctx, now.Checkpoint)
		if err != nil {
			return Pin{}, err
		}
		_, verdict, err := c.judge(ctx, s, now, proof)
		if err != nil {
			return Pin{}, err
		}
		if check, _ := verdict.Failure(); !verdict.OK() && check.Name != verify.CheckStale {
			return Pin{}, unproved(now.URL, verdict)
		}
		judged = append(slices.Clip(judged), now.Checkpoint)
	}
	return Pin{}, fmt.Errorf("%w, again and again: %s", ErrMeanwhile, p.URL)
}

// advance pins the View's note, of which verdict is good, under every name of the
// registry. The verdict that it returns is another one where the note contradicts what
// another process, or one of those names, has seen.
func (v *View) advance(ctx context.Context, verdict verify.Verdict) (verify.Verdict, error) {
	c := v.registry.client
	pins, err := c.home.namesOf(v.past)
	if err != nil {
		return verdict, err
	}
	for _, pin := range pins {
		pin.Checkpoint, pin.Keys = v.note, verdict.Keys
		_, err := c.pin(ctx, v.shown, pin, [][]byte{v.past.Checkpoint}, c.home.advancePin)
		if refused := (*Unproved)(nil); errors.As(err, &refused) {
			return refused.Verdict, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return verdict, err
		}
	}
	v.judged.Store(true)
	return verdict, nil
}

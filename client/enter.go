package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// Entered is the outcome of a login.
type Entered struct {
	Pin Pin
	// Identity is whom the registry is asked as, nil for nobody; Made: it was made
	// for this, since there was none.
	Identity *Identity
	Made     bool
	// Refusal is why the registry gave no session; nil for a member.
	Refusal error
	// Adopted are the pins of other names of the registry that were made or changed,
	// Forgotten those that were removed, since its settings name them no more.
	Adopted, Forgotten []Pin
	// log is what was judged against the notes past, for the pins.
	log  shown
	past [][]byte
}

// Enter is the second half of a login: it asks the registry that was met for a
// session, and pins it. For a member it also finds the URLs by which the registry
// goes, and stops asking at those by which it goes no more: as the settings in
// force name them, replayed from the registry's own records, if the registry
// itself vouches for the URL that it was met at. Where there is no identity, nobody
// is asked for; makeIdentity makes the default one once all else is done.
//
// Nothing is pinned of a registry that is known by another URL and does not prove
// that it goes by this one too: anybody can show somebody else's log. Errors:
// ErrUntrusted, ErrChanged, those of a log that is not believed (*Unproved).
func (c *Client) Enter(ctx context.Context, met Login, makeIdentity bool) (Entered, error) {
	r, err := c.Registry(met.Pin)
	if err != nil {
		return Entered{}, err
	}
	r = r.Bare() // who the registry is does not hang on a grant
	if makeIdentity && r.identity == nil && met.Pin.Identity != DefaultIdentity {
		return Entered{}, fmt.Errorf("%w: %q, as which you asked %s before, is not in %s; name another with --identity", ErrNoIdentity, met.Pin.Identity, met.Pin.URL, c.home.path)
	}
	e := Entered{Pin: met.Pin, Identity: r.identity, log: met.log, past: met.past}
	session, refusal := r.challenge(ctx)
	e.Refusal = refusal
	if refusal == nil {
		err = e.agree(ctx, r, session)
	} else {
		err = r.refuseRelay(refusal)
	}
	if err != nil {
		_, dropped := r.DropSession(ctx)
		return Entered{}, errors.Join(err, dropped)
	}
	if err := e.pin(ctx, c); err != nil || e.Identity != nil || !makeIdentity {
		return e, err
	}
	made, err := c.home.CreateIdentity("", c.rand)
	if err != nil {
		return e, err
	}
	e.Identity, e.Made = &made, true
	r.identity = &made
	_, e.Refusal = r.challenge(ctx) // it says what to tell an admin
	return e, nil
}

// agree fills in, for a member, what of the registry's names is to be done.
func (e *Entered) agree(ctx context.Context, r *Registry, session challenged) error {
	past := r.pin // what Meet found good, which is not on disk yet
	if len(past.Checkpoint) == 0 {
		var err error
		if past, err = r.client.home.seen(r.pin); err != nil {
			return err
		}
	}
	v, err := r.viewSince(ctx, past)
	if err != nil {
		return err
	}
	in, verdict, err := r.client.inForce(ctx, v.shown, past, v.consistency)
	if err != nil {
		return err
	}
	if e.Adopted, e.Forgotten, err = r.names(in); err != nil {
		return err
	}
	if err := r.vouched(session, in); err != nil {
		return err
	}
	e.log, e.past = v.shown, append(slices.Clip(e.past), past.Checkpoint)
	e.Pin.Checkpoint, e.Pin.Keys = v.note, verdict.Keys
	for i := range e.Adopted {
		e.Adopted[i].Checkpoint, e.Adopted[i].Keys = v.note, verdict.Keys
	}
	return nil
}

// pin writes what was found out.
func (e *Entered) pin(ctx context.Context, c *Client) (err error) {
	if e.Pin, err = c.pin(ctx, e.log, e.Pin, e.past, c.home.SavePin); err != nil {
		return err
	}
	for i := range e.Adopted {
		if e.Adopted[i], err = c.pin(ctx, e.log, e.Adopted[i], e.past, c.home.SavePin); err != nil {
			return err
		}
	}
	if err := c.home.alike(ctx, e.Pin); err != nil {
		return err
	}
	for _, old := range e.Forgotten {
		if err := c.home.RemovePin(ctx, old); err != nil {
			return err
		}
		if r, err := c.Registry(old); err == nil {
			if _, err := r.DropSession(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuseRelay refuses a URL that shows the log of a registry known by another one,
// but gives no session.
func (r *Registry) refuseRelay(refusal error) error {
	known, err := r.client.home.KnownElsewhere(r.pin)
	if err != nil || known == "" {
		return err
	}
	return fmt.Errorf("%s shows the log of the registry that you know as %s, but gives you no session, so that nothing proves that it is: %w", r.pin.URL, known, refusal)
}

// challenged is a session that was asked for with a word made up for it.
type challenged struct {
	Session
	word record.ID
}

// challenge asks for a session that repeats a word nobody could know before: as
// the record that the session is for, of which there is none, so that it can change
// nothing. Only an assertion that our key signed, for r's own URL, holds that word.
func (r *Registry) challenge(ctx context.Context) (challenged, error) {
	if r.identity == nil {
		return challenged{}, r.nobody()
	}
	raw := make([]byte, 32)
	if _, err := io.ReadFull(r.client.rand, raw); err != nil {
		return challenged{}, fmt.Errorf("ask %s to prove itself: %w", r.pin.URL, err)
	}
	word := record.ID(hex.EncodeToString(raw))
	session, err := r.mint(ctx, particle.ScopeRead, word, 0)
	return challenged{session, word}, err
}

// vouched checks that the session was signed by the registry's own key, in answer
// to our challenge. A registry gives none for an assertion that names another URL
// than its own of today, so who shows its log at a URL of theirs, with settings that
// named it once, cannot have one; and an older session does not hold the word.
func (r *Registry) vouched(s challenged, in verify.InForce) error {
	token, err := policy.ParseSession(s.Token)
	if err != nil {
		return r.notVouched(err)
	}
	if token.KeyID.DID != r.pin.Origin {
		return r.notVouched(fmt.Errorf("%s gave it", token.KeyID.DID))
	}
	key, err := did.ResolveKey(token.KeyID, did.AssertionMethod, in.Document)
	if err == nil {
		err = token.Verify(key)
	}
	if err != nil {
		return r.notVouched(err)
	}
	claims := token.Claims
	if claims.Issuer != r.pin.Origin || claims.Audience != r.pin.Origin || claims.Subject != r.identity.DID() || claims.Rec != string(s.word) {
		return r.notVouched(errors.New("it was given for something else"))
	}
	return nil
}

func (r *Registry) notVouched(err error) error {
	return fmt.Errorf("%w: the session that %s gives you is not from the registry %s whose log it shows: %w", ErrUntrusted, r.pin.URL, r.pin.Origin, err)
}

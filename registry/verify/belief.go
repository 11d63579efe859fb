package verify

import (
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// belief is what is believed of a judged trail in view of compromised keys (FORMATS
// §3). What those signed stays in force, as state.Apply has it, and has to be cited;
// belief only takes away from what the judge found sound, it never adds.
//
// Settings are believed if as many admins of the settings believed before them
// signed them, with keys that are believed, as those demand: their proposer and
// who voted for it. Whatever else an admin does is believed of an admin of the
// settings believed. So fewer than those demand can put nothing in the place of
// settings, however many more sign with keys or by settings that are not believed;
// and as many as they demand always can, as long as the settings in force let them.
type belief struct {
	trail *trail
	// windows are those in which keys are not believed, by their DIDs.
	windows map[did.DID][]window
	// signature and authority say of lines why they are not believed.
	signature, authority map[*line]error
	// settings are the last that are believed.
	settings *line
	// votes are those that settings rest on: the ones believed, or all where the
	// settings are not, since these votes, or some, are why.
	votes map[*line][]*line
	// documents holds, by the line to be cited as key, the first believed one that
	// brought the document: another where the cited one is not believed.
	documents map[*line]*line
	// instead is what a line rests on in place of one that it has to cite but that is not believed.
	instead map[citation]*line
}

// citation is that of the line cited by the line by.
type citation struct{ by, cited *line }

// believeBut goes through the sound lines in log order, given the windows.
func (t *trail) believeBut(windows map[did.DID][]window) *belief {
	b := &belief{
		trail: t, windows: windows, signature: map[*line]error{}, authority: map[*line]error{},
		votes: map[*line][]*line{}, documents: map[*line]*line{}, instead: map[citation]*line{},
	}
	for _, l := range t.lines {
		if l.sound() {
			b.line(l)
		}
	}
	return b
}

// in reports whether the sound line l is believed.
func (b *belief) in(l *line) bool { return b.signature[l] == nil && b.authority[l] == nil }

func (b *belief) line(l *line) {
	if err := b.checkSigner(l, l.record, l.key); err != nil {
		b.signature[l] = err
	}
	if err := b.checkAuthority(l); err != nil {
		b.authority[l] = err
	}
	if l.enacts != nil {
		b.enact(l, l.enacts)
	} else if l.vouches != nil && b.in(l) {
		b.vouch(l.vouches, l)
	}
}

// vouch enters that the believed line by brought the document that is cited by the line cited.
func (b *belief) vouch(cited, by *line) {
	if b.documents[cited] == nil {
		b.documents[cited] = by
	}
}

// enact looks at settings that the line at put in force.
func (b *belief) enact(at *line, p *proposal) {
	// A vote that is believed is that of an admin by the settings believed.
	votes := slices.DeleteFunc(slices.Clone(p.votes), func(l *line) bool { return !b.in(l) })
	if !b.in(p.line) || b.settings != nil && 1+len(votes) < b.body().AdminThreshold {
		b.votes[p.line] = p.votes
		return
	}
	b.settings, b.votes[p.line] = p.line, votes
	if at.vouches != nil {
		b.vouch(at.vouches, p.line)
	}
}

func (b *belief) body() *record.Registry { return b.settings.record.Body().(*record.Registry) }

// checkSigner judges the key by which r, of the line l, was found to hold.
func (b *belief) checkSigner(l *line, r *record.Record, key did.PublicKey) error {
	h := r.Header()
	for _, w := range b.windows[h.Signer.DID] {
		if w.disbelieves(key, l.item.Index) && !w.spares(r, l.item.Index) {
			return fmt.Errorf("signed with a key of %s that counts as compromised from entry %d on, as entry %d says", h.Signer.DID, w.from, w.to)
		}
	}
	if h.Key == "" {
		return nil
	}
	cited := b.trail.byID[h.Key]
	stands := b.documents[cited]
	if stands == nil {
		return fmt.Errorf("the DID document it is signed by was put in force by %s, which is not believed: %w", cited, b.why(cited))
	}
	b.rest(l, cited, stands)
	return nil
}

// checkAuthority judges what entitles l's signer, or the signer of its own-intent.
func (b *belief) checkAuthority(l *line) error {
	if l.intent != nil {
		if err := b.checkSigner(l, l.intent, l.intentKey); err != nil {
			return fmt.Errorf("own-intent: %w", err)
		}
	}
	by := b.trail.byID[l.record.Header().By]
	switch {
	case by == nil || l.admin == "" && b.in(by): // entry 0 rests on nothing
		return nil
	case l.admin != "" && slices.Contains(b.body().Admins, l.admin):
		b.rest(l, by, b.settings)
		return nil
	case l.admin != "":
		return fmt.Errorf("it rests on %s, which is not believed: %w; and by %s, the last settings that are, %s is no admin", by, b.why(by), b.settings, l.admin)
	case l.record.Type() == record.TypeDID && b.documents[by] != nil:
		b.rest(l, by, b.documents[by])
		return nil
	}
	return fmt.Errorf("it rests on %s, which is not believed: %w", by, b.why(by))
}

// rest notes what l rests on in place of the line cited, where that is another.
func (b *belief) rest(l, cited, stands *line) {
	if cited != stands {
		b.instead[citation{l, cited}] = stands
	}
}

// errTooFew is why settings are not believed that an admin proposed who is.
var errTooFew = errors.New("too few of those who put it in force signed with keys that are believed and as admins who are; the others by compromised keys")

func (b *belief) why(l *line) error {
	if err := errors.Join(b.signature[l], b.authority[l]); err != nil {
		return err
	}
	return errTooFew
}

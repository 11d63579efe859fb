package verify

import (
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// MaxCompromises is the largest number of did records with compromised_since in a
// piece of evidence: what is believed is worked out anew for each.
const MaxCompromises = 1 << 10

// window is what a did record with compromised_since says: of the keys of the
// DID's earlier documents, those that the new one does not hold are not believed
// in what they signed from the index from on, up to that record itself.
type window struct {
	from, to int64
	kept     *did.Document
}

func (w window) disbelieves(key did.PublicKey, index int64) bool {
	return w.from <= index && index < w.to && !w.kept.Holds(key)
}

// believe finds out which windows count, and what is believed in view of them.
// The latest is looked at first, each by what is believed in view of those after
// it: what a thief said does not count once a later record disowns the key that
// it was said with, or the settings that made the thief an admin.
func (t *trail) believe() *belief {
	windows := map[did.DID][]window{}
	believed := t.believeBut(windows)
	for _, l := range slices.Backward(t.disowning()) {
		if !believed.in(l) {
			continue
		}
		body := l.record.Body().(*record.DIDChange)
		kept, err := t.document(body.DIDDocument)
		if err != nil { // a sound line's can be read
			continue
		}
		d, w := l.record.Subject().Member(), window{*body.CompromisedSince, l.item.Index, kept}
		windows[d] = append(windows[d], w)
		if t.touches(d, w) {
			believed = t.believeBut(windows)
		}
	}
	return believed
}

// disowning are the sound did records with compromised_since. Of too many none is
// taken, and the evidence fails.
func (t *trail) disowning() (list []*line) {
	for _, l := range t.lines {
		if body, ok := l.record.Body().(*record.DIDChange); ok && l.sound() && body.CompromisedSince != nil {
			list = append(list, l)
		}
	}
	if len(list) > MaxCompromises {
		t.fail(fmt.Errorf("%d records call keys compromised, at most %d are judged at once", len(list), MaxCompromises))
		return nil
	}
	return list
}

// touches reports whether anything in the trail is believed less for w, a window of d's.
func (t *trail) touches(d did.DID, w window) bool {
	return slices.ContainsFunc(t.lines, func(l *line) bool {
		return l.sound() && (l.record.Header().Signer.DID == d && w.disbelieves(l.key, l.item.Index) ||
			l.intent != nil && l.intent.Header().Signer.DID == d && w.disbelieves(l.intentKey, l.item.Index))
	})
}

// disown marks the lines that hold but are not believed.
func (t *trail) disown() {
	for _, l := range t.lines {
		if l.sound() && !t.belief.in(l) {
			l.disowned = true
			l.signature, l.authority = t.belief.signature[l], t.belief.authority[l]
		}
	}
}

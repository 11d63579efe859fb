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
// DID's earlier documents, those that its own does not hold are not believed in
// what they signed from the index from on, up to that record itself.
type window struct {
	from, to int64
	kept     *did.Document
	// root is the index of the document's root.
	root int64
}

func (w window) disbelieves(key did.PublicKey, index int64) bool {
	return w.from <= index && index < w.to && !w.kept.Holds(key)
}

// spares reports whether r, at the index, is one of the changes of keys that the
// word about the theft rests on itself: were they disowned, it would undo itself,
// and all that is signed since. The theft may be noticed after the stolen key has
// signed its replacement. Who speaks vouches for the document that came of it, not
// for what else the changes say (believe).
func (w window) spares(r *record.Record, index int64) bool {
	return index >= w.root && r.Type() == record.TypeDID && r.Subject().Member() == r.Header().Signer.DID
}

// believe finds out which windows count, and what is believed in view of them.
// The latest is looked at first, each by what is believed in view of those after
// it: what a thief said does not count once a later record disowns the key that
// it was said with, or the settings that made the thief an admin.
func (t *trail) believe() *belief {
	windows := map[did.DID][]window{}
	believed := t.believeBut(windows)
	for _, l := range slices.Backward(t.disowning()) {
		disowned := func(w window) bool { return w.disbelieves(l.key, l.item.Index) } // spared, too
		if !believed.in(l) || slices.ContainsFunc(windows[l.record.Header().Signer.DID], disowned) {
			continue
		}
		body := l.record.Body().(*record.DIDChange)
		kept, err := t.document(body.DIDDocument)
		if err != nil { // a sound line's can be read
			continue
		}
		d, w := l.record.Subject().Member(), window{*body.CompromisedSince, l.item.Index, kept, l.root.item.Index}
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

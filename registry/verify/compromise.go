package verify

import (
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

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

// compromised collects the windows of all sound did records, the latest first:
// what a thief said with a key that a later record disowns does not count.
func (t *trail) compromised() map[did.DID][]window {
	found := map[did.DID][]window{}
	for _, l := range slices.Backward(t.lines) {
		body, ok := l.record.Body().(*record.DIDChange)
		if !ok || !l.sound() || body.CompromisedSince == nil {
			continue
		}
		kept, err := t.document(body.DIDDocument)
		if err != nil { // a sound line's can be read
			continue
		}
		disowned := func(w window) bool { return w.disbelieves(l.key, l.item.Index) }
		if slices.ContainsFunc(found[l.record.Header().Signer.DID], disowned) {
			continue
		}
		d := l.record.Subject().Member()
		found[d] = append(found[d], window{*body.CompromisedSince, l.item.Index, kept})
	}
	return found
}

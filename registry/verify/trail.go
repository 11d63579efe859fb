package verify

import (
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// line is one item, read.
type line struct {
	item   Item
	entry  translog.Entry
	record *record.Record
	// intent is the own-intent that an own record names, nil if there is none.
	intent *record.Record
	// key is the one that the signature holds by.
	key did.PublicKey
	// intentKey is that of the own-intent.
	intentKey did.PublicKey
	// admin is who did it as an admin by the settings in force; empty if nobody.
	admin did.DID
	// enacts is what l put in force: settings that need no vote, or those it voted for.
	enacts *proposal
	// vouches is the line to be cited as key by signatures by the document that l brings.
	vouches *line
	// root of a sound did record is that of the document it brings.
	root *line
	// signature and authority are why the record does not hold, nil if it does.
	signature, authority error
	// disowned: it held until a later did record called keys compromised that it rests on.
	disowned bool
}

func (l *line) String() string {
	return fmt.Sprintf("entry %d (%s of %s)", l.item.Index, l.record.Type(), l.record.Subject())
}

func short(l *line) string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("entry %d", l.item.Index)
}

func (l *line) sound() bool { return l.signature == nil && l.authority == nil }

// cites lists the records that l's authority rests on directly.
func (l *line) cites() []record.ID {
	h := l.record.Header()
	list := []record.ID{h.By, h.Key}
	if l.intent != nil {
		list = append(list, l.intent.Header().By, l.intent.Header().Key)
	}
	return list
}

// trail is evidence, read: the lines in ascending order of index.
type trail struct {
	origin did.DID
	lines  []*line
	// council is what was in force after the last line, belief what of it is believed, once judged.
	council *council
	belief  *belief
	// byID holds the first line of each record.
	byID        map[record.ID]*line
	attachments map[storage.CID][]byte
	documents   map[storage.CID]*did.Document
	// problem is the first item that could not be read, duplicate the first
	// record that stands in two entries.
	problem, duplicate error
}

// readTrail reads the items. Those that are not what they must be are left out
// and named by problem.
func readTrail(items []Item, origin did.DID) *trail {
	t := &trail{
		origin: origin, byID: map[record.ID]*line{},
		attachments: map[storage.CID][]byte{}, documents: map[storage.CID]*did.Document{},
	}
	if len(items) > MaxItems {
		t.problem = fmt.Errorf("%d entries given, at most %d are judged at once", len(items), MaxItems)
		return t
	}
	last := int64(-1)
	for i, item := range items {
		if item.Index <= last {
			t.fail(fmt.Errorf("item %d is of entry %d, after entry %d: each entry may be given once, in order", i, item.Index, last))
			continue
		}
		last = item.Index
		if err := t.readItem(item); err != nil {
			t.fail(fmt.Errorf("entry %d: %w", item.Index, err))
		}
	}
	for _, l := range t.lines {
		t.readIntent(l)
	}
	t.fail(t.checkAttachments())
	return t
}

func (t *trail) fail(err error) {
	if t.problem == nil {
		t.problem = err
	}
}

func (t *trail) readItem(item Item) error {
	entry, err := translog.ParseEntry(item.Entry)
	if err != nil {
		return err
	}
	if cid := storage.CIDOf(item.Envelope); cid != entry.Record {
		return fmt.Errorf("the record given is %s, the entry names %s", cid, entry.Record)
	}
	r, err := record.Parse(item.Envelope)
	if err != nil {
		return err
	}
	if len(item.Attachments) > MaxAttachments {
		return fmt.Errorf("%d attachments, at most %d", len(item.Attachments), MaxAttachments)
	}
	for _, a := range item.Attachments {
		if most := max(r.MostAttached(), maxAttachment); int64(len(a)) > most {
			return fmt.Errorf("an attachment of %d bytes, at most %d", len(a), most)
		}
		t.attachments[storage.CIDOf(a)] = a
	}
	l := &line{item: item, entry: entry, record: r}
	t.lines = append(t.lines, l)
	if first, again := t.byID[r.ID()]; again {
		if t.duplicate == nil {
			t.duplicate = fmt.Errorf("%s repeats the record of entry %d", l, first.item.Index)
		}
		return nil
	}
	t.byID[r.ID()] = l
	return nil
}

// readIntent finds the own-intent of an own record. What is wrong with it shows
// when authority is judged.
func (t *trail) readIntent(l *line) {
	body, ok := l.record.Body().(*record.Own)
	if !ok || body.Intent == nil {
		return
	}
	if intent, err := record.Parse(t.attachments[*body.Intent]); err == nil {
		l.intent = intent
	}
}

// checkAttachments refuses attachments that nothing given names: they would
// pass unread, whatever they are.
func (t *trail) checkAttachments() error {
	named := map[storage.CID]bool{}
	for _, l := range t.lines {
		named[l.entry.DIDDocument] = true
		if id := namedDocument(l.record); id != nil {
			named[*id] = true
		}
		if body, ok := l.record.Body().(*record.Own); ok && body.Intent != nil {
			named[*body.Intent] = true
		}
		if l.record.Type() == record.TypeGrant {
			named[l.record.Subject().Grant()] = true
		}
		named[l.record.Snapshot()] = true
	}
	for _, l := range t.lines {
		for _, a := range l.item.Attachments {
			if id := storage.CIDOf(a); !named[id] {
				return fmt.Errorf("entry %d comes with the attachment %s, which no entry or record names", l.item.Index, id)
			}
		}
	}
	return nil
}

// namedDocument returns the DID document that r brings, nil if none.
func namedDocument(r *record.Record) *storage.CID {
	switch body := r.Body().(type) {
	case *record.Registry:
		return body.DIDDocument
	case *record.Member:
		return body.DIDDocument
	case *record.DIDChange:
		return &body.DIDDocument
	}
	return nil
}

// find returns the first publish record about exactly subject.
func (t *trail) find(subject record.Subject) (*line, error) {
	if t.problem != nil {
		return nil, t.problem
	}
	if subject.Version() == "" {
		return nil, fmt.Errorf("%q is not a version of an artifact", subject)
	}
	var other *line
	for _, l := range t.lines {
		if l.record.Type() != record.TypePublish {
			continue
		}
		if l.record.Subject().String() == subject.String() {
			return l, nil
		}
		other = l
	}
	if other != nil {
		return nil, fmt.Errorf("no record publishes %s; the evidence has one about %s", subject, other.record.Subject())
	}
	return nil, fmt.Errorf("no record publishes %s", subject)
}

// restsOn returns l and all lines that its authority rests on, down to entry 0.
func (t *trail) restsOn(l *line) []*line {
	found := map[*line]bool{l: true}
	queue := []*line{l}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		below := slices.Clone(t.belief.votes[next])
		for _, id := range next.cites() {
			cited := t.byID[id]
			if stands := t.belief.instead[citation{next, cited}]; stands != nil {
				cited = stands
			}
			below = append(below, cited)
		}
		for _, l := range below {
			if l != nil && !found[l] {
				found[l] = true
				queue = append(queue, l)
			}
		}
	}
	var chain []*line
	for _, l := range slices.Backward(t.lines) { // the record first: its own fault is named before those below
		if found[l] {
			chain = append(chain, l)
		}
	}
	return chain
}

func (t *trail) checkInclusion(cp translog.Checkpoint) error {
	if t.problem != nil {
		return t.problem
	}
	for _, l := range t.lines {
		leaf := translog.LeafHash(l.item.Entry)
		if err := translog.CheckInclusion(l.item.Proof, cp.Size, cp.Root, l.item.Index, leaf); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return nil
}

// document returns the parsed DID document id.
func (t *trail) document(id storage.CID) (*did.Document, error) {
	if doc := t.documents[id]; doc != nil {
		return doc, nil
	}
	raw, ok := t.attachments[id]
	if !ok {
		return nil, fmt.Errorf("the DID document %s is missing from the evidence", id)
	}
	doc, err := did.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("DID document %s: %w", id, err)
	}
	t.documents[id] = doc
	return doc, nil
}

var errNoEntry0 = errors.New("entry 0 is missing from the evidence")

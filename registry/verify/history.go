package verify

import (
	"errors"
	"fmt"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// history is one name's state after the records about it so far.
type history struct {
	trail  *trail
	length int
	last   *line
	name   string
	// owners holds the record that made each one; removed, by which line they ceased to be.
	owners   map[did.DID]record.ID
	removed  map[did.DID]*line
	versions map[string]*version
	// intent is the own-intent that the last record cites.
	intent *storage.CID
}

// version is keyed by its spelling without build metadata, as versions are unique.
type version struct {
	spelled string
	yanked  bool
}

func (h *history) yanked(s record.Subject) bool {
	v := h.versions[versionKey(s)]
	return v != nil && v.yanked
}

func versionKey(s record.Subject) string {
	v, err := cargo.ParseVersion(s.Version())
	if err != nil {
		return s.Version()
	}
	return v.WithoutBuild()
}

// checkHistory goes through the records about subject's name. The history
// returned is as far as it holds.
func (t *trail) checkHistory(subject record.Subject) (*history, error) {
	h := &history{
		trail: t, owners: map[did.DID]record.ID{}, removed: map[did.DID]*line{}, versions: map[string]*version{},
	}
	if t.duplicate != nil {
		return h, t.duplicate
	}
	if err := t.checkTimes(); err != nil {
		return h, err
	}
	for _, l := range t.lines {
		if l.record.Subject().Thing() != subject.Thing() {
			continue
		}
		if err := h.apply(l); err != nil {
			return h, fmt.Errorf("%s: %w", l, err)
		}
	}
	return h, nil
}

// checkTimes demands what FORMATS §4 says of entries: time never runs back.
func (t *trail) checkTimes() error {
	for i, l := range t.lines {
		if i > 0 && l.entry.Time.Before(t.lines[i-1].entry.Time) {
			return fmt.Errorf("%s has a time before that of entry %d", l, t.lines[i-1].item.Index)
		}
	}
	return nil
}

func (h *history) apply(l *line) error {
	if err := checkFollows(l, h.last); err != nil {
		return err
	}
	// The history's own reasons come first: that somebody was removed says more
	// than that a citation fails.
	err := h.applyBody(l)
	// What a compromised key did stays done; only nothing that rests on it is proved.
	if err == nil && !l.disowned {
		err = errors.Join(l.signature, l.authority)
	}
	h.length++
	h.last = l
	return err
}

// checkFollows demands that l's prev names last, the record about the same thing before it;
// nil: there is none.
func checkFollows(l, last *line) error {
	prev := l.record.Header().Prev
	switch {
	case last == nil && prev != "":
		return errors.New("prev names a record before it, which is missing from the evidence")
	case last != nil && prev != last.record.ID():
		return fmt.Errorf("prev does not name %s, the record before it: it was signed for an earlier state, or one is missing", last)
	}
	return nil
}

func (h *history) applyBody(l *line) error {
	subject := l.record.Subject()
	if h.last == nil {
		h.name = subject.Name()
	} else if subject.Name() != h.name {
		return fmt.Errorf("the name was first published as %q", h.name)
	}
	intent := h.intent
	h.intent = nil
	switch body := l.record.Body().(type) {
	case *record.Publish:
		return h.applyPublish(l)
	case *record.Yank:
		return h.applyYank(l, body)
	case *record.Own:
		h.intent = body.Intent
		return h.applyOwn(l, body, intent)
	}
	return fmt.Errorf("a %s record is not about an artifact", l.record.Type())
}

func (h *history) applyPublish(l *line) error {
	subject, header := l.record.Subject(), l.record.Header()
	if h.last == nil {
		h.owners[header.Signer.DID] = l.record.ID()
	} else if err := h.checkOwner(header.Signer.DID, header.By); err != nil {
		return err
	}
	key := versionKey(subject)
	if old := h.versions[key]; old != nil {
		return fmt.Errorf("version %s had been published before, as %s", subject.Version(), old.spelled)
	}
	h.versions[key] = &version{spelled: subject.Version()}
	return nil
}

func (h *history) applyYank(l *line, body *record.Yank) error {
	subject := l.record.Subject()
	if err := h.checkOwnerOrAdmin(l.record.Header()); err != nil {
		return err
	}
	v := h.versions[versionKey(subject)]
	switch {
	case v == nil || v.spelled != subject.Version():
		return fmt.Errorf("there is no version %s", subject.Version())
	case v.yanked == body.Yanked:
		return fmt.Errorf("yanked was %t already", v.yanked)
	}
	v.yanked = body.Yanked
	return nil
}

func (h *history) applyOwn(l *line, body *record.Own, lastIntent *storage.CID) error {
	header := l.record.Header()
	if body.Intent != nil {
		if l.intent == nil {
			return errors.New("its own-intent is missing from the evidence or malformed")
		}
		header = l.intent.Header()
		if header.Prev != l.record.Header().Prev && (lastIntent == nil || *lastIntent != *body.Intent) {
			return errors.New("owners or versions were changed after its own-intent was signed")
		}
	}
	if err := h.checkOwnerOrAdmin(header); err != nil {
		return err
	}
	for _, d := range body.Remove {
		if h.owners[d] == "" {
			return fmt.Errorf("it removes %s, who is no owner", d)
		}
		delete(h.owners, d)
		h.removed[d] = l
	}
	for _, d := range body.Add {
		if h.owners[d] != "" {
			return fmt.Errorf("it adds %s, who is an owner already", d)
		}
		h.owners[d] = l.record.ID()
	}
	if len(h.owners) == 0 {
		return errors.New("it leaves no owner")
	}
	return nil
}

// checkOwnerOrAdmin leaves those who cite a registry record to authority, which
// has judged whether they are admins.
func (h *history) checkOwnerOrAdmin(header record.Header) error {
	if by := h.trail.byID[header.By]; by != nil && by.record.Type() == record.TypeRegistry {
		return nil
	}
	return h.checkOwner(header.Signer.DID, header.By)
}

func (h *history) checkOwner(d did.DID, by record.ID) error {
	made, owner := h.owners[d]
	switch {
	case owner && made == by:
		return nil
	case owner:
		return fmt.Errorf("by does not name the record that made %s an owner", d)
	case h.removed[d] != nil:
		return fmt.Errorf("%s is no owner any more: removed by %s", d, h.removed[d])
	}
	return fmt.Errorf("%s is not an owner", d)
}

package verify

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// Checkpoint judges a signed note of the pinned log: entry 0 (with its
// inclusion proof in the note's tree), the log's signature, and consistency
// with the pinned checkpoint. later are the records about the registry's settings
// since, and what they rest on, in ascending order: from them follow the log keys
// in force. The Opened is good only if
// the verdict is OK; the caller then pins the note.
func Checkpoint(note []byte, consistency tlog.TreeProof, pin Pin, entry0 Item, later ...Item) (translog.Opened, Verdict) {
	v := Verdict{Subject: string(pin.Origin), Index: -1}
	t := readTrail(append([]Item{entry0}, later...), pin.Origin)
	opened, ok := v.checkLog(t, note, consistency, pin)
	if !ok {
		v.skip(CheckInclusion)
		return translog.Opened{}, v
	}
	v.checkInclusion(t, opened)
	return opened, v
}

// checkLog makes the checks entry-0, checkpoint and consistency. ok is false
// when there is no checkpoint to prove anything against.
func (v *Verdict) checkLog(t *trail, note []byte, proof tlog.TreeProof, pin Pin) (opened translog.Opened, ok bool) {
	err := t.checkEntry0(pin)
	v.add(CheckEntry0, err, "signed by %s, as pinned", pin.Origin)
	if err != nil {
		v.skip(CheckCheckpoint, CheckConsistency)
		return translog.Opened{}, false
	}
	t.judge()
	opened, err = t.open(note, pin)
	v.add(CheckCheckpoint, err, "%d entries, signed by the log", opened.Size)
	if err != nil {
		v.skip(CheckConsistency)
		return translog.Opened{}, false
	}
	v.Size, v.CosignedAt, v.Keys = opened.Size, opened.CosignedAt, t.council.keys.Record
	v.checkConsistency(opened.Checkpoint, note, proof, pin)
	return opened, true
}

// checkEntry0 holds the first item to the pin: the rest of what entry 0 must be
// is judged as for every line.
func (t *trail) checkEntry0(pin Pin) error {
	if len(t.lines) == 0 || t.lines[0].item.Index != 0 {
		if t.problem != nil {
			return fmt.Errorf("%w: %w", errNoEntry0, t.problem)
		}
		return errNoEntry0
	}
	l := t.lines[0]
	if hash := translog.LeafHash(l.item.Entry); hash != pin.Entry0 {
		return fmt.Errorf("its hash is %s, pinned is %s: this is another log than the one you logged in to", hash, pin.Entry0)
	}
	j := newJudge(t)
	j.line(l)
	if l.signature != nil {
		return l.signature
	}
	return l.authority
}

// open verifies the note with the log keys of the settings in force at the end
// of what was given. That they are in the log is proved later; that admins
// signed them is known already. A registry that logged settings which nobody
// was entitled to is not believed at all; what was disowned later is passed over.
// Whoever holds a key that was replaced could leave that out, so the last change
// of keys that the pin knows must be among what was given.
func (t *trail) open(note []byte, pin Pin) (translog.Opened, error) {
	for _, l := range t.lines {
		if l.record.Subject() != record.RegistrySubject() || l.disowned {
			continue
		}
		if err := errors.Join(l.signature, l.authority); err != nil {
			return translog.Opened{}, fmt.Errorf("%s, which the log's keys follow from, does not hold: %w", l, err)
		}
	}
	if pin.Keys != "" && !t.council.inForce[pin.Keys] {
		return translog.Opened{}, fmt.Errorf("the registry record %s, which you have seen put other log keys in force, was left out: "+
			"somebody shows you the registry as it was before, perhaps with a stolen key", pin.Keys)
	}
	keys, err := did.Ed25519Keys(t.council.settings().LogKeys)
	if err != nil {
		return translog.Opened{}, fmt.Errorf("log keys of %s: %w", t.council.registry, err)
	}
	return translog.Open(note, string(t.origin), keys)
}

// checkConsistency compares with the pinned checkpoint. A contradiction keeps both notes.
func (v *Verdict) checkConsistency(newer translog.Checkpoint, note []byte, proof tlog.TreeProof, pin Pin) {
	if pin.Checkpoint == nil {
		v.add(CheckConsistency, nil, "first checkpoint seen of this log; nothing to compare with")
		return
	}
	older, err := parseNote(pin.Checkpoint)
	if err != nil {
		v.add(CheckConsistency, fmt.Errorf("the pinned checkpoint is unreadable: %w", err), "")
		return
	}
	name, err := compareCheckpoints(older, newer, proof)
	if name == CheckRollback || name == CheckFork {
		v.Conflict = &Conflict{Pinned: bytes.Clone(pin.Checkpoint), Offered: bytes.Clone(note)}
	}
	v.add(name, err, "extends the %d entries seen before", older.Size)
}

// compareCheckpoints returns the name of the check that decided, and why it failed.
func compareCheckpoints(older, newer translog.Checkpoint, proof tlog.TreeProof) (name string, err error) {
	if older == newer {
		return CheckConsistency, nil
	}
	err = translog.CheckConsistency(proof, older, newer)
	switch {
	case err == nil:
		return CheckConsistency, nil
	case errors.Is(err, translog.ErrRollback):
		return CheckRollback, fmt.Errorf("%w: entries that you have seen are gone; keep both notes", err)
	case errors.Is(err, translog.ErrConsistency) && len(proof) == 0 && newer.Size > older.Size:
		return CheckConsistency, fmt.Errorf("no proof leads from the %d entries seen before to these %d", older.Size, newer.Size)
	case errors.Is(err, translog.ErrConsistency):
		return CheckFork, fmt.Errorf("%w: the registry shows you another past than before, or a wrong proof of it; keep both notes", err)
	}
	return CheckConsistency, err
}

// parseNote reads the text of a note that was verified when it was pinned. Its
// signatures are not looked at again: the keys may have been rotated since.
func parseNote(note []byte) (translog.Checkpoint, error) {
	end := bytes.LastIndex(note, []byte("\n\n"))
	if end < 0 {
		return translog.Checkpoint{}, fmt.Errorf("%w: no signatures", translog.ErrCheckpoint)
	}
	return translog.ParseCheckpoint(note[:end+1])
}

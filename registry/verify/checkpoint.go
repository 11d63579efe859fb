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
// inclusion proof in the note's tree), the log's signature, consistency with the
// pinned checkpoint, and its age. later are the records about the registry's settings
// since, and what they rest on, in ascending order: from them follow the log keys
// in force. The Opened is good only if
// the verdict is OK; the caller then pins the note.
func Checkpoint(note []byte, consistency tlog.TreeProof, pin Pin, entry0 Item, later ...Item) (translog.Opened, Verdict) {
	_, opened, v := checkpoint(note, consistency, pin, append([]Item{entry0}, later...))
	return opened, v
}

// checkpoint is Checkpoint, with the trail that it went by, judged as far as it got.
func checkpoint(note []byte, consistency tlog.TreeProof, pin Pin, items []Item) (*trail, translog.Opened, Verdict) {
	v := Verdict{Subject: string(pin.Origin), Index: -1}
	t := readTrail(items, pin.Origin)
	opened, ok := v.checkLog(t, note, consistency, pin)
	if !ok {
		v.skip(CheckInclusion)
		return t, translog.Opened{}, v
	}
	v.checkInclusion(t, opened)
	return t, opened, v
}

// checkLog makes the checks entry-0, checkpoint, consistency and freshness: every
// checkpoint that is judged passes here. ok is false when there is no checkpoint
// to prove anything against.
func (v *Verdict) checkLog(t *trail, note []byte, proof tlog.TreeProof, pin Pin) (opened translog.Opened, ok bool) {
	err := t.checkEntry0(pin)
	v.add(CheckEntry0, err, "signed by %s, as pinned", pin.Origin)
	if err != nil {
		v.skip(CheckCheckpoint, CheckConsistency, CheckFreshness)
		return translog.Opened{}, false
	}
	t.judge()
	opened, err = t.open(note, pin)
	v.add(CheckCheckpoint, err, "%d entries, signed by the log", opened.Size)
	if err != nil {
		v.skip(CheckConsistency, CheckFreshness)
		return translog.Opened{}, false
	}
	v.Size, v.CosignedAt, v.Keys = opened.Size, opened.CosignedAt, t.council.keys.Record
	v.checkConsistency(t, opened, note, proof, pin)
	v.checkFreshness(pin.Freshness)
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
	keys, err := t.logKeys()
	if err != nil {
		return translog.Opened{}, err
	}
	opened, err := translog.Open(note, string(t.origin), keys)
	if errors.Is(err, translog.ErrSignature) {
		err = fmt.Errorf("%w: who answers has altered it or made it up, or holds a key that was replaced; it says nothing about the log, and is no evidence against it", err)
	}
	return opened, err
}

// logKeys are those in force. A key that nobody put first whom we believe proves
// nothing; nor does the one that it replaced, which may have been stolen.
func (t *trail) logKeys() ([]translog.VerifierKey, error) {
	in, believed := t.council.settings(), t.belief.body()
	if in.LogKeys[0] != believed.LogKeys[0] {
		return nil, fmt.Errorf("the log key in force, %s, rests on signatures by compromised keys: nothing that it signs is believed "+
			"before the admins by %s, the last settings that do not, put settings in force again (with the same log_keys, if the key is good)",
			in.LogKeys[0], t.belief.settings)
	}
	keys, err := did.Ed25519Keys(believed.LogKeys)
	if err != nil {
		return nil, fmt.Errorf("log keys of %s: %w", t.belief.settings, err)
	}
	return keys, nil
}

// allKeys are the log keys of all settings that were given.
func (t *trail) allKeys() (all []translog.VerifierKey) {
	for _, l := range t.lines {
		if body, ok := l.record.Body().(*record.Registry); ok && !l.disowned {
			if keys, err := did.Ed25519Keys(body.LogKeys); err == nil {
				all = append(all, keys...)
			}
		}
	}
	return all
}

// checkConsistency compares with the pinned checkpoint. A contradiction keeps both notes.
func (v *Verdict) checkConsistency(t *trail, opened translog.Opened, note []byte, proof tlog.TreeProof, pin Pin) {
	if pin.Checkpoint == nil {
		v.add(CheckConsistency, nil, "first checkpoint seen of this log; nothing to compare with")
		return
	}
	older, err := translog.Peek(pin.Checkpoint) // verified when it was pinned, perhaps by keys that have been replaced since
	if err != nil {
		v.add(CheckConsistency, fmt.Errorf("the pinned checkpoint is unreadable: %w", err), "")
		return
	}
	pinned := translog.Opened{Checkpoint: older, CosignedAt: translog.CosignedAt(pin.Checkpoint, string(t.origin), t.allKeys())}
	name, proven, err := compareCheckpoints(pinned, opened, proof)
	if name == CheckRollback || name == CheckFork {
		v.Conflict = &Conflict{Kind: name, Proven: proven, Pinned: bytes.Clone(pin.Checkpoint), Offered: bytes.Clone(note), Proof: proof}
	}
	v.add(name, err, "extends the %d entries seen before", older.Size)
}

// compareCheckpoints returns the name of the check that decided, why it failed,
// and whether that is the log's misbehaviour.
func compareCheckpoints(older, newer translog.Opened, proof tlog.TreeProof) (name string, proven bool, err error) {
	if older.Checkpoint == newer.Checkpoint {
		return CheckConsistency, false, nil
	}
	if newer.Size < older.Size {
		return compareSmaller(older, newer, proof)
	}
	err = translog.CheckConsistency(proof, older.Checkpoint, newer.Checkpoint)
	switch {
	case err == nil:
		return CheckConsistency, false, nil
	case errors.Is(err, translog.ErrConsistency) && len(proof) == 0 && newer.Size > older.Size:
		return CheckConsistency, false, fmt.Errorf("no proof leads from the %d entries seen before to these %d", older.Size, newer.Size)
	case errors.Is(err, translog.ErrConsistency) && newer.Size == older.Size:
		return CheckFork, true, fmt.Errorf("%w: the registry shows you another past than before; keep both notes", err)
	case errors.Is(err, translog.ErrConsistency):
		return CheckFork, false, fmt.Errorf("%w: the registry shows you another past than before, or a wrong proof of it; keep both notes", err)
	}
	return CheckConsistency, false, err
}

// compareSmaller judges a checkpoint that is smaller than the pinned one. It is
// refused in any case; what it says about the log depends:
//
//   - The log cosigned the smaller one after the larger one. A cosignature says that
//     at its time the log knew of no larger tree of its own (C2SP tlog-cosignature; the
//     server never signs otherwise), so entries were taken back: a rollback, and the
//     two notes alone prove it.
//   - The proof does not lead from the smaller tree to the pinned one: the log signed
//     two pasts, a fork; or the proof is wrong, which only who made it knows.
//   - The proof shows that the smaller tree is the beginning of the pinned one, and it
//     was cosigned no later: an honest note of the past. Whoever shows it, a mirror that
//     is behind or an attacker, did not need the log for it: stale, and no conflict.
//   - There is no proof: the registry (or what answers in its place) does not have, or
//     does not show, the tiles of the larger tree any more. That is how a log restored
//     from a backup looks, and also how a mirror does that stands still. Both notes are
//     a Conflict, since who has the whole log can decide, but not a proven one.
//
// Times of equal seconds are no later: two checkpoints may be signed in one second.
func compareSmaller(older, newer translog.Opened, proof tlog.TreeProof) (name string, proven bool, err error) {
	shrank := fmt.Errorf("%w: from %d to %d entries", translog.ErrRollback, older.Size, newer.Size)
	switch {
	case older.Origin != newer.Origin:
		return CheckConsistency, false, fmt.Errorf("%w: %q after %q", translog.ErrOrigin, newer.Origin, older.Origin)
	case !older.CosignedAt.IsZero() && newer.CosignedAt.After(older.CosignedAt):
		return CheckRollback, true, fmt.Errorf("%w, and the log vouched for the %d at %s, after it had vouched for the %d at %s: it took back entries that you have seen; keep both notes",
			shrank, newer.Size, stamp(newer.CosignedAt), older.Size, stamp(older.CosignedAt))
	case len(proof) > 0 && translog.CheckConsistency(proof, newer.Checkpoint, older.Checkpoint) != nil:
		return CheckFork, false, fmt.Errorf("%w, and they are not the beginning of those: the registry shows you another past than before, or a wrong proof of it; keep both notes", shrank)
	case len(proof) > 0:
		return CheckStale, false, fmt.Errorf("this is an older state of the log than you have seen, of %d entries instead of %d, and agrees with it: "+
			"a mirror that is behind, or somebody who hides what is new; ask again later, or another server of the registry", newer.Size, older.Size)
	}
	return CheckRollback, false, fmt.Errorf("%w, and nothing shows that these are the beginning of those: entries that you have seen are gone, "+
		"as after a backup was put back, or a mirror is behind; keep both notes", shrank)
}

// Package verify judges what a registry hands out without trusting it: from
// proof evidence to a verdict (docs/FORMATS.md §4). The command, sync and the
// pages share it.
//
// It is pure: no clock, no network, no files. What it starts from is the pin
// that `login` made: the registry's DID, the leaf hash of entry 0 and the last
// checkpoint verified; and the time, with how old a checkpoint may be. From there Artifact walks `by` and `key` of every record
// used down to entry 0; Upstream does so for what other registries were seen to have; Replay runs the whole log through state.Apply.
//
// Invariants: nothing in the evidence is believed before a check passed on it;
// what cannot be proved is a failure; a verdict that is OK names what was
// proved and no more. Evidence is a selection of the log, chosen by whoever
// sent it: that nothing was left out (a removed owner, a later yank) only
// Replay proves. No input makes it panic.
package verify

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// Bounds on evidence.
const (
	// MaxItems is the largest number of log entries judged at once.
	MaxItems = 1 << 16
	// MaxAttachments is the largest number of attachments of one item; each is
	// at most as long as a record or DID document may be, 64 KiB.
	MaxAttachments = 64

	maxAttachment = max(record.MaxEnvelope, did.MaxDocument)
)

// The names of checks, in the order in which a verdict lists them.
const (
	// CheckEntry0: the log begins with the pinned entry, signed by the registry's own DID.
	CheckEntry0 = "entry-0"
	// CheckCheckpoint: the checkpoint is signed by the first log key of the settings in
	// force, to which a chain of records leads from entry 0.
	CheckCheckpoint = "checkpoint"
	// CheckConsistency: the checkpoint extends the pinned one. Where it fails, its
	// name says how: CheckStale, CheckRollback, CheckFork, or this one when no proof was given.
	CheckConsistency = "consistency"
	// CheckStale: the log is smaller than it was, and proved to be what it was before:
	// an older state, no contradiction.
	CheckStale = "stale"
	// CheckRollback: the log is smaller than it was, and that is not proved.
	CheckRollback = "rollback"
	// CheckFork: the log is not proved to extend what was seen before.
	CheckFork = "fork"
	// CheckFreshness: the log's current key has cosigned the checkpoint not too long ago.
	CheckFreshness = "freshness"
	// CheckRecord: all records are well formed, and the one wanted is among them.
	CheckRecord = "record"
	// CheckBytes: the record's digest is that of the bytes in hand.
	CheckBytes = "bytes"
	// CheckSignature: the signatures of the record and of all it rests on hold.
	CheckSignature = "signature"
	// CheckAuthority: `by` and `key` lead down to entry 0, each step entitling the one above.
	CheckAuthority = "authority"
	// CheckInclusion: every entry given is in the checkpoint's tree.
	CheckInclusion = "inclusion"
	// CheckHistory: the records about the name follow each other, each by who was an owner then.
	CheckHistory = "history"
)

// Pin is what the verifier knows beforehand of the registry, and how old a state
// of it may be.
type Pin struct {
	// Origin is the DID of entry 0.
	Origin did.DID
	// Entry0 is the RFC 6962 leaf hash of entry 0.
	Entry0 tlog.Hash
	// Checkpoint is the last signed note verified; nil before the first.
	Checkpoint []byte
	// Keys is the registry record seen last to put other log keys in force (a
	// Verdict's Keys); empty for those of entry 0.
	Keys record.ID
	// Freshness is what the age of every checkpoint is held against. Its zero value
	// lets none pass.
	Freshness Freshness
}

// Item is a log entry with its record and the proof that it is in the log.
type Item struct {
	Index    int64  `json:"index"`
	Entry    []byte `json:"entry"`
	Envelope []byte `json:"envelope"`
	// Attachments are blobs that this or another item's record or entry names:
	// DID documents and own-intents.
	Attachments [][]byte `json:"attachments"`
	// Proof is the inclusion proof in the tree of the evidence's checkpoint.
	Proof tlog.RecordProof `json:"proof"`
}

// Evidence is what a registry shows to prove an artifact.
type Evidence struct {
	// Checkpoint is the signed note.
	Checkpoint []byte `json:"checkpoint"`
	// Consistency leads from the smaller to the larger one of the pin's checkpoint
	// and this; nil where the pin has none or one of the same size, and where this is
	// the smaller one and the proof could not be had.
	Consistency tlog.TreeProof `json:"consistency"`
	// Items are in ascending order of index: the records about the registry from
	// entry 0 on, the name's history, all that their by and key lead to, and the
	// did records of all who signed.
	Items []Item `json:"items"`
}

// Want is what is to be proved.
type Want struct {
	// Subject is the version, spelled as it was published.
	Subject record.Subject
	// CID is that of the bytes in hand or of a Cargo.lock's checksum; zero
	// takes what the record says, and then the caller has to hash the bytes.
	CID storage.CID
}

// Check is the outcome of one check.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail tells people what was found, or what does not hold.
	Detail string `json:"detail"`
}

// Step is a record that the proof rests on.
type Step struct {
	Index   int64       `json:"index"`
	Record  record.ID   `json:"record"`
	Type    record.Type `json:"type"`
	Subject string      `json:"subject"`
	Signer  string      `json:"signer"`
}

// Conflict holds two notes of one log that contradict each other, to be kept and
// shown. Both are signed by the log: what is not proves nothing against it, and is
// no Conflict.
type Conflict struct {
	// Kind is CheckFork or CheckRollback.
	Kind string `json:"kind"`
	// Proven: the two notes by themselves prove misbehaviour of the log: two roots of
	// one size, or a smaller tree vouched for after a larger one. Where it is false it
	// depends on Proof; without one the offered note may as well be an older one of the
	// same past, shown by a mirror that is behind, and whoever has the whole log can tell.
	Proven bool `json:"proven"`
	// Pinned and Offered are the signed notes: what was seen first, and now.
	Pinned  []byte `json:"pinned"`
	Offered []byte `json:"offered"`
	// Proof is what was to lead from the smaller to the larger one. It is only as
	// good as where it comes from: if it was computed from tiles verified against the
	// larger checkpoint, there is no other, and its maker may call the fork Proven.
	Proof tlog.TreeProof `json:"proof,omitempty"`
	// File is where the caller kept this; package verify leaves it empty.
	File string `json:"file,omitzero"`
}

// Verdict says what was checked and what was proved. The fields below Checks
// are filled as far as the checks got; they are proved only if OK.
type Verdict struct {
	Subject string  `json:"subject"`
	Checks  []Check `json:"checks"`

	CID    storage.CID `json:"cid,omitzero"`
	Record record.ID   `json:"record"`
	Index  int64       `json:"index"`
	Signer did.URL     `json:"signer,omitzero"`
	// Time is that of the log entry.
	Time time.Time `json:"time,omitzero"`
	// Yanked is what the history given says last.
	Yanked bool `json:"yanked"`
	// Upstream is what else is told of a version of another registry; nil for others.
	Upstream *Seen `json:"upstream,omitzero"`
	// Chain is the record and all that its authority rests on, down to entry 0.
	Chain []Step `json:"chain"`
	// Size is the checkpoint's, CosignedAt when the log's current key last vouched
	// for it (zero: never), AgeSeconds how long ago that was by the verifier's clock
	// (below zero: in its future).
	Size       int64     `json:"size"`
	CosignedAt time.Time `json:"cosigned_at,omitzero"`
	AgeSeconds int64     `json:"age_seconds"`
	// Keys is the registry record that last put other log keys in force; empty for
	// those of entry 0. To be pinned.
	Keys record.ID `json:"keys"`
	// Conflict is set when a rollback or fork was found.
	Conflict *Conflict `json:"conflict,omitzero"`
}

// OK reports whether every check passed. A verdict without checks is not OK.
func (v Verdict) OK() bool {
	_, failed := v.Failure()
	return !failed && len(v.Checks) > 0
}

// Failure returns the first check that did not pass.
func (v Verdict) Failure() (Check, bool) {
	for _, c := range v.Checks {
		if !c.OK {
			return c, true
		}
	}
	return Check{}, false
}

// add notes the outcome of a check: detail when it passed, err when not.
func (v *Verdict) add(name string, err error, format string, args ...any) {
	c := Check{Name: name, OK: err == nil}
	if err != nil {
		c.Detail = err.Error()
	} else {
		c.Detail = fmt.Sprintf(format, args...)
	}
	v.Checks = append(v.Checks, c)
}

// errUnchecked is the outcome of checks that need what an earlier one failed to prove.
var errUnchecked = errors.New("not checked, since an earlier check failed")

func (v *Verdict) skip(names ...string) {
	for _, name := range names {
		v.add(name, errUnchecked, "")
	}
}

// Artifact judges the evidence for one version of an artifact. All checks are
// listed also when one fails, save those that cannot be made without it.
func Artifact(want Want, ev Evidence, pin Pin) Verdict {
	v := Verdict{Subject: want.Subject.String(), Index: -1}
	t := readTrail(ev.Items, pin.Origin)
	opened, ok := v.checkLog(t, ev.Checkpoint, ev.Consistency, pin)
	if !ok {
		v.skip(CheckRecord, CheckBytes, CheckSignature, CheckAuthority, CheckInclusion, CheckHistory)
		return v
	}
	target, err := t.find(want.Subject)
	v.add(CheckRecord, err, "%s is a publish record about %s", short(target), want.Subject)
	if err != nil {
		v.skip(CheckBytes, CheckSignature, CheckAuthority)
		v.checkInclusion(t, opened)
		v.skip(CheckHistory)
		return v
	}
	v.describe(target)
	v.add(CheckBytes, target.checkBytes(want.CID), "%s", v.CID)
	chain := t.restsOn(target)
	v.Chain = steps(chain)
	v.add(CheckSignature, firstError(chain, func(l *line) error { return l.signature }),
		"%d records signed; the artifact by %s", len(chain), v.Signer)
	v.add(CheckAuthority, firstError(chain, func(l *line) error { return l.authority }),
		"%d steps from %s to entry 0", len(chain), target)
	v.checkInclusion(t, opened)
	history, err := t.checkHistory(want.Subject)
	v.Yanked = history.yanked(want.Subject)
	v.add(CheckHistory, err, "%d records about %s, in order, each by an owner or admin", history.length, want.Subject.Thing())
	return v
}

func (v *Verdict) describe(l *line) {
	v.CID = storage.CIDFromDigest(l.record.Digest())
	v.Record, v.Index = l.record.ID(), l.item.Index
	v.Signer, v.Time = l.record.Header().Signer, l.entry.Time
}

func (v *Verdict) checkInclusion(t *trail, opened translog.Opened) {
	v.add(CheckInclusion, t.checkInclusion(opened.Checkpoint), "%d entries are in the log of %d", len(t.lines), opened.Size)
}

func (l *line) checkBytes(want storage.CID) error {
	says := storage.CIDFromDigest(l.record.Digest())
	if !want.IsZero() && want != says {
		return fmt.Errorf("the bytes have sha256 %s, what was published has %s: they are not the same", want.Hex(), says.Hex())
	}
	return nil
}

func steps(chain []*line) []Step {
	list := make([]Step, len(chain))
	for i, l := range chain {
		list[i] = Step{
			Index: l.item.Index, Record: l.record.ID(), Type: l.record.Type(),
			Subject: l.record.Subject().String(), Signer: l.record.Header().Signer.String(),
		}
	}
	return list
}

// firstError returns the first problem on the chain, with the entry it is at.
func firstError(chain []*line, problem func(*line) error) error {
	for _, l := range chain {
		if err := problem(l); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return nil
}

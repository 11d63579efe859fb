package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// Reasons for which a replay stops, besides those of its Log, of the context,
// record.ErrUnknownType and translog.ErrEntry (both: upgrade).
var (
	// ErrEntry0: the log does not begin with the pinned entry.
	ErrEntry0 = errors.New("another log than the one pinned")
	// ErrRoot: the entries given are not those that the checkpoint commits to.
	ErrRoot = errors.New("the entries do not make up the checkpoint's tree")
	// ErrContent: a record's bytes are not those that its entry names.
	ErrContent = errors.New("not the bytes that the entry names")
)

// MaxViolations is how many violations a replay reports in full; it counts them all.
const MaxViolations = 1000

// Log is a whole log to be replayed; nothing it returns is believed. Its
// methods are called with ascending indexes, one at a time.
type Log interface {
	// Entry returns the entry's bytes.
	Entry(ctx context.Context, index int64) ([]byte, error)
	// Record returns the envelope that the entry e at index names, and the blobs that
	// the record names: DID documents, own-intents, EnvGrants, snapshots. Others do no harm.
	Record(ctx context.Context, index int64, e translog.Entry) (envelope []byte, attachments [][]byte, err error)
}

// Violation is an entry that should not be in the log. Apply voids it: it is
// no part of the state, but a registry that logged it is broken or dishonest.
type Violation struct {
	Index  int64     `json:"index"`
	Record record.ID `json:"record"` // empty when the bytes are no record
	Reason string    `json:"reason"`
}

// Replayed is what a replay found.
type Replayed struct {
	// State is that of Apply over all entries.
	State state.Memory
	// Size and Root are the recomputed tree's.
	Size int64
	Root tlog.Hash
	// Violations are the first MaxViolations of Violated.
	Violations []Violation
	Violated   int64
	settings   []settingsSince
	// imports holds a record that names each index file seen.
	imports map[storage.CID]record.ID
}

// Replay runs all entries that the checkpoint cp covers through state.Apply
// from nothing, and recomputes the root. cp must have been verified
// (Checkpoint). It reads one entry at a time and keeps 64 bytes of hashes for
// each, the state, and the DID documents met. progress, unless nil, is called
// after every entry with the number done.
//
// With a nil error the log is complete and is cp's; whether it is clean,
// Violated says. With an error, Replayed is what was found until then.
func Replay(ctx context.Context, cp translog.Checkpoint, pin Pin, log Log, progress func(done int64)) (Replayed, error) {
	r := replay{log: log, attachments: state.Attachments{}, found: Replayed{State: state.Memory{}, imports: map[storage.CID]record.ID{}}}
	if cp.Origin != string(pin.Origin) {
		return r.found, fmt.Errorf("%w: the checkpoint is of %q, pinned is %q", ErrEntry0, cp.Origin, pin.Origin)
	}
	if cp.Size < 1 {
		return r.found, fmt.Errorf("%w: the log is empty", ErrEntry0)
	}
	for index := range cp.Size {
		if err := ctx.Err(); err != nil {
			return r.found, fmt.Errorf("replay stopped at entry %d: %w", index, err)
		}
		if err := r.entry(ctx, index, pin); err != nil {
			return r.found, fmt.Errorf("entry %d: %w", index, err)
		}
		if progress != nil {
			progress(index + 1)
		}
	}
	root, err := r.hashes.Root()
	if err != nil {
		return r.found, err
	}
	r.found.Root = root
	if root != cp.Root {
		return r.found, fmt.Errorf("%w: root %s over %d entries, the checkpoint says %s", ErrRoot, root, cp.Size, cp.Root)
	}
	return r.found, nil
}

// replay is a run of Replay.
type replay struct {
	log    Log
	hashes translog.Memory
	last   time.Time
	// attachments are the DID documents met so far, which later signatures need.
	attachments state.Attachments
	found       Replayed
}

func (r *replay) entry(ctx context.Context, index int64, pin Pin) error {
	raw, err := r.log.Entry(ctx, index)
	if err != nil {
		return err
	}
	leaf := translog.LeafHash(raw)
	if index == 0 && leaf != pin.Entry0 {
		return fmt.Errorf("%w: its hash is %s, pinned is %s", ErrEntry0, leaf, pin.Entry0)
	}
	if err := r.hashes.Append(leaf); err != nil {
		return err
	}
	r.found.Size = r.hashes.Size()
	e, err := translog.ParseEntry(raw)
	if err != nil {
		return err
	}
	if e.Time.Before(r.last) {
		r.violation(index, "", "its time %s lies before that of the entry before it", e.Time.Format(time.RFC3339))
	}
	r.last = e.Time
	envelope, attachments, err := r.log.Record(ctx, index, e)
	if err != nil {
		return err
	}
	if cid := storage.CIDOf(envelope); cid != e.Record {
		return fmt.Errorf("%w: %s instead of %s", ErrContent, cid, e.Record)
	}
	return r.apply(index, e, envelope, attachments)
}

// apply judges one record. Only what this version cannot judge is an error.
func (r *replay) apply(index int64, e translog.Entry, envelope []byte, attachments [][]byte) error {
	parsed, err := record.Parse(envelope)
	if errors.Is(err, record.ErrUnknownType) {
		return err
	}
	if err != nil {
		r.violation(index, "", "%v", err)
		return nil
	}
	added := r.attach(attachments, parsed.MostAttached())
	changes, err := state.Apply(r.found.State, state.Entry{Index: index, Time: e.Time, DIDDocument: e.DIDDocument}, parsed, r.attachments)
	if err != nil {
		r.violation(index, parsed.ID(), "%v", err)
		r.drop(added, nil)
		return nil
	}
	r.found.State.Put(changes)
	if snapshot := parsed.Snapshot(); !snapshot.IsZero() {
		r.found.imports[snapshot] = parsed.ID()
	}
	r.drop(added, namedDocument(parsed))
	return r.noteSettings(index)
}

// noteSettings remembers from which entry on other settings are in force.
func (r *replay) noteSettings(index int64) error {
	settings, _, err := state.SettingsOf(r.found.State)
	if err != nil {
		return err
	}
	if n := len(r.found.settings); n > 0 && r.found.settings[n-1].record == settings.Record {
		return nil
	}
	r.found.settings = append(r.found.settings, settingsSince{
		index: index, record: settings.Record,
		lines: cargo.IndexSettings{IndexURLs: settings.IndexURLs, DependencyRegistries: settings.DependencyRegistries},
	})
	return nil
}

// attach adds what is offered to the attachments, under the names that it
// hashes to, and returns those that are new. Of more than most bytes it takes none.
func (r *replay) attach(offered [][]byte, most int64) (added []storage.CID) {
	for _, a := range offered[:min(len(offered), MaxAttachments)] {
		id := storage.CIDOf(a)
		if _, known := r.attachments[id]; known || int64(len(a)) > max(most, maxAttachment) {
			continue
		}
		r.attachments[id] = a
		added = append(added, id)
	}
	return added
}

// drop forgets attachments, save the DID document that was put in force.
func (r *replay) drop(added []storage.CID, keep *storage.CID) {
	for _, id := range added {
		if keep == nil || *keep != id {
			delete(r.attachments, id)
		}
	}
}

func (r *replay) violation(index int64, id record.ID, format string, args ...any) {
	r.found.Violated++
	if len(r.found.Violations) < MaxViolations {
		r.found.Violations = append(r.found.Violations, Violation{Index: index, Record: id, Reason: fmt.Sprintf(format, args...)})
	}
}

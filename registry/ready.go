package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/state"
)

// longestBatch is how long a batch may take before the sequencer counts as stuck.
const longestBatch = time.Minute

// Ready is nil if the registry can do its work now: the catalog can be read and
// written, blob storage can be written and read again and has what is published, and
// the sequencer takes changes; its clock is not behind what the log was vouched for at, which every client
// would refuse; it holds the key that signs the log; and among several replicas it
// is known to show all there is. It leaves nothing behind.
func (r *Registry) Ready(ctx context.Context) error {
	select {
	case <-r.done:
		return errors.New("no more changes are taken")
	default:
	}
	if since := r.batchBegun(); !since.IsZero() && time.Since(since) > longestBatch {
		return fmt.Errorf("a batch of changes has been under way since %s", since.UTC().Format(time.RFC3339))
	}
	if err := r.clockBehind(); err != nil {
		return err
	}
	// Another replica may have entered settings whose log key is in its key file alone.
	if _, err := r.Keys.signers(r.Settings(), r.Clock()); err != nil {
		return err
	}
	if err := r.Catalog.Probe(ctx); err != nil {
		return &EngineError{Engine: "the database", err: err}
	}
	if err := r.Current(); err != nil { // after the database, without which it is so too
		return err
	}
	if err := r.notLost(ctx); ends(err) {
		return err
	} else if err != nil {
		return &EngineError{Engine: "blob storage", err: err}
	}
	if err := r.Blobs.Probe(ctx); err != nil {
		return &EngineError{Engine: "blob storage", err: err}
	}
	return nil
}

// EngineError is that an engine does not do its work now.
type EngineError struct {
	Engine string // as people call it
	err    error
}

// Error implements error.
func (e *EngineError) Error() string { return e.Engine + ": " + e.err.Error() }

// Unwrap gives the engine's own error.
func (e *EngineError) Unwrap() error { return e.err }

// clockBehind tells of a log that was vouched for in the future: this computer's
// clock was ahead once, or is behind now.
func (r *Registry) clockBehind() error {
	cosigned := r.published.Load().cosigned
	if ahead := cosigned.Sub(r.Clock()); ahead > state.Skew {
		return fmt.Errorf("the log's checkpoint was cosigned at %s, %s in the future of this computer's clock; clients refuse it until then", cosigned.Format(time.RFC3339), ahead.Round(time.Second))
	}
	return nil
}

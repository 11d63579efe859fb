package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// longestBatch is how long a batch may take before the sequencer counts as stuck.
const longestBatch = time.Minute

// Ready is nil if the registry can do its work now: the catalog can be read and
// written, blob storage can be written and read again, and the sequencer takes
// changes. It leaves nothing behind.
func (r *Registry) Ready(ctx context.Context) error {
	select {
	case <-r.done:
		return errors.New("no more changes are taken")
	default:
	}
	if since := r.batchSince.Load(); since != 0 && time.Since(time.Unix(0, since)) > longestBatch {
		return fmt.Errorf("a batch of changes has been under way since %s", time.Unix(0, since).UTC().Format(time.RFC3339))
	}
	if err := r.Catalog.Probe(ctx); err != nil {
		return err
	}
	return r.Blobs.Probe(ctx)
}

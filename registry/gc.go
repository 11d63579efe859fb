package registry

import (
	"context"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// GCOptions say what CollectGarbage may remove.
type GCOptions struct {
	// Inventory lists what Config.Blobs holds, and removes.
	Inventory storage.Inventory
	// Delete removes; otherwise it is only said what would be.
	Delete bool
	// Grace is how old a blob has to be that is removed.
	Grace time.Duration
	// Temp is the folder for lists, "" for the system's.
	Temp string
	// Found is called with each blob that nothing refers to and that is old enough.
	Found func(storage.Stored)
	// Progress is called now and then; all is 0 where it is not known.
	Progress func(what string, done, all int64)
}

// Collected is what CollectGarbage saw and did.
type Collected struct {
	// Blobs were listed, of Bytes in all.
	Blobs, Bytes int64
	// Unreferenced are named by no entry and older than the grace; Young are not that old.
	Unreferenced, UnreferencedBytes int64
	Young, YoungBytes               int64
	// Removed are gone now; Spared came to be referred to meanwhile.
	Removed, RemovedBytes, Spared int64
}

// CollectGarbage finds the blobs that no entry of the log refers to, and removes them.
func CollectGarbage(ctx context.Context, c Config, o GCOptions) (Collected, error) {
	return Collected{}, ErrUnavailable
}

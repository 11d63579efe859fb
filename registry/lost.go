package registry

import (
	"context"
	"errors"
	"fmt"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// notLost is ErrLost where blob storage lacks the checkpoint that is published or the
// entry below it, and ErrFork where it has another checkpoint of that size: what is
// published next would stand on nothing there. A log is lost as a whole, or from some
// entry on, by an operator's slip, or since this is not the storage that the others use;
// so its end says it, and costs two small reads. A store that does not answer has lost nothing.
func notLost(ctx context.Context, blobs storage.Blobs, published catalog.Published) error {
	if published.Size == 0 {
		return nil
	}
	entry := make(chan error, 1)
	go func() {
		_, err := readPublished(ctx, blobs, translog.EntryKey(published.Size-1), published.Size)
		entry <- err
	}()
	note, err := readPublished(ctx, blobs, translog.CheckpointKey(published.Size), published.Size)
	if err = errors.Join(err, <-entry); err != nil {
		return err
	}
	return sameCheckpoint(published, note)
}

// readPublished reads an object of the log that was stored before size entries were published.
func readPublished(ctx context.Context, blobs storage.Blobs, key string, size int64) ([]byte, error) {
	raw, err := blobs.Read(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		err = fmt.Errorf("%w: %s is missing, but %d entries are published. Where this is not the bucket or folder that the log is in, as one that is not mounted or a copy, give that one", ErrLost, key, size)
	}
	return raw, err
}

// sameCheckpoint holds the stored note of what is published against the catalog's, which
// was made anew since perhaps, for the same tree.
func sameCheckpoint(published catalog.Published, note []byte) error {
	ours, err := translog.Peek(published.Checkpoint)
	if err != nil {
		return fmt.Errorf("%w: the catalog's published checkpoint: %v", ErrFork, err)
	}
	key := translog.CheckpointKey(published.Size)
	stored, err := translog.Peek(note)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", ErrFork, key, err)
	}
	if stored != ours {
		return fmt.Errorf("%w: %s says %d entries with root %s, the catalog's published checkpoint %d with root %s; both are kept as they are",
			ErrFork, key, stored.Size, stored.Root, ours.Size, ours.Root)
	}
	return nil
}

// notLost is nil while blob storage has what is shown.
func (r *Registry) notLost(ctx context.Context) error {
	shown := r.published.Load()
	return notLost(ctx, r.Blobs, catalog.Published{Size: shown.Size, Checkpoint: shown.note})
}

// ends reports whether err says that the catalog, the stored log and what was shown of it
// are not one: nothing that is done on top of that can be right.
func ends(err error) bool {
	return errors.Is(err, ErrFork) || errors.Is(err, ErrBehind) || errors.Is(err, ErrLost)
}

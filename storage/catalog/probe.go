package catalog

import "context"

// Probe is nil if the catalog can be read, and its write lock be had, now. It changes nothing.
func (db *DB) Probe(ctx context.Context) error {
	if _, err := db.Head(ctx); err != nil {
		return err
	}
	return db.Update(ctx, func(*Tx) error { return nil })
}

package catalog

import (
	"context"
	"errors"
	"fmt"

	sqlite3 "modernc.org/sqlite"

	"phoenix-lab.org/aln-registry/storage"
)

// failed says what could not be done. Where ctx has ended its error is part of
// the chain: drivers report a cancelled call by errors of their own.
func failed(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	err = damaged(full(err))
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("catalog: %s: %w (%w)", what, cause, err)
	}
	return fmt.Errorf("catalog: %s: %w", what, err)
}

// full puts storage.ErrFull into err's chain where the database has no room.
func full(err error) error {
	var e *sqlite3.Error
	if errors.As(err, &e) && (e.Code()&0xff == sqliteFull || e.Code() == sqliteIOErrShmSize) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return storage.Full(err)
}

// damaged puts ErrDamaged into err's chain where the database says so.
func damaged(err error) error {
	var e *sqlite3.Error
	if errors.As(err, &e) && (e.Code()&0xff == sqliteCorrupt || e.Code()&0xff == sqliteNotADB) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// SQLite's result codes (sqlite.org/rescode.html): for a damaged file, and for a full
// disk, of a file and of the memory that WAL readers share.
const (
	sqliteCorrupt      = 11
	sqliteNotADB       = 26
	sqliteFull         = 13
	sqliteIOErrShmSize = 4874
)

package catalog

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite"

	"phoenix-lab.org/aln-registry/storage"
)

// failed says what could not be done, and puts into the chain of err what
// callers branch on. Where ctx has ended its error is part of the chain: drivers
// report a cancelled call by errors of their own, which say nothing of the database.
func failed(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	err = connecting(err)
	if cause := ctx.Err(); cause != nil {
		if !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		return fmt.Errorf("catalog: %s: %w", what, err)
	}
	return fmt.Errorf("catalog: %s: %w", what, classified(err))
}

// classified puts into err's chain what it is a case of.
func classified(err error) error {
	for _, known := range []error{storage.ErrFull, ErrDamaged, ErrUnavailable, ErrUnfit} {
		if errors.Is(err, known) {
			return err
		}
	}
	if errors.Is(err, sql.ErrNoRows) { // one that every catalog has: who asks for others looks before
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if e := (*sqlite3.Error)(nil); errors.As(err, &e) {
		return classifiedSQLite(err, e.Code())
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return classifiedPostgres(err, e.Code)
	}
	if disconnected(err) {
		return &unavailable{cause: errors.New(err.Error()), uncertain: errors.Is(err, ErrUncertain), cut: true}
	}
	return storage.Full(err)
}

// SQLite's result codes (sqlite.org/rescode.html): for a damaged file, and for a full
// disk, of a file and of the memory that WAL readers share.
const (
	sqliteIOErr        = 10
	sqliteCorrupt      = 11
	sqliteNotADB       = 26
	sqliteFull         = 13
	sqliteIOErrShmSize = 4874
)

func classifiedSQLite(err error, code int) error {
	switch {
	case code&0xff == sqliteCorrupt || code&0xff == sqliteNotADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case code&0xff == sqliteFull || code == sqliteIOErrShmSize:
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return storage.Full(err)
}

// classifiedPostgres goes by the codes of PostgreSQL's manual, appendix A.
func classifiedPostgres(err error, code string) error {
	switch code {
	case "53100": // disk_full
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	case "XX001", "XX002", // data_corrupted, index_corrupted
		"42P01": // undefined_table: the schema was looked at when the catalog was opened
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case "57P01", "57P02", "57P03", "57P05", // shutting down, crashed, starting up, idle for too long
		"53300": // too_many_connections
		return &unavailable{cause: err, cut: true}
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return &unavailable{cause: err, conflict: true}
	case "57014", "55P03", // statement_timeout, lock_timeout
		"25P03", "25P04", // idle_in_transaction_session_timeout, transaction_timeout
		"25006",                   // read_only_sql_transaction: it is a standby now
		"53000", "53200", "53400", // out of resources, of memory; a limit of its configuration
		"58000", "58030": // system_error, io_error
		return &unavailable{cause: err}
	}
	if code[:min(2, len(code))] == "08" { // connection_exception
		return &unavailable{cause: err, cut: true}
	}
	return err
}

// disconnected says whether err, which is not the server's, is the connection's.
func disconnected(err error) bool {
	if connect := (*pgconn.ConnectError)(nil); errors.As(err, &connect) {
		return true
	}
	if network := (*net.OpError)(nil); errors.As(err, &network) {
		return true
	}
	// What is not what TLS expects next: bytes that were altered on the way.
	if record, alert := (tls.RecordHeaderError{}), tls.AlertError(0); errors.As(err, &record) || errors.As(err, &alert) {
		return true
	}
	if pgconn.SafeToRetry(err) || pgconn.Timeout(err) {
		return true
	}
	for _, known := range []error{
		driver.ErrBadConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, pgconn.ErrConnClosed,
		context.Canceled, context.DeadlineExceeded, // of what the catalog bounds itself, the caller's has not ended
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// unavailable is an ErrUnavailable.
type unavailable struct {
	cause     error
	uncertain bool // where cause does not say so
	cut       bool // the connection is gone, or there was none
	conflict  bool // the database has undone the transaction for the sake of others
}

func (e *unavailable) Error() string { return ErrUnavailable.Error() + ": " + e.cause.Error() }

func (e *unavailable) Unwrap() []error {
	if e.uncertain {
		return []error{ErrUnavailable, ErrUncertain, e.cause}
	}
	return []error{ErrUnavailable, e.cause}
}

func isCut(err error) bool {
	var e *unavailable
	return errors.As(err, &e) && e.cut
}

func isConflict(err error) bool {
	var e *unavailable
	return errors.As(err, &e) && e.conflict
}

// uncertain puts ErrUncertain into the chain of a commit's error, unless the
// database has said that nothing was committed.
func uncertain(err error) error {
	if err == nil || errors.Is(err, pgx.ErrTxCommitRollback) || pgconn.SafeToRetry(err) {
		return err
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) && e.SeverityUnlocalized == "ERROR" {
		return err
	}
	if e := (*sqlite3.Error)(nil); errors.As(err, &e) && e.Code()&0xff != sqliteIOErr {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

var postgres = dialect{
	now:        "SELECT CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)",
	lockHead:   "SELECT size FROM head WHERE id = 1 FOR UPDATE",
	lockRows:   " FOR UPDATE",
	notify:     "SELECT pg_notify('" + publishedChannel + "', '')",
	nowMillis:  "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT)",
	afterAudit: "SELECT setval(pg_get_serial_sequence('audit', 'id'), (SELECT MAX(id) FROM audit))",
	snapshot:   sql.LevelRepeatableRead,
	shared:     true,
	send:       sendAtOnce,
}

// How many connections a process has at most: of these, one for leases, and one that
// listens.
const (
	pgReaders = 12
	pgWriters = 6
	pgControl = 2
)

// What the server is asked to bound, and how long it may say nothing at all.
const (
	// statementTimeout is for one statement, its waiting included.
	statementTimeout = 30 * time.Second
	// lockTimeout is for what others hold: the head, above all.
	lockTimeout = 10 * time.Second
	// idleTimeout ends the transaction of a process from which nothing is heard,
	// so that a host that hangs does not keep the head or the right to publish.
	idleTimeout = 30 * time.Second
	// publishTimeout is for waiting for the right to publish.
	publishTimeout = 60 * time.Second
	// leaseTimeout is for what keeps a replica at work, or not.
	leaseTimeout = 5 * time.Second
	// silence, beyond what a statement may take, is a server that is gone.
	silence = 10 * time.Second
	// connectTimeout is for one host, where the URL names no other.
	connectTimeout = 5 * time.Second
	// readPatience is for how long a read is tried again that found no database.
	readPatience = 2 * time.Second
	// oldestPostgres is the first version that will do.
	oldestPostgres = 140000
)

// OpenPostgres opens the catalog in the PostgreSQL database at url
// (postgres://…, as pgx takes it; PGPASSWORD, PGPASSFILE and the other PG…
// variables count). One that is empty, or whose log is, is made ready, under a
// lock; one with pending migrations is ErrOldSchema, one newer than this program
// ErrNewerSchema, one that would lose what it acknowledges ErrUnfit. No error
// holds the password.
func OpenPostgres(ctx context.Context, url string) (*DB, error) {
	config, err := postgresConfig(url)
	if err != nil {
		return nil, err
	}
	return openPostgres(ctx, config)
}

func openPostgres(ctx context.Context, config *pgx.ConnConfig) (*DB, error) {
	if err := readyPostgres(ctx, config); err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", whereabouts(config), err)
	}
	return connectPostgres(ctx, config)
}

// connectPostgres opens what has the schema of this program.
func connectPostgres(ctx context.Context, config *pgx.ConnConfig) (*DB, error) {
	session := pgSession{statement: statementTimeout, lock: lockTimeout, readWrite: true}
	control := pgSession{statement: publishTimeout, lock: publishTimeout, readWrite: true}
	db := &DB{
		read: session.pool(config, pgReaders), write: session.pool(config, pgWriters), control: control.pool(config, pgControl),
		dialect: postgres, watched: config,
		writing: make(chan struct{}, 1), publishing: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	db.Reader = Reader{q: db.read, patience: readPatience}
	db.leases = pgSession{statement: leaseTimeout, lock: leaseTimeout, readWrite: true, prepare: db.born.now}.pool(config, 1)
	db.leases.SetConnMaxIdleTime(0) // it lasts as long as it can
	db.leases.SetConnMaxLifetime(0)
	db.close = sync.OnceValue(func() error {
		close(db.closed)
		return errors.Join(db.read.Close(), db.write.Close(), db.control.Close(), db.leases.Close())
	})
	if err := db.leases.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", whereabouts(config), failed(ctx, "connect", err)), db.Close())
	}
	return db, nil
}

// postgresConfig reads url, which CheckAddress does not refuse.
func postgresConfig(url string) (*pgx.ConnConfig, error) {
	read, err := readAddress(url)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadURL, err)
	}
	config, err := read.parse(url)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "aln-registry"
	}
	// Finds out within half a minute that a host is gone that nothing is expected of.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	config.DialFunc = dialer.DialContext
	return config, nil
}

// whereabouts says where the database is, without any secret.
func whereabouts(config *pgx.ConnConfig) string {
	return fmt.Sprintf("%s at %s", config.Database, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
}

// pgSession is what a connection's session is set to.
type pgSession struct {
	statement, lock time.Duration // 0: no bound
	readWrite       bool          // what cannot be written is no catalog
	// prepare, where there is one, ends the preparation of the session.
	prepare func(context.Context, *pgx.Conn) error
}

// pool is a pool of at most n such connections.
func (s pgSession) pool(config *pgx.ConnConfig, n int) *sql.DB {
	config = config.Copy()
	if s.statement != 0 {
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &impatientConn{Conn: conn, most: s.statement + silence}, nil
		}
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		err := s.begin(ctx, conn)
		if err != nil {
			conn.Close(ctx)
		}
		return err
	}))
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(30 * time.Minute)
	return db
}

// begin prepares a session in one round trip. Nothing rests on how the server,
// the database or the role is configured: a commit that is answered is on disk,
// each statement sees what was committed before it, strings and bounds are what
// they are here.
func (s pgSession) begin(ctx context.Context, conn *pgx.Conn) error {
	var fsync, encoding, readOnly string
	var version int
	err := conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('server_encoding'),
		current_setting('transaction_read_only'), CAST(current_setting('server_version_num') AS INTEGER) FROM (SELECT
		set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' WHEN 'local' THEN 'on'
			ELSE current_setting('synchronous_commit') END, false),
		set_config('default_transaction_isolation', 'read committed', false),
		set_config('standard_conforming_strings', 'on', false),
		set_config('jit', 'off', false),
		set_config('statement_timeout', $1, false),
		set_config('lock_timeout', $2, false),
		set_config('idle_in_transaction_session_timeout', $3, false)) session`,
		milliseconds(s.statement), milliseconds(s.lock), milliseconds(idleTimeout)).Scan(&fsync, &encoding, &readOnly, &version)
	switch {
	case err != nil:
		return err
	case version < oldestPostgres:
		return fmt.Errorf("%w: its server has version %d.%d; it takes %d or newer", ErrUnfit, version/10000, version%10000, oldestPostgres/10000)
	case fsync != "on":
		return fmt.Errorf("%w: its server has fsync = off, and would lose what it has acknowledged with the next loss of power; "+
			"set fsync = on in postgresql.conf, restart it, and type `aln-registry fsck`", ErrUnfit)
	case encoding != "UTF8":
		return fmt.Errorf("%w: its encoding is %s; make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", ErrUnfit, encoding)
	case s.readWrite && readOnly == "on":
		return &unavailable{cause: errors.New("it takes no writes (a standby, or default_transaction_read_only is set)")}
	case s.prepare != nil:
		return s.prepare(ctx, conn)
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// impatientConn is a connection that does not wait for ever for a server that
// neither answers nor hangs up: a frozen one, or one behind a cut line.
type impatientConn struct {
	net.Conn
	most time.Duration // for one read or write

	mutex sync.Mutex
	bound bool // somebody has set a deadline of his own
}

func (c *impatientConn) SetDeadline(t time.Time) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.bound = !t.IsZero()
	return c.Conn.SetDeadline(t)
}

func (c *impatientConn) Read(b []byte) (int, error) {
	c.extend(c.Conn.SetReadDeadline)
	return c.Conn.Read(b)
}

func (c *impatientConn) Write(b []byte) (int, error) {
	c.extend(c.Conn.SetWriteDeadline)
	return c.Conn.Write(b)
}

func (c *impatientConn) extend(set func(time.Time) error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.bound {
		_ = set(time.Now().Add(c.most)) // where that fails, so does what follows
	}
}

// sendAtOnce sends all statements in one round trip.
func sendAtOnce(ctx context.Context, conn *sql.Conn, _ *pending, statements []statement) error {
	return conn.Raw(func(driverConn any) error {
		batch := &pgx.Batch{}
		for _, s := range statements {
			batch.Queue(s.query, s.args...)
		}
		results := driverConn.(*stdlib.Conn).Conn().SendBatch(ctx, batch)
		defer results.Close()
		for _, s := range statements {
			tag, err := results.Exec()
			if err != nil {
				return failed(ctx, s.what, err)
			}
			if tag.RowsAffected() == 0 && s.refused != nil {
				return s.refused
			}
		}
		return nil
	})
}

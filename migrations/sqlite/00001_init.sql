-- Times are Unix seconds (UTC). Text compares byte by byte (BINARY, SQLite's
-- default; COLLATE "C" in PostgreSQL). Rows of entry, log_hash, state and
-- crate_line are only ever added, so what was read "as of" an index stays so.

-- +goose Up
CREATE TABLE head (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    size    INTEGER NOT NULL CHECK (size >= 0), -- entries in the log
    created INTEGER NOT NULL                    -- when this catalog was made
) STRICT;
INSERT INTO head (id, size, created) VALUES (1, 0, CAST(strftime('%s', 'now') AS INTEGER));

CREATE TABLE entry (
    idx        INTEGER NOT NULL PRIMARY KEY CHECK (idx >= 0),
    bytes      BLOB    NOT NULL,
    leaf_hash  BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
    record_cid TEXT    NOT NULL,
    record_id  TEXT    NOT NULL UNIQUE
) STRICT;
CREATE INDEX entry_by_record_cid ON entry (record_cid);

CREATE TABLE log_hash (
    position INTEGER NOT NULL PRIMARY KEY CHECK (position >= 0),
    hash     BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- The value of key after entry idx. The foreign key waits for the commit, so
-- that a transaction may write state before the entry that caused it.
CREATE TABLE state (
    key   TEXT    NOT NULL,
    idx   INTEGER NOT NULL REFERENCES entry (idx) DEFERRABLE INITIALLY DEFERRED,
    value BLOB    NOT NULL,
    PRIMARY KEY (key, idx)
) STRICT, WITHOUT ROWID;

-- What was derived from a .crate when entry idx published it. search is the
-- description and the keywords in lower case.
CREATE TABLE crate_line (
    idx         INTEGER NOT NULL PRIMARY KEY REFERENCES entry (idx) DEFERRABLE INITIALLY DEFERRED,
    name_key    TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    line        BLOB    NOT NULL,
    description TEXT    NOT NULL,
    keywords    TEXT    NOT NULL,
    search      TEXT    NOT NULL,
    UNIQUE (name_key, version)
) STRICT;
CREATE INDEX crate_line_by_name ON crate_line (name_key, idx);

CREATE TABLE published (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    size       INTEGER NOT NULL CHECK (size >= 0),
    checkpoint BLOB    NOT NULL
) STRICT;
INSERT INTO published (id, size, checkpoint) VALUES (1, 0, x'');

CREATE TABLE assertion (
    issuer  TEXT    NOT NULL,
    jti     TEXT    NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (issuer, jti)
) STRICT, WITHOUT ROWID;
CREATE INDEX assertion_by_expiry ON assertion (expires);

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Times are Unix seconds (UTC). Text compares byte by byte (COLLATE "C"; BINARY,
-- the default, in SQLite). Rows of entry, log_hash, state and crate_line are
-- only ever added, so what was read "as of" an index stays so.

-- +goose Up
CREATE TABLE head (
    id      BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    size    BIGINT NOT NULL CHECK (size >= 0), -- entries in the log
    created BIGINT NOT NULL                    -- when this catalog was made
);
INSERT INTO head (id, size, created) VALUES (1, 0, CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT));

CREATE TABLE entry (
    idx        BIGINT           NOT NULL PRIMARY KEY CHECK (idx >= 0),
    bytes      BYTEA            NOT NULL,
    leaf_hash  BYTEA            NOT NULL CHECK (length(leaf_hash) = 32),
    record_cid TEXT COLLATE "C" NOT NULL,
    record_id  TEXT COLLATE "C" NOT NULL UNIQUE
);
CREATE INDEX entry_by_record_cid ON entry (record_cid);

CREATE TABLE log_hash (
    position BIGINT NOT NULL PRIMARY KEY CHECK (position >= 0),
    hash     BYTEA  NOT NULL CHECK (length(hash) = 32)
);

-- The value of key after entry idx. The foreign key waits for the commit, so
-- that a transaction may write state before the entry that caused it.
CREATE TABLE state (
    key   TEXT COLLATE "C" NOT NULL,
    idx   BIGINT           NOT NULL REFERENCES entry (idx) DEFERRABLE INITIALLY DEFERRED,
    value BYTEA            NOT NULL,
    PRIMARY KEY (key, idx)
);

-- What was derived from a .crate when entry idx published it. search is the
-- description and the keywords in lower case.
CREATE TABLE crate_line (
    idx         BIGINT           NOT NULL PRIMARY KEY REFERENCES entry (idx) DEFERRABLE INITIALLY DEFERRED,
    name_key    TEXT COLLATE "C" NOT NULL,
    version     TEXT COLLATE "C" NOT NULL,
    line        BYTEA            NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    keywords    TEXT COLLATE "C" NOT NULL,
    search      TEXT COLLATE "C" NOT NULL,
    UNIQUE (name_key, version)
);
CREATE INDEX crate_line_by_name ON crate_line (name_key, idx);

CREATE TABLE published (
    id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    size       BIGINT NOT NULL CHECK (size >= 0),
    checkpoint BYTEA  NOT NULL
);
INSERT INTO published (id, size, checkpoint) VALUES (1, 0, '');

CREATE TABLE assertion (
    issuer  TEXT COLLATE "C" NOT NULL,
    jti     TEXT COLLATE "C" NOT NULL,
    expires BIGINT           NOT NULL,
    PRIMARY KEY (issuer, jti)
);
CREATE INDEX assertion_by_expiry ON assertion (expires);

CREATE TABLE meta (
    key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

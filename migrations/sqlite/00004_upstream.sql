-- +goose Up

-- What other registries, by the names that they have here, said of their index files:
-- how to ask whether one has changed, and when that was asked last. snapshot is the
-- file that etag and last_modified are of, '' for none. Nothing in this file is
-- derived from the log.
CREATE TABLE upstream_file (
    upstream      TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    etag          TEXT    NOT NULL,
    last_modified TEXT    NOT NULL,
    snapshot      TEXT    NOT NULL,
    status        INTEGER NOT NULL,
    checked       INTEGER NOT NULL,
    PRIMARY KEY (upstream, name)
) STRICT, WITHOUT ROWID;

-- Crates of other registries that are held: the first of them that had the bytes, when
-- they were fetched last, and about when they were used last.
CREATE TABLE upstream_blob (
    cid      TEXT    NOT NULL PRIMARY KEY,
    upstream TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    size     INTEGER NOT NULL,
    fetched  INTEGER NOT NULL,
    used     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX upstream_blob_by_use ON upstream_blob (used, cid);

-- Crates that stay, held yet or not, as long as somebody's lock names them.
CREATE TABLE upstream_pin (
    cid   TEXT    NOT NULL,
    lock  TEXT    NOT NULL,
    since INTEGER NOT NULL,
    did   TEXT    NOT NULL,
    PRIMARY KEY (cid, lock)
) STRICT, WITHOUT ROWID;
CREATE INDEX upstream_pin_by_lock ON upstream_pin (lock, cid);

-- What other registries should never have done, the newest rows of each only. An id is
-- never used twice.
CREATE TABLE upstream_alarm (
    id       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    upstream TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
CREATE INDEX upstream_alarm_by_upstream ON upstream_alarm (upstream, id);

-- What was found in bytes: few of all that were looked into, and counted every few seconds.
CREATE INDEX scan_found ON scan (cid) WHERE findings <> '' OR failure <> '';

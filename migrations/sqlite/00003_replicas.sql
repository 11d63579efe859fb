-- +goose Up

-- What an entry changed: a replica that did not make the entry asks for it.
CREATE INDEX state_by_entry ON state (idx, key);

-- Servers on this catalog: how much of the log each has seen, and until when
-- (milliseconds, by the database's clock) it may answer by that.
CREATE TABLE replica (
    name       TEXT    NOT NULL PRIMARY KEY,
    seen       INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- CIDs of blobs that nothing referred to and that are, or will be, removed:
-- whoever is about to refer to one stores its bytes anew. Not derived from the log.
CREATE TABLE condemned (
    cid          TEXT    NOT NULL PRIMARY KEY,
    condemned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX condemned_by_time ON condemned (condemned_at);

-- +goose Up

-- The URL of the index that etag and last_modified came from: they say nothing of another.
ALTER TABLE upstream_file ADD COLUMN index_url TEXT NOT NULL DEFAULT '';

-- Who has served which crates that are held, or were: a crate is held of each of them, and of
-- nobody else. name and version are of the first for which the bytes were fetched there. A row
-- of upstream_blob alone, which the release before writes, counts as one of its own upstream.
CREATE TABLE upstream_source (
    cid      TEXT NOT NULL,
    upstream TEXT NOT NULL,
    name     TEXT NOT NULL,
    version  TEXT NOT NULL,
    PRIMARY KEY (cid, upstream)
) STRICT, WITHOUT ROWID;
INSERT INTO upstream_source (cid, upstream, name, version) SELECT cid, upstream, name, version FROM upstream_blob;

-- Crates that a lock names and does not pin, since they are not to be had: why is '' for one
-- that was not asked for yet, version '' where all of them lack, cid '' where the lock names no
-- bytes. Nothing in this file is derived from the log.
CREATE TABLE upstream_lack (
    lock     TEXT    NOT NULL,
    upstream TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    cid      TEXT    NOT NULL,
    why      TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    did      TEXT    NOT NULL,
    PRIMARY KEY (lock, upstream, name, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX upstream_lack_by_cid ON upstream_lack (lock, cid);

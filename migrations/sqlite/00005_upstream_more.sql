-- +goose Up

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

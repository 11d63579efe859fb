-- +goose Up

-- Crates that a lock names and does not pin, since they are not to be had: why is '' for one
-- that was not asked for yet, version '' where all of them lack, cid '' where the lock names no
-- bytes. Nothing in this file is derived from the log.
CREATE TABLE upstream_lack (
    lock     TEXT COLLATE "C" NOT NULL,
    upstream TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C" NOT NULL,
    version  TEXT COLLATE "C" NOT NULL,
    cid      TEXT COLLATE "C" NOT NULL,
    why      TEXT COLLATE "C" NOT NULL,
    since    BIGINT           NOT NULL,
    did      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (lock, upstream, name, version)
);
CREATE INDEX upstream_lack_by_cid ON upstream_lack (lock, cid);

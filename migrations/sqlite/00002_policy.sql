-- +goose Up

-- What the recognisers of content found in the bytes of a CID: not derived from
-- the log, and made anew where a row is missing or recognisers is not today's.
-- findings are names, one a line; failure says why the bytes cannot be read.
CREATE TABLE scan (
    cid         TEXT    NOT NULL PRIMARY KEY,
    recognisers INTEGER NOT NULL,
    findings    TEXT    NOT NULL,
    failure     TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    scanned_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which versions have the bytes of a CID: the state key of each, and the entry
-- that made it. A function of state.
CREATE TABLE version_cid (
    cid TEXT    NOT NULL,
    key TEXT    NOT NULL,
    idx INTEGER NOT NULL REFERENCES entry (idx) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (cid, key)
) STRICT, WITHOUT ROWID;
INSERT INTO version_cid (cid, key, idx)
    SELECT json_extract(CAST(value AS TEXT), '$.cid'), key, MIN(idx) FROM state
    WHERE key >= 'version/' AND key < 'version0' GROUP BY 1, 2;

-- What was decided and by whom, the newest rows only. Not derived from the log.
-- An id is never used twice.
CREATE TABLE audit (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    time    INTEGER NOT NULL,
    asker   TEXT    NOT NULL,
    what    TEXT    NOT NULL,
    rule    TEXT    NOT NULL,
    rule_id TEXT    NOT NULL,
    outcome TEXT    NOT NULL,
    request TEXT    NOT NULL,
    count   INTEGER NOT NULL
) STRICT;

-- +goose Up

-- What an entry changed: a replica that did not make the entry asks for it.
CREATE INDEX state_by_entry ON state (idx, key);

-- Servers on this catalog: how much of the log each has seen, and until when
-- (milliseconds, by the database's clock) it may answer by that.
CREATE TABLE replica (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seen       BIGINT           NOT NULL,
    expires_ms BIGINT           NOT NULL
);

-- CIDs of blobs that nothing referred to and that are, or will be, removed:
-- whoever is about to refer to one stores its bytes anew. Not derived from the log.
CREATE TABLE condemned (
    cid          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    condemned_at BIGINT           NOT NULL
);
CREATE INDEX condemned_by_time ON condemned (condemned_at);

-- So that a search for a part of a name or description does not read all of them.
-- The extension comes with PostgreSQL and may be created by whoever owns the
-- database; where it may not be, or is not installed, a search reads them all. A
-- database has it once, in whichever schema: a rebuild makes its tables in another.
-- +goose StatementBegin
DO $$ DECLARE home TEXT; BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    SELECT nspname INTO home FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_trgm';
    EXECUTE format('CREATE INDEX crate_line_by_part ON crate_line USING gin (name_key %1$I.gin_trgm_ops, search %1$I.gin_trgm_ops)', home);
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_file OR undefined_object THEN
    RAISE NOTICE 'search goes without an index: %', SQLERRM;
END $$;
-- +goose StatementEnd

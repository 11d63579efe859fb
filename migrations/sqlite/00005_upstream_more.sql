-- +goose Up

-- The URL of the index that etag and last_modified came from: they say nothing of another.
ALTER TABLE upstream_file ADD COLUMN index_url TEXT NOT NULL DEFAULT '';

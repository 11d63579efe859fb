-- +goose Up

-- That an admin has looked into an alarm: when (0: nobody has), who, and what they say of it. A row
-- that the release before writes is one that nobody has looked into.
ALTER TABLE upstream_alarm ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE upstream_alarm ADD COLUMN seen_by TEXT NOT NULL DEFAULT '';
ALTER TABLE upstream_alarm ADD COLUMN seen_why TEXT NOT NULL DEFAULT '';

-- +goose Up

-- That an admin has looked into an alarm: when (0: nobody has), who, and what they say of it. A row
-- that the release before writes is one that nobody has looked into.
ALTER TABLE upstream_alarm ADD COLUMN seen_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE upstream_alarm ADD COLUMN seen_by TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE upstream_alarm ADD COLUMN seen_why TEXT COLLATE "C" NOT NULL DEFAULT '';

package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// UpstreamAlarm is something that another registry should never have done. What its texts
// mean is the caller's; of each at most 1,024 bytes of clean UTF-8 are kept.
type UpstreamAlarm struct {
	// ID orders the alarms; the catalog gives it.
	ID             int64
	Upstream, Name string
	// Version is "" for what is of no one version.
	Version, Kind, Detail string
	// At is in whole seconds UTC.
	At time.Time
	// Seen is that somebody has looked into it, zero where nobody has.
	Seen AlarmSeen
}

// AlarmSeen is that the DID By has looked into an alarm, At in whole seconds UTC, and what they
// say of it.
type AlarmSeen struct {
	By, Why string
	At      time.Time
}

const upstreamAlarmColumns = "id, upstream, name, version, kind, detail, at, seen_at, seen_by, seen_why"

// AddUpstreamAlarm adds a, durably, and forgets all but the newest keep of its Upstream.
func (db *DB) AddUpstreamAlarm(ctx context.Context, a UpstreamAlarm, keep int64) error {
	return db.note(ctx, func(t *Tx) error {
		if err := t.addUpstreamAlarm(ctx, a); err != nil {
			return err
		}
		return t.write(ctx, statement{what: "forget old alarms", query: `DELETE FROM upstream_alarm WHERE upstream = $1 AND id <=
			(SELECT id FROM upstream_alarm WHERE upstream = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)`, args: []any{clean(a.Upstream), max(keep, 0)}})
	})
}

func (t *Tx) addUpstreamAlarm(ctx context.Context, a UpstreamAlarm) error {
	return t.write(ctx, statement{what: "note an alarm", query: `INSERT INTO upstream_alarm (upstream, name, version, kind, detail, at, seen_at, seen_by, seen_why)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, args: []any{clean(a.Upstream), clean(a.Name), clean(a.Version), clean(a.Kind), clean(a.Detail), a.At.Unix(),
		secondsOr0(a.Seen.At), clean(a.Seen.By), clean(a.Seen.Why)}})
}

// UpstreamAlarms returns the newest alarms of upstream with an ID below before, newest
// first, at most limit. math.MaxInt64 as before begins with the newest of all.
func (r Reader) UpstreamAlarms(ctx context.Context, upstream string, before int64, limit int) ([]UpstreamAlarm, error) {
	return collect(ctx, r, "read alarms", scanUpstreamAlarm, "SELECT "+upstreamAlarmColumns+` FROM upstream_alarm
		WHERE upstream = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, upstream, before, max(limit, 0))
}

// UnseenUpstreamAlarms is UpstreamAlarms of those that nobody has looked into.
func (r Reader) UnseenUpstreamAlarms(ctx context.Context, upstream string, before int64, limit int) ([]UpstreamAlarm, error) {
	return collect(ctx, r, "read alarms", scanUpstreamAlarm, "SELECT "+upstreamAlarmColumns+` FROM upstream_alarm
		WHERE upstream = $1 AND id < $2 AND seen_at = 0 ORDER BY id DESC LIMIT $3`, upstream, before, max(limit, 0))
}

// SeeUpstreamAlarm notes, durably, that somebody has looked into the alarm id of upstream, and into all
// before it that say the same word for word. It returns the alarm as it was, and how many were
// marked, which are those that nobody had looked into: what was said first stands. ErrNotFound where there is none.
func (db *DB) SeeUpstreamAlarm(ctx context.Context, upstream string, id int64, seen AlarmSeen) (a UpstreamAlarm, marked int64, err error) {
	found, err := collect(ctx, db.Reader, "read an alarm", scanUpstreamAlarm, "SELECT "+upstreamAlarmColumns+" FROM upstream_alarm WHERE upstream = $1 AND id = $2", upstream, id)
	if err != nil {
		return a, 0, err
	}
	if len(found) == 0 {
		return a, 0, fmt.Errorf("alarm %d: %w", id, ErrNotFound)
	}
	a = found[0]
	marked, err = db.changed(ctx, "note that an alarm was looked into", `UPDATE upstream_alarm SET seen_at = $1, seen_by = $2, seen_why = $3
		WHERE upstream = $4 AND id <= $5 AND seen_at = 0 AND name = $6 AND version = $7 AND kind = $8 AND detail = $9`,
		seen.At.Unix(), clean(seen.By), clean(seen.Why), a.Upstream, id, a.Name, a.Version, a.Kind, a.Detail)
	return a, marked, err
}

func secondsOr0(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func scanUpstreamAlarm(rows *sql.Rows) (a UpstreamAlarm, err error) {
	var seconds, seen int64
	err = rows.Scan(&a.ID, &a.Upstream, &a.Name, &a.Version, &a.Kind, &a.Detail, &seconds, &seen, &a.Seen.By, &a.Seen.Why)
	a.At = time.Unix(seconds, 0).UTC()
	if seen != 0 {
		a.Seen.At = time.Unix(seen, 0).UTC()
	}
	return a, err
}

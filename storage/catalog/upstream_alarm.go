package catalog

import (
	"context"
	"database/sql"
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
}

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
	return t.write(ctx, statement{what: "note an alarm", query: "INSERT INTO upstream_alarm (upstream, name, version, kind, detail, at) VALUES ($1, $2, $3, $4, $5, $6)",
		args: []any{clean(a.Upstream), clean(a.Name), clean(a.Version), clean(a.Kind), clean(a.Detail), a.At.Unix()}})
}

// UpstreamAlarms returns the newest alarms of upstream with an ID below before, newest
// first, at most limit. math.MaxInt64 as before begins with the newest of all.
func (r Reader) UpstreamAlarms(ctx context.Context, upstream string, before int64, limit int) ([]UpstreamAlarm, error) {
	return collect(ctx, r, "read alarms", scanUpstreamAlarm, `SELECT id, upstream, name, version, kind, detail, at FROM upstream_alarm
		WHERE upstream = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, upstream, before, max(limit, 0))
}

func scanUpstreamAlarm(rows *sql.Rows) (a UpstreamAlarm, err error) {
	var seconds int64
	err = rows.Scan(&a.ID, &a.Upstream, &a.Name, &a.Version, &a.Kind, &a.Detail, &seconds)
	a.At = time.Unix(seconds, 0).UTC()
	return a, err
}

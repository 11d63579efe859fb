package catalog

import (
	"context"
	"math"
)

// UpstreamCopied is what CopyUpstream took over, in rows.
type UpstreamCopied struct {
	Files, Blobs, Sources, Pins, Lacks, Alarms int64
}

// copyPage is how many rows CopyUpstream has in memory at once.
const copyPage = 1000

// CopyUpstream takes over what is noted of other registries in another catalog, in one
// transaction; of db's own nothing must be noted.
func (db *DB) CopyUpstream(ctx context.Context, from *DB) (copied UpstreamCopied, err error) {
	err = db.Update(ctx, func(t *Tx) (err error) {
		copied = UpstreamCopied{}
		for _, of := range []struct {
			rows *int64
			copy func(context.Context, *DB) (int64, error)
		}{{&copied.Files, t.copyUpstreamFiles}, {&copied.Blobs, t.copyUpstreamBlobs}, {&copied.Sources, t.copyUpstreamSources}, {&copied.Pins, t.copyUpstreamPins}, {&copied.Lacks, t.copyUpstreamLacks}, {&copied.Alarms, t.copyUpstreamAlarms}} {
			if *of.rows, err = of.copy(ctx, from); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return UpstreamCopied{}, err
	}
	return copied, nil
}

func (t *Tx) copyUpstreamFiles(ctx context.Context, from *DB) (copied int64, err error) {
	for last := (UpstreamFile{}); ; {
		page, err := collect(ctx, from.Reader, "read what is noted of index files", scanUpstreamFile,
			"SELECT "+upstreamFileColumns+" FROM upstream_file WHERE (upstream, name) > ($1, $2) ORDER BY upstream, name LIMIT $3", last.Upstream, last.Name, copyPage)
		if err != nil || len(page) == 0 {
			return copied, err
		}
		for _, f := range page {
			if err := t.putUpstreamFile(ctx, f); err != nil {
				return 0, err
			}
		}
		copied, last = copied+int64(len(page)), page[len(page)-1]
	}
}

func (t *Tx) copyUpstreamBlobs(ctx context.Context, from *DB) (copied int64, err error) {
	for last := (UpstreamBlob{}); ; {
		page, err := from.UpstreamBlobsAfter(ctx, last.CID, copyPage)
		if err != nil || len(page) == 0 {
			return copied, err
		}
		if err := t.PutUpstreamBlobs(ctx, page); err != nil {
			return 0, err
		}
		copied, last = copied+int64(len(page)), page[len(page)-1]
	}
}

func (t *Tx) copyUpstreamSources(ctx context.Context, from *DB) (copied int64, err error) {
	for last := (UpstreamSource{}); ; {
		page, err := from.UpstreamSourcesAfter(ctx, last, copyPage)
		if err != nil || len(page) == 0 {
			return copied, err
		}
		for _, s := range page {
			if err := t.putUpstreamSource(ctx, s); err != nil {
				return 0, err
			}
		}
		copied, last = copied+int64(len(page)), page[len(page)-1]
	}
}

func (t *Tx) copyUpstreamPins(ctx context.Context, from *DB) (copied int64, err error) {
	for cid, lock := "", ""; ; {
		page, err := collect(ctx, from.Reader, "read pins", scanPin,
			"SELECT cid, lock, since, did FROM upstream_pin WHERE (cid, lock) > ($1, $2) ORDER BY cid, lock LIMIT $3", cid, lock, copyPage)
		if err != nil || len(page) == 0 {
			return copied, err
		}
		for _, p := range page {
			cid, lock = p.CID.String(), p.Lock
			if err := t.pin(ctx, cid, lock, p.DID, p.Since); err != nil {
				return 0, err
			}
		}
		copied += int64(len(page))
	}
}

func (t *Tx) copyUpstreamLacks(ctx context.Context, from *DB) (copied int64, err error) {
	for last := (UpstreamLack{}); ; {
		page, err := collect(ctx, from.Reader, "read what lists lack", scanLack, "SELECT "+upstreamLackColumns+` FROM upstream_lack
			WHERE (lock, upstream, name, version) > ($1, $2, $3, $4) ORDER BY lock, upstream, name, version LIMIT $5`,
			last.Lock, last.Upstream, last.Name, last.Version, copyPage)
		if err != nil || len(page) == 0 {
			return copied, err
		}
		for _, l := range page {
			if err := t.lack(ctx, l); err != nil {
				return 0, err
			}
		}
		copied, last = copied+int64(len(page)), page[len(page)-1]
	}
}

// copyUpstreamAlarms gives the alarms new IDs, in the same order.
func (t *Tx) copyUpstreamAlarms(ctx context.Context, from *DB) (copied int64, err error) {
	for last := int64(math.MinInt64); ; {
		page, err := collect(ctx, from.Reader, "read alarms", scanUpstreamAlarm,
			"SELECT "+upstreamAlarmColumns+" FROM upstream_alarm WHERE id > $1 ORDER BY id LIMIT $2", last, copyPage)
		if err != nil || len(page) == 0 {
			return copied, err
		}
		for _, a := range page {
			if err := t.addUpstreamAlarm(ctx, a); err != nil {
				return 0, err
			}
		}
		copied, last = copied+int64(len(page)), page[len(page)-1].ID
	}
}

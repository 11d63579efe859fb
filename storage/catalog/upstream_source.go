package catalog

import (
	"context"
	"database/sql"

	"phoenix-lab.org/aln-registry/storage"
)

// UpstreamSource says that an upstream has served the bytes of a crate, whether they are held by now or not.
type UpstreamSource struct {
	CID storage.CID
	// Name and Version are of the first crate for which they were fetched there.
	Upstream, Name, Version string
}

func (t *Tx) putUpstreamSource(ctx context.Context, s UpstreamSource) error {
	return t.write(ctx, statement{what: "note who served a crate", query: `INSERT INTO upstream_source (cid, upstream, name, version)
		VALUES ($1, $2, $3, $4) ON CONFLICT (cid, upstream) DO NOTHING`, args: []any{s.CID.String(), s.Upstream, s.Name, s.Version}})
}

// heldOf are the CIDs of what is held of the upstream $1; where is a condition on b.cid. Servers
// of the release before write no row of upstream_source.
func heldOf(where string) string {
	return "SELECT b.cid FROM upstream_blob b WHERE b.upstream = $1 AND " + where +
		" UNION SELECT b.cid FROM upstream_source s JOIN upstream_blob b ON b.cid = s.cid WHERE s.upstream = $1 AND " + where
}

// servedBy is a condition: that upstream has served cid, both expressions.
func servedBy(cid, upstream string) string {
	return "(EXISTS (SELECT 1 FROM upstream_source s WHERE s.cid = " + cid + " AND s.upstream = " + upstream +
		") OR EXISTS (SELECT 1 FROM upstream_blob o WHERE o.cid = " + cid + " AND o.upstream = " + upstream + "))"
}

// UpstreamHolds returns those of ids that are held and that upstream itself has served, in byte
// order of their text.
func (r Reader) UpstreamHolds(ctx context.Context, upstream string, ids []storage.CID) (held []storage.CID, err error) {
	err = inBatches(textsOf(ids), 2, func(list string, args []any) error {
		some, err := collect(ctx, r, "look for what is held of another registry", scanCID,
			heldOf("b.cid IN ("+list+")")+" ORDER BY cid", append([]any{upstream}, args...)...)
		held = append(held, some...)
		return err
	})
	return held, err
}

// UpstreamServed returns those of ids that are held, and of each who has served it, one behind the
// other, by upstream.
func (r Reader) UpstreamServed(ctx context.Context, ids []storage.CID) (served []UpstreamSource, err error) {
	err = inBatches(textsOf(ids), 1, func(list string, args []any) error {
		some, err := collect(ctx, r, "look for who served what", scanSource, `SELECT b.cid, COALESCE(s.upstream, b.upstream), COALESCE(s.name, b.name), COALESCE(s.version, b.version)
			FROM upstream_blob b LEFT JOIN upstream_source s ON s.cid = b.cid WHERE b.cid IN (`+list+") ORDER BY 1, 2", args...)
		served = append(served, some...)
		return err
	})
	return served, err
}

func scanSource(rows *sql.Rows) (s UpstreamSource, err error) {
	var text string
	if err := rows.Scan(&text, &s.Upstream, &s.Name, &s.Version); err != nil {
		return s, err
	}
	s.CID, err = storage.ParseCID(text)
	return s, err
}

// UpstreamHeld is how much is held of another registry.
type UpstreamHeld struct {
	Upstream     string
	Blobs, Bytes int64
}

// UpstreamHeld says how much is held of each other registry, by name. What several have served
// counts for each of them.
func (r Reader) UpstreamHeld(ctx context.Context) ([]UpstreamHeld, error) {
	return collect(ctx, r, "measure what is held of other registries", func(rows *sql.Rows) (h UpstreamHeld, err error) {
		err = rows.Scan(&h.Upstream, &h.Blobs, &h.Bytes)
		return h, err
	}, `SELECT h.upstream, COUNT(*), CAST(SUM(h.size) AS BIGINT) FROM (SELECT upstream, cid, size FROM upstream_blob
		UNION SELECT s.upstream, b.cid, b.size FROM upstream_source s JOIN upstream_blob b ON b.cid = s.cid) h GROUP BY h.upstream ORDER BY h.upstream`)
}

// UpstreamHeldBytes is how many bytes are held of all other registries together.
func (r Reader) UpstreamHeldBytes(ctx context.Context) (int64, error) {
	sums, err := collect(ctx, r, "measure what is held of other registries", func(rows *sql.Rows) (sum int64, err error) {
		err = rows.Scan(&sum)
		return sum, err
	}, "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM upstream_blob")
	if err != nil || len(sums) == 0 {
		return 0, err
	}
	return sums[0], nil
}

// UpstreamSourcesAfter returns who served what behind after, in byte order of CID and name, at most limit.
func (r Reader) UpstreamSourcesAfter(ctx context.Context, after UpstreamSource, limit int) ([]UpstreamSource, error) {
	return collect(ctx, r, "list who served what", scanSource, "SELECT cid, upstream, name, version FROM upstream_source WHERE (cid, upstream) > ($1, $2) ORDER BY cid, upstream LIMIT $3", textOf(after.CID), after.Upstream, max(limit, 0))
}

// ForgetUpstreamSources forgets who served those of ids that are not held.
func (t *Tx) ForgetUpstreamSources(ctx context.Context, ids []storage.CID) error {
	for _, text := range textsOf(ids) {
		err := t.write(ctx, statement{what: "forget who served a crate",
			query: "DELETE FROM upstream_source WHERE cid = $1 AND NOT EXISTS (SELECT 1 FROM upstream_blob b WHERE b.cid = $1)", args: []any{text}})
		if err != nil {
			return err
		}
	}
	return nil
}

//go:build unix

package catalog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// fill makes a catalog of 100,000 entries, each a version, of 2,000 crates.
const fill = `
SET session_replication_role = replica; -- foreign keys hold by construction
INSERT INTO entry SELECT i, 'entry', sha256(int8send(i)), 'cid' || i, encode(sha256(int8send(i)), 'hex') FROM generate_series(0, 99999) i;
INSERT INTO log_hash SELECT i, sha256(int8send(i)) FROM generate_series(0, 199990) i;
INSERT INTO state SELECT 'version/crate/crate' || i % 2000 || '/1.0.' || i / 2000, i, '{"kind":"crate"}' FROM generate_series(0, 99999) i;
INSERT INTO state SELECT 'owners/crate/crate' || i % 2000, i, '{}' FROM generate_series(0, 99999, 7) i;
INSERT INTO state SELECT 'member/did:key:' || i % 300, i, '{}' FROM generate_series(0, 99999, 50) i;
INSERT INTO crate_line SELECT i, 'crate' || i % 2000, '1.0.' || i / 2000, '{"name":"crate"}', 'about things', 'words', 'about things' FROM generate_series(0, 99999) i;
INSERT INTO version_cid SELECT 'bafkrei' || encode(sha256(int8send(i)), 'hex'), 'version/crate/crate' || i % 2000 || '/1.0.' || i / 2000, i FROM generate_series(0, 99999) i;
INSERT INTO scan SELECT 'bafkrei' || encode(sha256(int8send(i)), 'hex'), 1, '', '', '', 0 FROM generate_series(0, 99999) i;
INSERT INTO assertion SELECT 'did:key:' || i % 100, 'jti' || i, 2000000000 + i FROM generate_series(0, 99999) i;
INSERT INTO meta SELECT 'key' || i, 'value' FROM generate_series(0, 9999) i;
INSERT INTO audit (time, asker, what, rule, rule_id, outcome, request, count) SELECT i, 'a', 'b', 'c', 'd', 'e', 'f', 1 FROM generate_series(0, 99999) i;
INSERT INTO condemned SELECT 'bafkrei' || encode(sha256(int8send(i)), 'hex'), i FROM generate_series(0, 99999) i;
INSERT INTO upstream_file SELECT 'crates-io', 'crate' || i, '', '', '', 200, i FROM generate_series(0, 99999) i;
INSERT INTO upstream_blob SELECT 'bafkrei' || encode(sha256(int8send(i)), 'hex'), 'crates-io', 'crate' || i % 2000, '1.0.' || i / 2000, i, i, i FROM generate_series(0, 99999) i;
INSERT INTO upstream_source SELECT 'bafkrei' || encode(sha256(int8send(i)), 'hex'), 'upstream' || i % 20, 'crate' || i % 2000, '1.0.' || i / 2000 FROM generate_series(0, 99999) i;
INSERT INTO upstream_pin SELECT 'bafkrei' || encode(sha256(int8send(i)), 'hex'), 'lock' || i % 500, i, 'did:key:1' FROM generate_series(0, 99999, 2) i;
INSERT INTO upstream_lack SELECT 'lock' || i % 600, 'crates-io', 'crate' || i, '1.0.0', 'bafkrei' || encode(sha256(int8send(i)), 'hex'), '', i, 'did:key:1' FROM generate_series(1, 99999, 2) i;
INSERT INTO upstream_alarm (upstream, name, version, kind, detail, at) SELECT 'upstream' || i % 100, 'a', 'b', 'c', 'd', i FROM generate_series(0, 99999) i;
UPDATE head SET size = 100000;
ANALYZE;`

// partial indexes have no more than what is counted by them.
var partial = []string{"scan_found"}

// small tables have one row, or one for each replica.
var small = []string{"head", "published", "replica"}

// notHot is what may read more than it returns, and why. A search for less than
// three letters is another: no index has them.
var notHot = map[string]string{
	"StateDigest":       "reads everything; rebuild and tests ask for it",
	"Unscanned":         "the background asks for it, a page at a time, after a start",
	"Beyond":            "fsck counts what there is not",
	"Faults":            "SQLite's own check, of everything",
	"UpstreamHeld":      "a page that tells of upstreams sums up what there is of each, for who may know of all",
	"UpstreamHeldBytes": "figures, and whoever makes room, sum up what there is, now and then",
	"AuditOf":           "an auditor asks for the entries of one rule, a few at a time, and the trail is bounded",
}

// withoutStatements have none of their own.
var withoutStatements = []string{"Close", "Shared", "Watch", "Update", "Probe", "CopyAudit", "CopyCondemned", "CopyUpstream", "CopySQLite", "AppendAudit"}

// recorder notes the statements of a connection.
type recorder struct {
	mutex      sync.Mutex
	statements map[string][]any
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if _, seen := r.statements[data.SQL]; !seen && len(data.Args) > 0 {
		args := slices.Clone(data.Args)
		if _, formats := args[0].(pgx.QueryResultFormatsByOID); formats {
			args = args[1:]
		}
		r.statements[data.SQL] = args
	}
	return ctx
}

func (*recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestHotStatementsUseIndexes has the catalog say what it says, and PostgreSQL
// how it would go about it in large tables: every one is entered by an index.
func TestHotStatementsUseIndexes(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testbed.SharedPostgres(t).URL
	recorder := &recorder{statements: map[string][]any{}}
	c := config(t, url)
	c.Tracer = recorder
	db, err := openPostgres(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	recorder.statements = map[string][]any{}
	admin := admin(t, url+"&default_query_exec_mode=simple_protocol")
	admin.SetMaxOpenConns(1) // PREPARE and SET are a session's
	run(t, admin, fill)
	callHot(t, db)
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		run(t, admin, "SET plan_cache_mode = "+mode)
		for statement, args := range recorder.statements {
			for _, complaint := range explain(t, admin, statement, args) {
				t.Errorf("%s: %s of\n%s\n%v", mode, complaint, statement, args)
			}
		}
	}
	if len(recorder.statements) < 25 {
		t.Errorf("only %d statements were seen", len(recorder.statements))
	}
}

// callHot calls all that has a statement, but for what is not hot.
func callHot(t *testing.T, db *DB) {
	ctx := t.Context()
	called := map[string]bool{}
	call := func(name string, err error) {
		t.Helper()
		called[name] = true
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	id := storage.CIDOf(nil)
	_, err := db.Confirm(ctx, "a", 100000, time.Millisecond)
	call("Confirm", err)
	for name, read := range hotReads(ctx, db, id) {
		call(name, read())
	}
	call("Publish", db.Publish(ctx, func(context.Context, *Publication) (Published, error) { return Published{Size: 100000}, nil }))
	call("Leave", db.Leave(ctx, "a"))
	_, err = db.UseAssertion(ctx, "did:key:1", "x", time.Unix(2, 0), time.Unix(1, 0))
	call("UseAssertion", err)
	call("SetMeta", db.SetMeta(ctx, "key1", "x"))
	call("AppendAudit", db.AppendAudit(ctx, make([]AuditEntry, 3), 100000))
	call("PutScans", db.PutScans(ctx, []Scan{{CID: id}}))
	call("PutUpstreamFiles", db.PutUpstreamFiles(ctx, []UpstreamFile{{Upstream: "crates-io", Name: "crate7"}}))
	call("UseUpstreamBlobs", db.UseUpstreamBlobs(ctx, []storage.CID{id}, time.Unix(1, 0)))
	call("PinUpstream", db.PinUpstream(ctx, "lock7", "did:key:1", []storage.CID{id}, time.Unix(1, 0)))
	lack := UpstreamLack{Lock: "lock7", Upstream: "crates-io", Name: "crate7", Version: "2.0.0", DID: "did:key:1"}
	call("LackUpstream", db.LackUpstream(ctx, []UpstreamLack{lack}))
	call("HaveUpstream", db.HaveUpstream(ctx, []UpstreamLack{lack}))
	call("LackUpstreamAnew", db.LackUpstreamAnew(ctx, "lock9", "crates-io", []UpstreamLack{lack}))
	_, err = db.UnpinUpstream(ctx, "lock8", time.Time{})
	call("UnpinUpstream", err)
	_, err = db.UnpinUpstream(ctx, "lock8", time.Unix(1, 0))
	call("UnpinUpstream", err)
	_, _, err = db.SeeUpstreamAlarm(ctx, "upstream7", 5008, AlarmSeen{By: "did:key:1", Why: "why", At: time.Unix(1, 0)})
	call("SeeUpstreamAlarm", err)
	call("AddUpstreamAlarm", db.AddUpstreamAlarm(ctx, UpstreamAlarm{Upstream: "upstream7"}, 900))
	err = db.Update(ctx, func(tx *Tx) error {
		_, err := tx.Now(ctx)
		call("Now", err)
		call("Hold", tx.Hold(ctx))
		call("AppendEntry", tx.AppendEntry(ctx, testEntry(100000)))
		call("PutHashes", tx.PutHashes(ctx, 199991, make([][32]byte, 3)))
		call("PutState", tx.PutState(ctx, "version/crate/new/1.0.0", 100000, nil))
		call("PutCrateLine", tx.PutCrateLine(ctx, CrateLine{NameKey: "new", Version: "1.0.0", Index: 100000}))
		call("PutVersionCID", tx.PutVersionCID(ctx, id, "version/crate/new/1.0.0", 100000))
		_, err = tx.RestoreVersionCID(ctx, VersionCID{CID: id.String(), Key: "version/crate/new/1.0.0", Index: 99999})
		call("RestoreVersionCID", err)
		_, err = tx.RestoreCrateLine(ctx, CrateRow{CrateLine: CrateLine{NameKey: "new", Version: "2.0.0", Index: 99999}})
		call("RestoreCrateLine", err)
		_, err = tx.RederiveState(ctx, "version/crate/crate7/1.0.0", 77, nil)
		call("RederiveState", err)
		call("PutScan", tx.PutScan(ctx, Scan{CID: id}))
		call("PutUpstreamBlobs", tx.PutUpstreamBlobs(ctx, []UpstreamBlob{{CID: id, Upstream: "crates-io", Name: "a", Version: "b"}}))
		call("RemoveUpstreamBlobs", tx.RemoveUpstreamBlobs(ctx, []storage.CID{id}))
		call("ForgetUpstreamSources", tx.ForgetUpstreamSources(ctx, []storage.CID{id}))
		call("Condemn", tx.Condemn(ctx, []storage.CID{id}, time.Unix(1, 0)))
		call("Pardon", tx.Pardon(ctx, []storage.CID{id}))
		call("Hold", tx.Hold(ctx))
		call("ForgetCondemned", tx.ForgetCondemned(ctx, time.Unix(1, 0)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []reflect.Type{reflect.TypeFor[*DB](), reflect.TypeFor[*Tx]()} {
		for i := range kind.NumMethod() {
			name := kind.Method(i).Name
			if !called[name] && notHot[name] == "" && !slices.Contains(withoutStatements, name) {
				t.Errorf("%s is neither called here nor said to be seldom", name)
			}
		}
	}
}

func hotReads(ctx context.Context, db *DB, id storage.CID) map[string]func() error {
	const prefix = "version/crate/crate77/"
	return map[string]func() error{
		"Head":             func() error { _, err := db.Head(ctx); return err },
		"Hashes":           func() error { _, err := db.Hashes(ctx, []int64{1, 5, 77777}); return err },
		"Entry":            func() error { _, err := db.Entry(ctx, 100000); return is(err, ErrNotFound) },
		"Entries":          func() error { _, err := db.Entries(ctx, 100000, 100256); return err },
		"EntryByRecord":    func() error { _, _, err := db.EntryByRecord(ctx, "x"); return err },
		"EntryByRecordCID": func() error { _, _, err := db.EntryByRecordCID(ctx, id); return err },
		"State":            func() error { _, _, err := db.State(ctx, prefix+"1.0.3", 90000); return err },
		"States": func() error {
			_, err := db.States(ctx, []string{prefix + "1.0.3", prefix + "1.0.4"}, 90000)
			return err
		},
		"StateRange":       func() error { _, err := db.StateRange(ctx, prefix, PrefixEnd(prefix), 90000, 1000); return err },
		"StateHistory":     func() error { _, err := db.StateHistory(ctx, "owners/crate/crate77", 90000); return err },
		"StateSearch":      func() error { _, err := db.StateSearch(ctx, "version/crate/", "", "te77/", 90000, 50); return err },
		"StateKeys":        func() error { _, err := db.StateKeys(ctx, 99990, 100000, 1000); return err },
		"CrateLines":       func() error { _, err := db.CrateLines(ctx, "crate77", 90000); return err },
		"CrateBytes":       func() error { _, err := db.CrateBytes(ctx, "crate77"); return err },
		"SearchCrates":     func() error { _, _, err := db.SearchCrates(ctx, "rate77", 90000, 10, 0); return err },
		"Published":        func() error { _, _, err := db.Published(ctx); return err },
		"Unconfirmed":      func() error { _, err := db.Unconfirmed(ctx, 0); return err },
		"AssertionsSince":  func() error { _, err := db.AssertionsSince(ctx); return err },
		"Meta":             func() error { _, _, err := db.Meta(ctx, "key7"); return err },
		"ScanOf":           func() error { _, _, err := db.ScanOf(ctx, id); return err },
		"ScansOf":          func() error { _, err := db.ScansOf(ctx, 1, []storage.CID{id, storage.CIDOf([]byte("x"))}); return err },
		"CountFindings":    func() error { _, err := db.CountFindings(ctx); return err },
		"VersionsByCID":    func() error { _, err := db.VersionsByCID(ctx, id, 90000); return err },
		"Audit":            func() error { _, err := db.Audit(ctx, math.MaxInt64, 100); return err },
		"Condemned":        func() error { _, err := db.Condemned(ctx, []storage.CID{id}); return err },
		"Condemnations":    func() error { _, err := db.Condemnations(ctx, []storage.CID{id}); return err },
		"PublishedRecords": func() error { _, err := db.PublishedRecords(ctx, []int64{1, 90000}); return err },
		"UpstreamFile":     func() error { _, _, err := db.UpstreamFile(ctx, "crates-io", "crate7"); return err },
		"UpstreamBlobs": func() error {
			_, err := db.UpstreamBlobs(ctx, []storage.CID{id, storage.CIDOf([]byte("x"))})
			return err
		},
		"UpstreamHolds": func() error {
			_, err := db.UpstreamHolds(ctx, "upstream7", []storage.CID{id, storage.CIDOf([]byte("x"))})
			return err
		},
		"UpstreamServed": func() error {
			_, err := db.UpstreamServed(ctx, []storage.CID{id, storage.CIDOf([]byte("x"))})
			return err
		},
		"UpstreamSourcesAfter": func() error {
			_, err := db.UpstreamSourcesAfter(ctx, UpstreamSource{CID: id, Upstream: "upstream7"}, 100)
			return err
		},
		"UnusedUpstreamBlobs": func() error {
			_, err := db.UnusedUpstreamBlobs(ctx, UpstreamBlob{CID: id, Used: time.Unix(99999, 0)}, 500)
			return err
		},
		"UpstreamPins": func() error { _, err := db.UpstreamPins(ctx, "lock6", id, 100); return err },
		"UpstreamLacks": func() error {
			_, err := db.UpstreamLacks(ctx, UpstreamLack{Lock: "lock7", Upstream: "crates-io", Name: "crate99999"}, 100)
			return err
		},
		"UpstreamLocks":        func() error { _, err := db.UpstreamLocks(ctx, "lock6", 10); return err },
		"UpstreamPinned":       func() error { _, err := db.UpstreamPinned(ctx, []storage.CID{id}); return err },
		"UpstreamAlarms":       func() error { _, err := db.UpstreamAlarms(ctx, "upstream7", math.MaxInt64, 100); return err },
		"UnseenUpstreamAlarms": func() error { _, err := db.UnseenUpstreamAlarms(ctx, "upstream7", math.MaxInt64, 100); return err },
		// What fsck and gc read is read page by page.
		"UpstreamBlobsAfter": func() error { _, err := db.UpstreamBlobsAfter(ctx, id, 100); return err },
		"EntryRows":          func() error { _, err := db.EntryRows(ctx, 50000, 50100); return err },
		"HashRows":           func() error { _, err := db.HashRows(ctx, 50000, 50100); return err },
		"StateRows":          func() error { _, err := db.StateRows(ctx, StateKey{Key: prefix}, 90000, 100); return err },
		"CrateRows":          func() error { _, err := db.CrateRows(ctx, 50000, 90000, 100); return err },
		"VersionCIDs":        func() error { _, err := db.VersionCIDs(ctx, VersionCID{CID: "bafkrei7"}, 90000, 100); return err },
		"Ends":               func() error { _, err := db.Ends(ctx); return err },
	}
}

func is(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%w instead of %w", err, want)
}

// explain says what is wrong with how statement would be executed.
func explain(t *testing.T, admin *sql.DB, statement string, args []any) (complaints []string) {
	t.Helper()
	name := fmt.Sprintf("s%x", sha256.Sum256([]byte(statement)))[:20]
	execute := name
	if len(args) > 0 {
		var literals []string
		for _, a := range args {
			literals = append(literals, literal(t, a))
		}
		execute += "(" + strings.Join(literals, ", ") + ")"
	}
	run(t, admin, "PREPARE "+name+" AS "+statement)
	defer run(t, admin, "DEALLOCATE "+name)
	var text string
	if err := admin.QueryRowContext(t.Context(), "EXPLAIN (FORMAT JSON) EXECUTE "+execute).Scan(&text); err != nil {
		t.Fatalf("explain %s: %v", statement, err)
	}
	var plans []struct{ Plan plan }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		p.Plan.complain(&complaints)
	}
	return complaints
}

type plan struct {
	Type      string `json:"Node Type"`
	Relation  string `json:"Relation Name"`
	Index     string `json:"Index Name"`
	Condition string `json:"Index Cond"`
	Plans     []plan
}

// complain adds each scan of a large table that no index bounds.
func (p plan) complain(complaints *[]string) {
	scans := p.Type == "Seq Scan" || p.Type == "Index Scan" || p.Type == "Index Only Scan" // a bitmap's scan is below it
	if scans && p.Condition == "" && !slices.Contains(small, p.Relation) && !slices.Contains(partial, p.Index) {
		*complaints = append(*complaints, fmt.Sprintf("%s of %s without a condition", p.Type, p.Relation))
	}
	for _, below := range p.Plans {
		below.complain(complaints)
	}
}

func literal(t *testing.T, value any) string {
	t.Helper()
	switch v := value.(type) {
	case int, int64:
		return fmt.Sprint(v)
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case []byte:
		return fmt.Sprintf(`'\x%x'`, v)
	}
	t.Fatalf("an argument is a %T", value)
	return ""
}

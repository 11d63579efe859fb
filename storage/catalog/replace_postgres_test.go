//go:build unix

package catalog_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// begin begins a replacement, which must work.
func begin(t *testing.T, url string) *catalog.Replacement {
	t.Helper()
	r, err := catalog.ReplacePostgres(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func setMeta(t *testing.T, db *catalog.DB, value string) {
	t.Helper()
	if err := db.SetMeta(t.Context(), "who", value); err != nil {
		t.Fatal(err)
	}
}

func wantMeta(t *testing.T, db *catalog.DB, want string) {
	t.Helper()
	if got, _, err := db.Meta(t.Context(), "who"); err != nil || got != want {
		t.Errorf("who is %q, %v; want %q", got, err, want)
	}
}

// ask returns what one statement answers.
func ask(t *testing.T, url, statement string) (answer string) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), statement).Scan(&answer); err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("%s: %v", statement, err)
	}
	return answer
}

const schemas = "SELECT COALESCE(string_agg(nspname, ' ' ORDER BY nspname), '') FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"

var replaced = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func TestAReplacementTakesThePlaceAndKeepsTheOther(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	ask(t, url, "CREATE TABLE guests (name TEXT)") // of somebody else
	old := openPostgres(t, url)
	setMeta(t, old, "old")
	condemned := []storage.CID{storage.CIDOf([]byte("a")), storage.CIDOf([]byte("b"))}
	condemn := func(id storage.CID) {
		err := old.Update(t.Context(), func(tx *catalog.Tx) error { return tx.Condemn(t.Context(), []storage.CID{id}, replaced) })
		if err != nil {
			t.Fatal(err)
		}
	}
	condemn(condemned[0])
	r := begin(t, url)
	setMeta(t, r.DB, "new")
	wantMeta(t, old, "old")
	condemn(condemned[1]) // meanwhile
	kept, err := r.Finish(t.Context(), replaced)
	if err != nil || kept != "public_before_rebuild_20261126t120000z" {
		t.Fatalf("kept as %q, %v", kept, err)
	}
	wantMeta(t, old, "new") // whoever has it open sees the new one
	if got, err := old.Condemned(t.Context(), condemned); err != nil || len(got) != 2 {
		t.Errorf("condemned are %v, %v", got, err)
	}
	if got := ask(t, url, "SELECT value FROM "+kept+".meta"); got != "old" {
		t.Errorf("kept is %q", got)
	}
	if got := ask(t, url, schemas); got != "public "+kept {
		t.Errorf("there are the schemas %s", got)
	}
	if err := old.AppendAudit(t.Context(), []catalog.AuditEntry{{Time: replaced, Count: 1}}, 10); err != nil { // its sequence came with it
		t.Error(err)
	}
	if schema, err := catalog.PostgresSchema(t.Context(), url); err != nil || schema.Current != schema.Known {
		t.Errorf("schema %+v, %v", schema, err)
	}
	ask(t, url, "SELECT COUNT(*) FROM guests")
}

func TestAReplacementThatIsGivenUpChangesNothing(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	old := openPostgres(t, url)
	setMeta(t, old, "old")
	r := begin(t, url)
	setMeta(t, r.DB, "half")
	if _, err := catalog.ReplacePostgres(t.Context(), url, nil); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	wantMeta(t, old, "old")
	again := begin(t, url) // on what the first one left
	if got, _, err := again.DB.Meta(t.Context(), "who"); err != nil || got != "" {
		t.Errorf("it begins with %q, %v", got, err)
	}
	if _, err := again.Finish(t.Context(), replaced); err != nil {
		t.Fatal(err)
	}
	wantMeta(t, old, "")
}

func TestNothingIsReplacedUnderAServer(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	old := openPostgres(t, url)
	setMeta(t, old, "old")
	confirm := func(lease time.Duration) {
		if _, err := old.Confirm(t.Context(), "host-7/aa", 0, lease); err != nil {
			t.Fatal(err)
		}
	}
	confirm(time.Minute)
	if _, err := catalog.ReplacePostgres(t.Context(), url, nil); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), "host-7/aa") {
		t.Errorf("beside a server: %v", err)
	}
	if got := ask(t, url, schemas); got != "public" {
		t.Errorf("there are the schemas %s", got)
	}
	if err := old.Leave(t.Context(), "host-7/aa"); err != nil {
		t.Fatal(err)
	}
	r := begin(t, url)
	confirm(time.Minute) // somebody starts one
	if _, err := r.Finish(t.Context(), replaced); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("a server that was started meanwhile: %v", err)
	}
	wantMeta(t, old, "old")
}

func TestAnEmptyDatabaseGetsTheCatalog(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	r := begin(t, url)
	setMeta(t, r.DB, "new")
	if kept, err := r.Finish(t.Context(), replaced); err != nil || kept != "" {
		t.Fatalf("kept as %q, %v", kept, err)
	}
	if got := ask(t, url, schemas); got != "public" {
		t.Errorf("there are the schemas %s", got)
	}
	wantMeta(t, openPostgres(t, url), "new")
}

// Two registries may share a database, each in a schema of its own.
func TestAReplacementStaysInItsSchema(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	ask(t, url, "CREATE SCHEMA lab")
	other, own := openPostgres(t, url), openPostgres(t, url+"&search_path=lab")
	setMeta(t, other, "other")
	setMeta(t, own, "old")
	r := begin(t, url+"&search_path=lab")
	setMeta(t, r.DB, "new")
	if kept, err := r.Finish(t.Context(), replaced); err != nil || kept != "lab_before_rebuild_20261126t120000z" {
		t.Fatalf("kept as %q, %v", kept, err)
	}
	wantMeta(t, own, "new")
	wantMeta(t, other, "other")
}

func TestANewerCatalogIsNotReplaced(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	openPostgres(t, url)
	ask(t, url, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)")
	if _, err := catalog.ReplacePostgres(t.Context(), url, nil); !errors.Is(err, catalog.ErrNewerSchema) {
		t.Errorf("%v", err)
	}
}

// A search has its index after a rebuild, whether the database had the extension
// that the index needs or the rebuild brought it.
func TestAReplacementHasTheIndexOfSearches(t *testing.T) {
	const index = "SELECT tablename FROM pg_indexes WHERE schemaname = 'public' AND indexname = 'crate_line_by_part'"
	for name, before := range map[string]func(url string){
		"after a catalog":        func(url string) { openPostgres(t, url) },
		"into an empty database": func(string) {},
		"after a schema was dropped": func(url string) {
			openPostgres(t, url)
			ask(t, url, "DROP SCHEMA public CASCADE")
			ask(t, url, "CREATE SCHEMA public")
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := testbed.SharedPostgres(t).URL
			before(url)
			for round := range 2 {
				r := begin(t, url)
				_, err := r.Finish(t.Context(), replaced.Add(time.Duration(round)*time.Second))
				if err := errors.Join(err, r.Close()); err != nil {
					t.Fatal(err)
				}
				if got := ask(t, url, index); got != "crate_line" {
					t.Errorf("the index is on %q", got)
				}
				// what is kept hangs on no extension, which could not be dropped under it
				if got := ask(t, url, "SELECT string_agg(schemaname, ' ') FROM pg_indexes WHERE indexname = 'crate_line_by_part'"); got != "public" {
					t.Errorf("the index is in %q", got)
				}
			}
		})
	}
}

// ownedBy gives a database to a role that is no superuser, and returns its URL for it.
func ownedBy(t *testing.T, url, role string) string {
	t.Helper()
	ask(t, url, "CREATE ROLE "+role+" LOGIN")
	ask(t, url, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO "+role+"', current_database()); END $$")
	t.Cleanup(func() { // the server outlives the test
		db, err := sql.Open("pgx", url)
		if err == nil {
			_, err = db.Exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO postgres', current_database()); END $$; DROP OWNED BY " + role + " CASCADE; DROP ROLE " + role)
			err = errors.Join(err, db.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return strings.Replace(url, "postgres@", role+"@", 1)
}

// A catalog is replaced by whoever owns the database, in an empty one, too: the extension
// belongs to a superuser then, and is where it was made.
func TestAnOwnerOfADatabaseReplacesItsCatalog(t *testing.T) {
	url := testbed.SharedPostgres(t).URL
	own := ownedBy(t, url, "aln_owner")
	for round := range 2 {
		r := begin(t, own)
		setMeta(t, r.DB, "new")
		_, err := r.Finish(t.Context(), replaced.Add(time.Duration(round)*time.Second))
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		wantMeta(t, openPostgres(t, own), "new")
		if got := ask(t, url, "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_trgm'"); got != "public" {
			t.Errorf("the extension is in %q", got)
		}
		if got := ask(t, url, "SELECT tablename FROM pg_indexes WHERE schemaname = 'public' AND indexname = 'crate_line_by_part'"); got != "crate_line" {
			t.Errorf("the index is on %q", got)
		}
		if got := ask(t, url, schemas); strings.Contains(got, "_rebuilding") {
			t.Errorf("there are the schemas %s", got)
		}
	}
}

// An address whose schema is not there says how to make it, and nothing is damaged.
func TestASchemaThatIsNotThere(t *testing.T) {
	url := testbed.SharedPostgres(t).URL + "&search_path=lab"
	wants := func(err error) {
		t.Helper()
		if err == nil || errors.Is(err, catalog.ErrDamaged) || !strings.Contains(err.Error(), `there is no schema "lab"`) || !strings.Contains(err.Error(), `CREATE SCHEMA "lab" AUTHORIZATION "postgres"`) {
			t.Errorf("%v", err)
		}
	}
	_, err := catalog.OpenPostgres(t.Context(), url)
	wants(err)
	_, err = catalog.ReplacePostgres(t.Context(), url, nil)
	wants(err)
	_, err = catalog.PostgresSchema(t.Context(), url)
	wants(err)
	_, err = catalog.MigratePostgres(t.Context(), url, nil)
	wants(err)
	ask(t, url, `CREATE SCHEMA "lab" AUTHORIZATION "postgres"`)
	openPostgres(t, url)
}

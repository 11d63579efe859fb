//go:build unix

package catalog_test

import (
	"testing"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/catalog/catalogtest"
)

func openPostgres(t *testing.T, url string) *catalog.DB {
	t.Helper()
	db, err := catalog.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return db
}

func TestCatalogOnPostgres(t *testing.T) {
	t.Parallel()
	catalogtest.Run(t, func(t *testing.T) *catalog.DB { return openPostgres(t, testbed.SharedPostgres(t).URL) })
}

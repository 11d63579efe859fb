package testbed

import "testing"

// PG is a PostgreSQL server, of which there is none on Windows.
type PG struct {
	// URL is of an empty database.
	URL string
}

// Postgres fails the test: no engine of the tests runs on Windows.
func Postgres(t testing.TB) *PG {
	t.Helper()
	t.Fatal(errNoEngine)
	return nil
}

// SharedPostgres fails the test, too.
func SharedPostgres(t testing.TB) *PG {
	t.Helper()
	return Postgres(t)
}

// NewDatabase makes no database.
func (p *PG) NewDatabase(testing.TB) string { return "" }

// TLSURL is the URL of none.
func (p *PG) TLSURL(_, _ string) string { return "" }

// Address is that of none.
func (p *PG) Address() string { return "" }

// Kill ends nothing.
func (p *PG) Kill() {}

// Stop ends nothing.
func (p *PG) Stop() {}

// Start starts nothing.
func (p *PG) Start() {}

//go:build !unix

package testbed

import "testing"

// PG is not to be had here: the tests of engines run where engines do.
type PG struct{ URL string }

const noPostgres = "testbed: PostgreSQL is brought up on Unix only"

// Postgres fails t.
func Postgres(t testing.TB) *PG {
	t.Helper()
	t.Fatal(noPostgres)
	return nil
}

// SharedPostgres fails t.
func SharedPostgres(t testing.TB) *PG {
	t.Helper()
	return Postgres(t)
}

// NewDatabase fails t.
func (*PG) NewDatabase(t testing.TB) string {
	t.Helper()
	return Postgres(t).URL
}

// TLSURL is nothing.
func (*PG) TLSURL(string, string) string { return "" }

// Address is nothing.
func (*PG) Address() string { return "" }

// Kill does nothing.
func (*PG) Kill() {}

// Stop does nothing.
func (*PG) Stop() {}

// Start does nothing.
func (*PG) Start() {}

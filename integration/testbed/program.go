package testbed

import "testing"

// Program makes sure of a program of Debian, installing packages where it is missing.
func Program(t testing.TB, program string, packages ...string) {
	t.Helper()
	debian(t, []string{program}, packages)
}

// MinIOProgram is MinIO's program, for who starts it in a way of their own.
func MinIOProgram(t testing.TB) string {
	t.Helper()
	return built(t, minioPackage)
}

// MinIOPackage is where it comes from, as go install takes it.
const MinIOPackage = minioPackage

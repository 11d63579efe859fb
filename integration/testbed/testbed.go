// Package testbed brings up the real parts that tests run against: PostgreSQL,
// MinIO, Ceph's RADOS Gateway, a stand-in of crates.io with Debian's crates, and
// proxies that do to their connections what networks do. It installs what it
// needs on a fresh machine, and fails where a part cannot be had; it never skips.
//
// Invariants: everything listens on loopback only, lives in a folder of the
// test's own, and has ended when the test has; processes are ended by their pid.
// No program imports it, tests of any package may.
package testbed

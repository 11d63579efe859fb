package durable

import "os"

// ExposedError says that others than its owner may open a file or folder.
type ExposedError struct {
	// How they may: "its mode is 0644", `BUILTIN\Users may open it`.
	How string
	// Mend is the command that shuts them out.
	Mend string
}

// Error says both.
func (e *ExposedError) Error() string {
	return e.How + "; if nobody else has read it, run: " + e.Mend
}

// OwnerOnly is an *ExposedError if others than its owner may open the file or
// folder f. Who may do anything on this computer (root; SYSTEM and Administrators)
// does not count.
func OwnerOnly(f *os.File) error { return exposed(f, false) }

// NotPublic is an *ExposedError if everybody on this computer may open the file f;
// some others may.
func NotPublic(f *os.File) error { return exposed(f, true) }

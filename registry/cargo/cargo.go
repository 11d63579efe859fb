// Package cargo holds Cargo's wire formats: names, versions and version
// requirements, the lines of a registry index, the body of a publish request,
// the tarball (.crate) with the manifest inside it, and the lock of a build. It is a leaf and pure:
// bytes in, values or a Problem out.
//
// Invariants: everything read here is bounded in bytes, entries and depth;
// what an index line says of dependencies and features comes from the manifest
// in the tarball and from nothing else; the same tarball, settings and time
// give the same line, byte for byte; two names that differ only in case or in
// '-' and '_' are one name (CanonicalName); an accepted tarball unpacks to the
// same files with every reader and on every file system.
//
// Sources: the Cargo reference (registry index, registry web API, manifest),
// SemVer 2.0.0, and the behaviour of cargo 1.95.
package cargo

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of refusal, for errors.Is. Every error of this package that is caused
// by the input is a *Problem (or *ForeignRegistry) and matches exactly one.
var (
	// ErrName: a crate name that Cargo's rules do not allow.
	ErrName = errors.New("bad crate name")
	// ErrVersion: not a SemVer version, or not a version requirement.
	ErrVersion = errors.New("bad version")
	// ErrFrame: the body of a publish request, or an index line, is not what Cargo sends.
	ErrFrame = errors.New("bad frame")
	// ErrTooLarge: a limit in bytes, entries or compression was exceeded.
	ErrTooLarge = errors.New("too large")
	// ErrTarball: the .crate breaks a rule for tarballs.
	ErrTarball = errors.New("bad tarball")
	// ErrManifest: Cargo.toml is missing, unreadable, or not what was announced.
	ErrManifest = errors.New("bad manifest")
	// ErrLock: not a Cargo.lock that can be read in only one way.
	ErrLock = errors.New("bad lock file")
	// ErrForeignRegistry: a dependency on a registry that is not allowed here.
	ErrForeignRegistry = errors.New("dependency on a foreign registry")
)

// Code names the broken rule; stable, for programs.
type Code string

// The codes of this package.
const (
	CodeName         Code = "crate-name"
	CodeReservedName Code = "crate-name-reserved"
	CodeVersion      Code = "version"
	CodeRequirement  Code = "version-requirement"
	CodeFrame        Code = "publish-frame"
	CodeMetadata     Code = "publish-metadata"
	CodeLine         Code = "index-line"
	CodeTooLarge     Code = "too-large"
	CodeRatio        Code = "compression-ratio"
	CodeGzip         Code = "tarball-gzip"
	CodeTar          Code = "tarball-format"
	CodeEntryType    Code = "tarball-entry-type"
	CodePath         Code = "tarball-path"
	CodeCollision    Code = "tarball-collision"
	CodeManifest     Code = "manifest"
	CodeIdentity     Code = "manifest-identity"
	CodeDependency   Code = "manifest-dependency"
	CodeFeature      Code = "manifest-feature"
	CodeLock         Code = "lock-file"
)

// Problem says what is wrong with the input and what to do about it. Its text
// may be shown to whoever sent the input.
type Problem struct {
	Kind  error // one of the sentinels above
	Code  Code
	Text  string
	Cause error // the error underneath, or nil; not part of the text
}

// Error returns the text.
func (p *Problem) Error() string { return p.Text }

// Unwrap gives the kind and, where there is one, the cause.
func (p *Problem) Unwrap() []error {
	if p.Cause == nil {
		return []error{p.Kind}
	}
	return []error{p.Kind, p.Cause}
}

func problem(kind error, code Code, format string, args ...any) *Problem {
	return &Problem{Kind: kind, Code: code, Text: fmt.Sprintf(format, args...)}
}

// ForeignRegistry refuses a dependency whose registry is neither this one, nor
// crates.io, nor one the registry's settings allow. It matches ErrForeignRegistry.
type ForeignRegistry struct {
	Dependency string // name as written in the manifest
	URL        string // its registry-index
}

// Error says what to do.
func (e *ForeignRegistry) Error() string {
	return fmt.Sprintf("dependency %q comes from the registry %q, which is not allowed here; depend on a crate of this registry or of crates.io, or ask an admin to add that URL to the dependency registries", e.Dependency, e.URL)
}

// Unwrap returns ErrForeignRegistry.
func (e *ForeignRegistry) Unwrap() error { return ErrForeignRegistry }

// Limits bounds what is read from outside. A field that is zero takes its
// value from DefaultLimits.
type Limits struct {
	CrateBytes    int64 // bytes of the compressed .crate
	UnpackedBytes int64 // bytes of the tar stream inside it, headers and padding included
	Entries       int   // files and folders, those only implied by a path included
	Ratio         int64 // unpacked bytes per compressed byte, looked at beyond the first ratioFloor bytes
	PathBytes     int   // bytes of one path, <name>-<version>/ included
}

// DefaultLimits are those of crates.io where it has one (512 MiB unpacked).
func DefaultLimits() Limits {
	return Limits{CrateBytes: 64 << 20, UnpackedBytes: 512 << 20, Entries: 32768, Ratio: 100, PathBytes: 512}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.CrateBytes > 0 {
		d.CrateBytes = l.CrateBytes
	}
	if l.UnpackedBytes > 0 {
		d.UnpackedBytes = l.UnpackedBytes
	}
	if l.Entries > 0 {
		d.Entries = l.Entries
	}
	if l.Ratio > 0 {
		d.Ratio = l.Ratio
	}
	if l.PathBytes > 0 {
		d.PathBytes = l.PathBytes
	}
	return d
}

// quote shortens s for a message, so that hostile input cannot fill a log.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%.80q…", s)
	}
	return fmt.Sprintf("%q", s)
}

// short is err's text cut to a length fit for a message.
func short(err error) string {
	const most = 300
	if s := err.Error(); len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(err.Error()[:most], "") + "…"
}

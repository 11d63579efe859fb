package client

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// The clauses of a preflight: what a finding is about.
const (
	ClauseGrant     = "grant"
	ClauseTime      = "time"
	ClauseCrates    = "crates"
	ClauseCache     = "cache"
	ClauseSources   = "sources"
	ClauseOverrides = "overrides"
	ClauseMemory    = "memory"
	ClauseDisk      = "disk"
	ClauseEndpoints = "endpoints"
	ClauseProtocols = "protocols"
	ClauseShards    = "shards"
	// ClausePrefetch: the registry cannot decide yet. Its findings say nothing against a build.
	ClausePrefetch = "prefetch"
)

// Finding is one reason why a build must not begin.
type Finding struct {
	Clause string `json:"clause"`
	Detail string `json:"detail"`
	// Mend is what to type or do.
	Mend string `json:"mend"`
}

func found(clause, mend, format string, args ...any) Finding {
	return Finding{Clause: clause, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

// Charter is a grant with all that it names, fetched and verified: what a build
// is held against.
type Charter struct {
	CID storage.CID
	Env particle.EnvGrant
	// All: every crate is allowed that nothing else forbids; otherwise those listed.
	All    bool
	Listed map[[32]byte]bool
	// Pool is nil where the grant names none, or where it could not be had.
	Pool *particle.MemoryPoolShard
	// Without: there is no grant, and nothing to hold a build against but what the registry decides.
	Without bool
}

// Locked is a crate of a lock with the place that it comes from.
type Locked struct {
	cargo.Locked
	Place Place
	// Cached are the crates of that name and version in CARGO_HOME that it may be taken from.
	Cached []Cached
}

// Cached is a crate's file in CARGO_HOME, with the hash of its bytes.
type Cached struct {
	Path string
	// Hash is zero where the file could not be read, and Problem says why.
	Hash    [32]byte
	Problem string
}

// Override is something in the project or in cargo's configuration by which a
// build takes other code than the lock and the index say.
type Override struct {
	// Kind is OverridePatch and so on, File where it stands.
	Kind, File string
	// What is replaced, To what.
	What, To string
}

// Kinds of Override.
const (
	OverridePatch   = "patch"
	OverridePath    = "path dependency"
	OverridePaths   = "paths"
	OverrideSource  = "source replacement"
	OverrideInclude = "include"
	OverrideStray   = "stray"
)

// Build is what is known of a build before it begins.
type Build struct {
	Locked    []Locked
	Overrides []Override
	// Asked are the hosts that the build asks.
	Asked []Endpoint
	// MemMB and DiskMB are what it takes, in MiB; 0: not stated.
	MemMB, DiskMB int64
}

// Check holds a build against a charter, at the time now. decided are the
// registry's decisions about Judgeable, in that order. The findings come in the
// order of the clauses; none: the build may begin.
func (c Charter) Check(b Build, decided []Decision, now time.Time) []Finding {
	if c.Without {
		return append(b.Check(), c.checkCrates(b.Locked, decided)...)
	}
	all := append(c.checkTime(now), b.Check()...)
	all = append(all, c.checkCrates(b.Locked, decided)...)
	all = append(all, c.checkSize(b)...)
	return append(all, c.checkEndpoints(b.Asked)...)
}

// Check names what no grant could allow.
func (b Build) Check() []Finding {
	return append(checkSources(b.Locked), checkOverrides(b.Overrides)...)
}

func (c Charter) checkTime(now time.Time) []Finding {
	mend := "ask a grantor for a grant of this time: " + c.another()
	switch {
	case now.Before(c.Env.NotBefore.Time):
		return []Finding{found(ClauseTime, "wait, or "+mend, "the grant is not in force before %s", c.Env.NotBefore)}
	case !now.Before(c.Env.Expires.Time):
		return []Finding{found(ClauseTime, mend, "the grant expired at %s", c.Env.Expires)}
	}
	return nil
}

// another is what a grantor types for a grant of the lock in the place of this one: beside
// it, it would leave the host to name one of two.
func (c Charter) another() string {
	return "aln-registry grant new --subject " + string(c.Env.Subject) + " --supersedes " + c.CID.String() + " --from-lockfile Cargo.lock"
}

// checkSources names what comes from where no registry of ours decides.
func checkSources(locked []Locked) []Finding {
	var all []Finding
	for _, p := range locked {
		switch {
		case p.Place.Kind == PlaceGit:
			all = append(all, found(ClauseSources, "publish it here and depend on that version", "%s %s comes from a git repository, %s, whose content no grant names", p.Name, p.Version, p.Source))
		case p.Place.Kind == PlaceForeign:
			all = append(all, found(ClauseSources, "publish it here, or depend on another crate", "%s %s comes from %s, which is neither this registry nor crates.io", p.Name, p.Version, p.Source))
		case p.Place.Kind == PlaceProject:
		case !isHash(p.Checksum) && p.Checksum != "":
			all = append(all, found(ClauseSources, "write the lock anew with `cargo generate-lockfile`", "%s %s has %q for a checksum in the lock, which is no sha256", p.Name, p.Version, p.Checksum))
		case p.Checksum == "":
			all = append(all, found(ClauseSources, "write the lock anew with `cargo generate-lockfile`", "%s %s has no checksum in the lock, so that cargo would take any bytes", p.Name, p.Version))
		}
	}
	return all
}

// isHash reports whether a lock's checksum is one that cargo writes: lower-case hex.
func isHash(checksum string) bool {
	raw, err := hex.DecodeString(checksum)
	return err == nil && len(raw) == 32 && strings.ToLower(checksum) == checksum && strings.Trim(checksum, "0") != "" // nothing hashes to zeros
}

func checkOverrides(overrides []Override) []Finding {
	var all []Finding
	for _, o := range overrides {
		mend, says := "remove it from "+o.File, ""
		switch o.Kind {
		case OverridePatch:
			says = fmt.Sprintf("[patch] or [replace] in %s puts %s in the place of %s", o.File, o.To, o.What)
		case OverridePath:
			says, mend = fmt.Sprintf("%s depends on %s by the path %s, outside of this project", o.File, o.What, o.To), "publish that crate and depend on a version of it, or move it into the workspace"
		case OverridePaths:
			says = fmt.Sprintf("paths in %s puts what lies in %s in the place of crates of its name", o.File, o.To)
		case OverrideSource:
			says = fmt.Sprintf("[source] in %s takes what belongs to %s from %s", o.File, o.What, o.To)
		case OverrideStray:
			says, mend = fmt.Sprintf("the lock has %s without a source, and no manifest that %s leads to is of that package", o.What, o.File), "name its folder in workspace.members, or check the Cargo.lock that lies beside the project's Cargo.toml"
		case OverrideInclude:
			says, mend = fmt.Sprintf("include in %s brings settings from elsewhere, which are not looked at", o.File), "write them into "+o.File+" itself"
		}
		all = append(all, found(ClauseOverrides, mend, "%s", says))
	}
	return all
}

// Judgeable lists what the registry is to decide about: the locked crates that
// registries have, and what lies in CARGO_HOME under their names with other bytes.
func Judgeable(locked []Locked) []Judged {
	var all []Judged
	for _, p := range locked {
		for _, j := range p.judgeable() {
			all = append(all, j.Judged)
		}
	}
	return all
}

// judgeable is a crate to be decided about; path is its file's in CARGO_HOME, ""
// for what the lock pins.
type judgeable struct {
	Judged
	hash [32]byte
	path string
}

func (p Locked) judgeable() []judgeable {
	hash, err := particle.ParseHash(p.Checksum)
	if err != nil || p.Place.Source() == "" {
		return nil
	}
	judged := Judged{Name: p.Name, Version: p.Version, SHA256: p.Checksum, Source: p.Place.Source()}
	all := []judgeable{{Judged: judged, hash: hash}}
	for _, c := range p.Cached {
		if c.Problem == "" && c.Hash != hash {
			judged.SHA256 = hex.EncodeToString(c.Hash[:])
			all = append(all, judgeable{Judged: judged, hash: c.Hash, path: c.Path})
		}
	}
	return all
}

// flagOf is the flag of `why` about what is from source.
func flagOf(source string) string {
	if source == particle.SourceHosted {
		return ""
	}
	return " --source " + source
}

// checkCrates names every crate that the grant does not list, whatever the
// registry says, and every one that the registry denies.
func (c Charter) checkCrates(locked []Locked, decided []Decision) []Finding {
	var all []Finding
	for _, p := range locked {
		judged := p.judgeable()
		mine := decided[:min(len(judged), len(decided))]
		decided = decided[len(mine):]
		has, wrong := "", false
		if len(mine) > 0 && !c.Listed[judged[0].hash] { // what a grant lists is not the lock's mistake
			has, wrong = mine[0].otherBytes(judged[0].hash)
		}
		all = append(all, p.checkCache(has)...)
		for i, j := range judged {
			switch {
			case wrong && i == 0:
				all = append(all, p.wrongLock(has))
			case j.path != "" && !p.isCached(): // that it differs was said
			case !c.Without && !c.All && !c.Listed[j.hash]:
				all = append(all, j.denied("the grant "+c.CID.String()+" does not list its hash, "+j.SHA256, "ask a grantor for a grant that lists it ("+c.another()+"), or lock a version that is allowed"))
			case i >= len(mine):
				all = append(all, j.denied("the registry did not decide about it", "try again"))
			case mine[i].unready() && j.path == "" && p.Place.UpstreamOf() != "" && p.Place.Kind != PlaceCratesIO:
				all = append(all, found(ClausePrefetch, "aln-registry prefetch Cargo.lock has the registry fetch and look into it; then type this again", "%s %s is not looked into yet: nobody had it fetched, and rule %s asks for what that would show", p.Name, p.Version, named(mine[i])))
			case !mine[i].Allow:
				all = append(all, j.denied("it is denied by rule "+named(mine[i])+": "+mine[i].Reason, "aln-registry why "+p.Name+"@"+p.Version+flagOf(j.Source)+" says more; lock a version that is allowed"))
			}
		}
	}
	return all
}

func (j judgeable) denied(why, mend string) Finding {
	if j.path != "" {
		return found(ClauseCache, "remove that file and its unpacked copy under registry/src in CARGO_HOME", "%s, which cargo would take for %s %s, may not be built with: %s", j.path, j.Name, j.Version, why)
	}
	from := ""
	if j.Source != particle.SourceHosted {
		from = " of " + j.Source
	}
	return found(ClauseCrates, mend, "%s %s%s may not be built with: %s", j.Name, j.Version, from, why)
}

// named is a decision's rule with its id.
func named(d Decision) string {
	if d.RuleID == "" {
		return d.Rule
	}
	return d.Rule + " " + d.RuleID
}

// wrongLock is about a lock that pins other bytes than the version has. Cargo itself mends that no
// other way: with that line it refuses to update, and without it takes that of the index.
func (p Locked) wrongLock(has string) Finding {
	return found(ClauseCrates, "find out who changed that in the lock (`git log -p Cargo.lock`); then delete the line `checksum = …` of "+p.Name+" "+p.Version+" there and type `cargo fetch`, which writes that of the index",
		"%s %s has the checksum %s in the lock, and %s in the index of %s: the lock is what is wrong, and cargo refuses it", p.Name, p.Version, p.Checksum, has, indexOf(p.Place.Source()))
}

// indexOf is how people call the index of source.
func indexOf(source string) string {
	if source == particle.SourceHosted {
		return "this registry"
	}
	return source
}

// checkCache compares what lies in CARGO_HOME with the lock: cargo, once it has
// downloaded a crate, looks at its checksum no more. Bytes whose sha256 is has ("": of none) are
// those of the index, and it is the lock that has others.
func (p Locked) checkCache(has string) []Finding {
	_, err := particle.ParseHash(p.Checksum)
	same := p.isCached()
	var all []Finding
	for _, c := range p.Cached {
		switch {
		case c.Problem != "":
			all = append(all, found(ClauseCache, "remove it", "%s cannot be read: %s", c.Path, c.Problem))
		case err == nil && !same && hex.EncodeToString(c.Hash[:]) != has: // where one has the lock's bytes, another is of a registry beside it
			all = append(all, found(ClauseCache, "remove that file and its unpacked copy under registry/src in CARGO_HOME", "%s has other bytes than the lock pins for %s %s", c.Path, p.Name, p.Version))
		}
	}
	return all
}

// isCached reports whether CARGO_HOME has the very bytes that the lock pins.
func (p Locked) isCached() bool {
	hash, err := particle.ParseHash(p.Checksum)
	return err == nil && slices.ContainsFunc(p.Cached, func(c Cached) bool { return c.Problem == "" && c.Hash == hash })
}

func (c Charter) checkSize(b Build) []Finding {
	var all []Finding
	mem := []struct {
		most int64
		of   string
	}{{c.Env.MaxMemMB, "the grant"}, {particle.TierMemoryMB(c.Env.Tier), "the tier " + c.Env.Tier}}
	if c.Pool != nil {
		mem = append(mem, struct {
			most int64
			of   string
		}{c.Pool.MaxBytes >> 20, "the memory pool " + c.Pool.PoolID})
	}
	for _, m := range mem {
		if b.MemMB > m.most {
			all = append(all, found(ClauseMemory, "build with less (--jobs), or ask a grantor for more", "the build takes %d MiB of memory, %s allows %d", b.MemMB, m.of, m.most))
		}
	}
	if b.DiskMB > c.Env.MaxDiskMB {
		all = append(all, found(ClauseDisk, "build with less, or ask a grantor for more", "the build takes %d MiB of disk, the grant allows %d", b.DiskMB, c.Env.MaxDiskMB))
	}
	return all
}

func (c Charter) checkEndpoints(asked []Endpoint) []Finding {
	var all []Finding
	var told []string
	for _, e := range asked {
		for _, protocol := range e.Protocols {
			if !slices.Contains(c.Env.AllowedProtocols, protocol) && !slices.Contains(told, protocol) {
				told = append(told, protocol)
				all = append(all, found(ClauseProtocols, "ask a grantor for a grant with --protocol "+protocol, "the build speaks %s (%s), the grant allows %s", protocol, e.Why, orNone(c.Env.AllowedProtocols)))
			}
		}
		if !e.allowed(c.Env.AllowedEndpoints) && !slices.Contains(told, "//"+e.Host) {
			told = append(told, "//"+e.Host)
			all = append(all, found(ClauseEndpoints, "ask a grantor for a grant with --endpoint "+e.Host, "the build asks %s (%s), the grant allows %s", e.Host, e.Why, orNone(c.Env.AllowedEndpoints)))
		}
	}
	return all
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

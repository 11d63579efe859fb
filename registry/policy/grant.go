package policy

import (
	"crypto/sha256"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// Grant is an EnvGrant made ready to be asked, by CompileGrant. It does not
// change any more: any number may ask it at once. The zero Grant allows nothing.
type Grant struct {
	// CID names the blob.
	CID string
	particle.EnvGrant

	unreadable string
	// from ≤ time < to is when it can be in force, in Unix seconds.
	from, to int64
	all      bool
	hashes   map[[32]byte]struct{}
	// named are the shards and the list that the grant names.
	named [][32]byte
}

// CompileGrant makes a grant ready. list is the blob that allowed_crates_list
// names, obtained says whether it could be had; what could not be had or read, or
// is another blob than the one named, allows nothing (Unreadable).
func CompileGrant(cid string, g particle.EnvGrant, list []byte, obtained bool) *Grant {
	c := &Grant{CID: cid, EnvGrant: g, from: g.NotBefore.Unix(), to: g.Expires.Unix()}
	if err := g.Check(); err != nil {
		c.unreadable = err.Error()
		return c
	}
	var hashes [][32]byte
	if g.AllowedCratesList == nil {
		hashes, c.all, _ = g.Hashes() // Check has read them
	} else if hashes, c.unreadable = readList(g.AllowedCratesList.Digest(), list, obtained); c.unreadable != "" {
		return c
	}
	c.hashes = make(map[[32]byte]struct{}, len(hashes))
	for _, hash := range hashes {
		c.hashes[hash] = struct{}{}
	}
	if g.MemoryPool != nil {
		c.named = append(c.named, g.MemoryPool.Digest())
	}
	if g.ExecutionDomain != nil {
		c.named = append(c.named, g.ExecutionDomain.Digest())
	}
	if g.AllowedCratesList != nil {
		c.named = append(c.named, g.AllowedCratesList.Digest())
	}
	return c
}

func readList(digest [32]byte, list []byte, obtained bool) (hashes [][32]byte, unreadable string) {
	switch {
	case !obtained:
		return nil, "the list of crates that it names could not be had"
	case sha256.Sum256(list) != digest:
		return nil, "the list of crates is not the one that it names"
	}
	hashes, err := particle.ParseList(list)
	if err != nil {
		return nil, err.Error()
	}
	return hashes, ""
}

// Unreadable says why the grant allows nothing, "" if it can be read.
func (g *Grant) Unreadable() string { return g.unreadable }

// Listed is how many hashes the grant holds: about 90 bytes of memory each.
func (g *Grant) Listed() int { return len(g.hashes) }

// Names reports whether the grant names bytes by their sha256: as a crate that it lists, or
// as what it needs itself.
func (g *Grant) Names(digest [32]byte) bool {
	_, listed := g.hashes[digest]
	return listed || slices.Contains(g.named, digest)
}

// lists reports whether the grant allows f: a crate that it lists; of other kinds
// what it names and, on shore, everything; offshore only what it lists besides.
func (g *Grant) lists(f *Facts) bool {
	if f.Kind == KindCrate && g.all {
		return true
	}
	if _, ok := g.hashes[f.Digest]; ok {
		return true
	}
	return f.Kind != KindCrate && (!g.OffshoreFlag || slices.Contains(g.named, f.Digest))
}

// judge says why the grant does not allow f to asker, sayNothing if it does.
func (g *Grant) judge(asker did.DID, f *Facts, at int64) say {
	switch {
	case g.Subject != asker || asker == "":
		return sayForeign
	case at < g.from:
		return sayTooEarly
	case at >= g.to:
		return sayTooLate
	case g.unreadable != "":
		return sayUnreadable
	case g.lists(f):
		return sayNothing
	case f.Kind != KindCrate:
		return sayNotNamed
	}
	return sayUnlisted
}

// until is when the grant's time begins or ends, in Unix seconds.
func (g *Grant) until(at int64) int64 {
	switch {
	case at < g.from:
		return g.from
	case at < g.to:
		return g.to
	}
	return never
}

// HostGrant is what the state says of one grant of a host.
type HostGrant struct {
	// CID names the EnvGrant, SupersededBy the one that took its place, "" for the head of a chain.
	CID, SupersededBy string
	// NotBefore ≤ time < Expires is when it can be in force.
	NotBefore, Expires time.Time
	Revoked            bool
	// Entitled: its issuer still holds the role.
	Entitled bool
}

// InForce reports whether h judges its host at that time, if the host's session
// names it or the host has no other; why says why not.
func (h HostGrant) InForce(now time.Time) (ok bool, why string) {
	switch {
	case h.Revoked:
		return false, "it was revoked"
	case h.SupersededBy != "":
		return false, "another took its place"
	case !h.Entitled:
		return false, "whoever issued it may no longer grant"
	case now.Before(h.NotBefore):
		return false, "it is in force only from " + particle.At(h.NotBefore).String() + " on"
	case !now.Before(h.Expires):
		return false, "it ended at " + particle.At(h.Expires).String()
	}
	return true, ""
}

// turn is the next time at which InForce may answer otherwise, the zero time: never.
func (h HostGrant) turn(now time.Time) time.Time {
	switch {
	case h.Revoked || h.SupersededBy != "" || !h.Entitled || !now.Before(h.Expires):
		return time.Time{}
	case now.Before(h.NotBefore):
		return h.NotBefore
	}
	return h.Expires
}

// ResolveGrant says which of a host's grants judges it: the head of the chain of
// the one that the session names, else the only one in force. "" with no denial:
// there is none, and the tier says what the host gets. grants are the host's and
// no others': the heads of all its chains that may be in force, and the one that is
// named, before what superseded it (links between the two may be left out). until is when the answer may change with time alone, the zero time: never.
func ResolveGrant(named string, grants []HostGrant, now time.Time) (cid string, until time.Time, denial *Denial) {
	if named != "" {
		return resolveNamed(named, grants, now)
	}
	inForce := 0
	for _, g := range grants {
		until = sooner(until, g.turn(now))
		if ok, _ := g.InForce(now); ok {
			cid = g.CID
			inForce++
		}
	}
	if inForce > 1 {
		return "", until, deny(RuleGrant, "%d EnvGrants of this host are in force, and the session names none; name one with ALN_GRANT=<cid> or --grant (`aln-registry grant list` shows them)", inForce)
	}
	return cid, until, nil
}

func resolveNamed(named string, grants []HostGrant, now time.Time) (cid string, until time.Time, denial *Denial) {
	next, found := named, HostGrant{}
	for _, g := range grants {
		if g.CID != next || next == "" {
			continue
		}
		if found = g; g.CID == named && g.Revoked {
			break
		}
		next = g.SupersededBy
	}
	switch ok, why := found.InForce(now); {
	case found.CID == "":
		return "", until, deny(RuleGrant, "the session names an EnvGrant that was not granted to this host; `aln-registry grant list` shows those that were")
	case ok:
		return found.CID, found.turn(now), nil
	case found.CID == named:
		return "", found.turn(now), deny(RuleGrant, "the EnvGrant that the session names is not in force: %s; ask a grantor of this registry", why)
	default:
		return "", found.turn(now), deny(RuleGrant, "the EnvGrant that took the place of the one the session names is not in force: %s; ask a grantor of this registry", why)
	}
}

// sooner is the earlier of two times, of which a zero one never comes.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

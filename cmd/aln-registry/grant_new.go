package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Defaults of a grant.
const (
	defaultGrantLife = "30d"
	defaultDiskMB    = 16 << 10
	// listSuffix is what the file with a grant's list is called after the grant's own.
	listSuffix = ".list"
)

// grantFlags are what grant new is told.
type grantFlags struct {
	subject, tier, expires, notBefore  string
	locks, allow, lists                []string
	allowAll, offshore                 bool
	memMB, diskMB, minAge              int64
	protocols, endpoints               []string
	memoryPool, domain, supersedes     string
	out                                string
	dryRun                             bool
	memGiven                           bool
	memoryPoolCID, domainCID, superCID *storage.CID
}

func (a *app) grantNewCommand() *cobra.Command {
	var f grantFlags
	c := &cobra.Command{
		Use: "new --subject DID", Short: "Grant a host what it may build with (grantors, admins)", Args: cobra.NoArgs,
		SuggestFor: []string{"add", "create", "issue"},
		Long:       "Put an EnvGrant in force: what the host with that DID may build with, and until when. The crates are those\nof --from-lockfile, --allow and --crates-list together, or with --allow-all all that nothing else forbids;\nan empty --crates-list grants nothing. More than " + fmt.Sprint(particle.MaxInlineCrates) + " of them are published first as a list, an aln-shard\nlist-CID@1.0.0, for which you need the role publisher. The registry's own host is always among the endpoints.\nWhat is granted is all that the host reads from then on, whatever its tier reads without a grant.",
		RunE: func(c *cobra.Command, _ []string) error {
			f.memGiven = c.Flags().Changed("max-mem-mb")
			return a.grantNew(c.Context(), &f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.subject, "subject", "", "`DID` of the host, a member")
	flags.StringSliceVar(&f.locks, "from-lockfile", nil, "Cargo.lock whose crates are allowed, all that it pins (repeatable)")
	flags.StringSliceVar(&f.allow, "allow", nil, "hash (sha256) or CID of a crate that is allowed (repeatable)")
	flags.StringSliceVar(&f.lists, "crates-list", nil, "file with such hashes, one a line (repeatable)")
	flags.BoolVar(&f.allowAll, "allow-all", false, "allow every crate that nothing else forbids")
	flags.StringVar(&f.expires, "expires", defaultGrantLife, "when it ends: a time from now such as 12h or 30d, or a day or second in UTC")
	flags.StringVar(&f.notBefore, "not-before", "", "when it begins (default: now)")
	flags.Int64Var(&f.memMB, "max-mem-mb", 0, "memory that a build may take, in MiB (default: the most of the tier)")
	flags.Int64Var(&f.diskMB, "max-disk-mb", defaultDiskMB, "disk that a build may take, in MiB")
	flags.Int64Var(&f.minAge, "min-age-days", 0, "days that a version waits before this host gets it")
	flags.StringSliceVar(&f.protocols, "protocol", nil, "one more protocol that the build may speak (repeatable; the registry's own and sparse are always there)")
	flags.StringSliceVar(&f.endpoints, "endpoint", nil, "one more `HOST` or host:port that the build may ask (repeatable)")
	flags.BoolVar(&f.offshore, "offshore", false, "the host is offshore: what is not listed is not even told of")
	flags.StringVar(&f.tier, "tier", "", "tier of the build, at most the host's own (default): "+strings.Join(tiers, ", "))
	flags.StringVar(&f.memoryPool, "memory-pool", "", "MemoryPoolShard: CID, or aln-shard/NAME@VERSION")
	flags.StringVar(&f.domain, "execution-domain", "", "ExecutionDomain: CID, or aln-shard/NAME@VERSION")
	flags.StringVar(&f.supersedes, "supersedes", "", "`CID` of the host's grant whose place this takes")
	flags.StringVar(&f.out, "out", "", "write the EnvGrant to this `FILE` (a list to FILE"+listSuffix+") and enter nothing")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the EnvGrant and enter nothing")
	return c
}

// allowance is what a grant's crates are taken from.
type allowance struct {
	all    bool
	hashes [][32]byte
	// uncovered are packages of a lock that no hash stands for.
	uncovered []string
}

// allowed gathers the crates that the flags name.
func (f *grantFlags) allowed() (a allowance, err error) {
	a.all = f.allowAll
	for _, text := range f.allow {
		h, err := particle.ParseHash(text)
		if err != nil {
			return a, usageError{fmt.Errorf("--allow %.80q is neither a sha256 in lower-case hex nor a CID", text)}
		}
		a.hashes = append(a.hashes, h)
	}
	for _, path := range f.lists {
		raw, err := readRegular(path, client.MaxListBytes)
		if err != nil {
			return a, fmt.Errorf("--crates-list: %w", err)
		}
		hashes, err := parseHashLines(raw)
		if err != nil {
			return a, fmt.Errorf("--crates-list %s: %w", path, err)
		}
		a.hashes = append(a.hashes, hashes...)
	}
	for _, path := range f.locks {
		packages, err := readLock(path)
		if err != nil {
			return a, fmt.Errorf("--from-lockfile: %w", err)
		}
		for _, p := range packages {
			h, err := particle.ParseHash(p.Checksum)
			switch {
			case err == nil:
				a.hashes = append(a.hashes, h)
			case p.Source == "":
				a.uncovered = append(a.uncovered, p.Name+" "+p.Version+" (the project's own, or by a path)")
			default:
				a.uncovered = append(a.uncovered, p.Name+" "+p.Version+" ("+p.Source+")")
			}
		}
	}
	slices.SortFunc(a.hashes, func(x, y [32]byte) int { return bytes.Compare(x[:], y[:]) })
	a.hashes = slices.Compact(a.hashes)
	if len(a.hashes) > particle.MaxListed {
		return a, fmt.Errorf("%d crates; a list holds at most %d", len(a.hashes), particle.MaxListed)
	}
	return a, nil
}

// parseHashLines reads hashes or CIDs, one a line; empty lines and those that
// begin with # are passed over.
func parseHashLines(raw []byte) ([][32]byte, error) {
	var hashes [][32]byte
	for i, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		h, err := particle.ParseHash(line)
		if err != nil {
			return nil, fmt.Errorf("line %d, %.80q, is neither a sha256 in lower-case hex nor a CID", i+1, line)
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

// grantBase is what a grant takes from elsewhere than the flags.
type grantBase struct {
	registry, issuer did.DID
	url              string
	tier             string // the host's
	now              time.Time
}

// compose makes the EnvGrant that the flags say, and the list blob that it names
// where it has more crates than fit into it.
func (f *grantFlags) compose(b grantBase, a allowance) (g particle.EnvGrant, list []byte, err error) {
	g = particle.EnvGrant{
		Registry: b.registry, Issuer: b.issuer, Subject: did.DID(f.subject), NotBefore: particle.At(b.now),
		MaxMemMB: f.memMB, MaxDiskMB: f.diskMB, MinAgeDays: f.minAge, OffshoreFlag: f.offshore, Tier: b.tier,
		MemoryPool: f.memoryPoolCID, ExecutionDomain: f.domainCID, Supersedes: f.superCID,
	}
	if f.tier != "" {
		g.Tier = f.tier
	}
	if !f.memGiven {
		g.MaxMemMB = particle.TierMemoryMB(g.Tier)
	}
	if f.notBefore != "" {
		if g.NotBefore, err = parseTime("not-before", f.notBefore, b.now); err != nil {
			return g, nil, err
		}
	}
	if g.Expires, err = parseTime("expires", f.expires, b.now); err != nil {
		return g, nil, err
	}
	if !b.now.Before(g.Expires.Time) {
		return g, nil, usageError{fmt.Errorf("--expires %s: that is past", f.expires)}
	}
	scheme, _, _ := strings.Cut(b.url, "://")
	g.AllowedProtocols = union([]string{scheme, "sparse"}, f.protocols)
	g.AllowedEndpoints = union([]string{client.EndpointOfBase(b.url)}, f.endpoints)
	list = a.into(&g)
	if err := g.Check(); err != nil {
		return g, nil, usageError{errors.New(strings.TrimPrefix(err.Error(), particle.ErrMalformed.Error()+": "))}
	}
	return g, list, nil
}

// into says the crates in g; it returns the list that g then names, nil for none.
func (a allowance) into(g *particle.EnvGrant) []byte {
	if a.all {
		g.AllowedCrates = []string{particle.AllCrates}
		return nil
	}
	if len(a.hashes) > particle.MaxInlineCrates {
		list := particle.MarshalList(a.hashes)
		id := storage.CIDOf(list)
		g.AllowedCratesList = &id
		return list
	}
	g.AllowedCrates = []string{}
	for _, h := range a.hashes {
		g.AllowedCrates = append(g.AllowedCrates, storage.CIDFromDigest(h).Hex())
	}
	return nil
}

// union is a with what of b it lacks.
func union(a, b []string) []string {
	for _, text := range b {
		if !slices.Contains(a, text) {
			a = append(a, text)
		}
	}
	return a
}

// newGrantJSON is grant new for programs.
type newGrantJSON struct {
	// Record and Index are null where nothing was entered.
	Record *record.ID        `json:"record"`
	Index  *int64            `json:"index"`
	CID    storage.CID       `json:"cid"`
	Grant  particle.EnvGrant `json:"grant"`
	Crates int               `json:"crates"`
	// List names the artifact with the list of crates, "" for none.
	List string `json:"list"`
	// NotCoverable are packages that no grant can name, having no checksum.
	NotCoverable []string `json:"not_coverable"`
	Notes        []string `json:"notes"`
}

func (a *app) grantNew(ctx context.Context, f *grantFlags) error {
	if f.subject == "" {
		return usageError{errors.New("--subject is missing: the DID of the host that is granted something (`aln-registry member list` shows them)")}
	}
	if _, err := did.Parse(f.subject); err != nil {
		return usageError{fmt.Errorf("--subject: %w", err)}
	}
	if f.tier != "" && !slices.Contains(tiers, f.tier) {
		return usageError{fmt.Errorf("--tier %.80q is none of %s", f.tier, strings.Join(tiers, ", "))}
	}
	if f.allowAll && len(f.locks)+len(f.allow)+len(f.lists) > 0 {
		return usageError{errors.New("--allow-all allows every crate: leave out --from-lockfile, --allow and --crates-list, or it")}
	}
	for _, endpoint := range f.endpoints {
		if at, ok := client.EndpointOf("https://"+endpoint, ""); !ok || at.Host != strings.TrimSuffix(strings.ToLower(endpoint), ":443") {
			return usageError{fmt.Errorf("--endpoint %.80q is not written as HOST or HOST:PORT", endpoint)}
		}
	}
	crates, err := f.allowed()
	if err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	base, err := grantBaseOf(ctx, r, did.DID(f.subject))
	if err != nil {
		return err
	}
	if err := f.resolve(ctx, r); err != nil {
		return err
	}
	g, list, err := f.compose(base, crates)
	if err != nil {
		return err
	}
	raw, err := g.Marshal()
	if err != nil {
		return err
	}
	result := newGrantJSON{CID: storage.CIDOf(raw), Grant: g, Crates: len(crates.hashes), NotCoverable: append([]string{}, crates.uncovered...), Notes: []string{}}
	if f.dryRun || f.out != "" {
		if f.superCID == nil {
			result.Notes = append(result.Notes, besideNotes(ctx, r, g.Subject)...)
		}
		return a.grantDraft(f, raw, list, result)
	}
	if !f.allowAll && len(f.locks)+len(f.allow)+len(f.lists) == 0 { // most likely forgotten, and the host could build nothing any more
		return usageError{errors.New("the grant would allow no crate; say which with --from-lockfile Cargo.lock, --allow HASH, --crates-list FILE or --allow-all")}
	}
	if list != nil {
		if result.List, err = publishList(ctx, r, list); err != nil {
			return err
		}
	}
	done, err := r.SignAndSubmit(ctx, client.GrantDraft(raw))
	if err != nil {
		return err
	}
	result.Record, result.Index = &done.Record, &done.Index
	result.Notes = append(result.Notes, grantNotes(ctx, r, g.Subject, &result)...)
	return a.printNewGrant(result)
}

// grantBaseOf finds out what a grant to subject begins with.
func grantBaseOf(ctx context.Context, r *client.Registry, subject did.DID) (grantBase, error) {
	identity, ok := r.Identity()
	if !ok {
		return grantBase{}, fmt.Errorf("%w; type `aln-registry login %s`", client.ErrNoIdentity, r.Pin().URL)
	}
	members, err := r.Members(ctx)
	if err != nil {
		return grantBase{}, err
	}
	i := slices.IndexFunc(members, func(m client.Member) bool { return m.DID == subject })
	if i < 0 {
		return grantBase{}, fmt.Errorf("%s is not a member, and only members are granted something; an admin admits it with `aln-registry member add %s --role ROLE --tier TIER`", subject, subject)
	}
	now, err := r.Time()
	return grantBase{registry: r.Pin().Origin, issuer: identity.DID(), url: r.Pin().URL, tier: members[i].Tier, now: now}, err
}

// resolve turns names into CIDs, and sees that what they name is what it should be.
func (f *grantFlags) resolve(ctx context.Context, r *client.Registry) error {
	if f.supersedes != "" {
		id, err := parseGrant(f.supersedes)
		if err != nil {
			return usageError{fmt.Errorf("--supersedes: %w", err)}
		}
		f.superCID = &id
	}
	for _, s := range []struct {
		flag, text string
		into       **storage.CID
		check      func([]byte) error
	}{
		{"memory-pool", f.memoryPool, &f.memoryPoolCID, func(raw []byte) error { _, err := particle.ParseMemoryPoolShard(raw); return err }},
		{"execution-domain", f.domain, &f.domainCID, func(raw []byte) error { _, err := particle.ParseExecutionDomain(raw); return err }},
	} {
		if s.text == "" {
			continue
		}
		id, err := shardCID(ctx, r, s.text)
		if err == nil {
			*s.into = &id
			var raw []byte
			if raw, err = r.Shard(ctx, id, particle.MaxBytes); err == nil {
				err = s.check(raw)
			}
		}
		if err != nil {
			return fmt.Errorf("--%s %.200s: %w", s.flag, s.text, err)
		}
	}
	return nil
}

// shardCID is the CID that a text is, or that of the artifact that it names.
func shardCID(ctx context.Context, r *client.Registry, text string) (storage.CID, error) {
	id, err := storage.ParseCID(text)
	if err == nil {
		return id, nil
	}
	s, err := record.ParseReference(text)
	if err != nil || s.Version() == "" || s.Kind() == record.KindCrate {
		return storage.CID{}, usageError{errors.New("it is neither a CID (bafkrei…) nor aln-shard/NAME@VERSION")}
	}
	artifact, err := r.Artifact(ctx, s)
	return artifact.CID, err
}

// publishList enters a list of crates as an artifact, unless it is there, and
// returns its name.
func publishList(ctx context.Context, r *client.Registry, list []byte) (string, error) {
	id := storage.CIDOf(list)
	subject, err := client.ListSubject(id)
	if err != nil {
		return "", err
	}
	if there, err := r.NameOf(ctx, id); err == nil {
		return there.String(), nil
	}
	_, err = r.Publish(ctx, client.Upload{
		Draft:   client.Draft{Subject: subject, Digest: id.Digest(), Body: &record.Publish{Evidence: []storage.CID{}, MediaType: "text/plain"}},
		Content: bytes.NewReader(list), Size: int64(len(list)),
	})
	if err != nil {
		return "", fmt.Errorf("more than %d crates stand in a list of their own, which has to be published (role publisher): %w", particle.MaxInlineCrates, err)
	}
	return subject.String(), nil
}

// grantDraft shows or writes a grant that is not entered.
func (a *app) grantDraft(f *grantFlags, raw, list []byte, result newGrantJSON) error {
	if f.out != "" {
		if list != nil {
			if err := os.WriteFile(f.out+listSuffix, list, 0o644); err != nil {
				return err
			}
		}
		if err := os.WriteFile(f.out, raw, 0o644); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(result)
	}
	if f.out == "" {
		fmt.Fprintf(a.out, "%s\n", raw)
	} else {
		fmt.Fprintf(a.out, "wrote %s: %s\n", f.out, result.CID)
	}
	for _, p := range result.NotCoverable {
		fmt.Fprintln(a.err, "not in the grant, having no checksum in the lock:", tidy(p))
	}
	for _, note := range result.Notes {
		fmt.Fprintln(a.err, "note:", note)
	}
	fmt.Fprintln(a.err, "nothing was entered")
	return nil
}

func (a *app) printNewGrant(result newGrantJSON) error {
	if a.json {
		return a.printJSON(result)
	}
	fmt.Fprintf(a.out, "granted %s: record %s, log index %d\n", result.CID, *result.Record, *result.Index)
	a.table(grantRows(result.Grant))
	if result.List != "" {
		fmt.Fprintf(a.out, "list of %s: %s\n", counted(int64(result.Crates), "crate", "crates"), result.List)
	}
	for _, p := range result.NotCoverable {
		fmt.Fprintln(a.out, "not in the grant, having no checksum in the lock:", tidy(p))
	}
	for _, note := range result.Notes {
		fmt.Fprintln(a.out, "note:", note)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

// preflightFlags are what preflight is told.
type preflightFlags struct {
	lock          string
	memMB, diskMB int64
}

func (a *app) preflightCommand() *cobra.Command {
	var f preflightFlags
	c := &cobra.Command{
		Use: "preflight", Short: "Check, before anything compiles, that a build keeps to its EnvGrant", Args: cobra.NoArgs,
		Long: "Check that the build of the Cargo.lock here keeps to the EnvGrant that you are judged by: every crate that it\nlocks, and those already in CARGO_HOME; where they come from; [patch], [source] and paths; memory and disk; the\nhosts that cargo asks; the grant's time, its list and its shards. Each finding says what to do. Exit status 1\nwhen there is one, and when no grant is in force for you, unless hosts of your tier read without: then the\nrules alone decide; 3 when nothing is found but crates of another registry that `prefetch` is to have fetched\nbefore anything can be said of them.\n\nRun it in the folder, with the CARGO_HOME and the configuration, of the build itself, and build with --locked.\nWhat --config says on cargo's command line is not seen.",
		RunE: func(c *cobra.Command, _ []string) error { return a.preflight(c.Context(), f) },
	}
	c.Flags().StringVar(&f.lock, "lockfile", "", "Cargo.lock to check (default: that of the project here)")
	c.Flags().Int64Var(&f.memMB, "mem-mb", 0, "memory that the build takes, in MiB (default: not stated, not checked)")
	c.Flags().Int64Var(&f.diskMB, "disk-mb", 0, "disk that the build takes, in MiB (default: not stated, not checked)")
	return c
}

// preflightJSON is preflight for programs.
type preflightJSON struct {
	OK bool `json:"ok"`
	// Grant is what was checked against, "" where there was none.
	Grant string `json:"grant"`
	// Tier is that of a host which reads without a grant and has none, otherwise "".
	Tier    string `json:"tier"`
	Issuer  string `json:"issuer"`
	Expires string `json:"expires"`
	Crates  int    `json:"crates"`
	// Through counts the crates of other registries that come through this one, Direct those that
	// cargo would fetch from crates.io itself, past it.
	Through  int              `json:"through"`
	Direct   int              `json:"direct"`
	Findings []client.Finding `json:"findings"`
}

func (a *app) preflight(ctx context.Context, f preflightFlags) error {
	if f.memMB < 0 || f.diskMB < 0 {
		return usageError{errors.New("--mem-mb and --disk-mb are in MiB, from 0 on")}
	}
	build, err := readBuild(f)
	if err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	if build.Overrides, err = r.Place(build.Locked, build.Overrides); err != nil {
		return err
	}
	result := preflightJSON{Crates: len(build.Locked), Findings: []client.Finding{}}
	for _, p := range build.Locked {
		switch {
		case p.Place.Kind == client.PlaceCratesIO:
			result.Direct++
		case p.Place.UpstreamOf() != "":
			result.Through++
		}
	}
	charter, wrong, ok, err := r.Charter(ctx)
	if err != nil {
		return err
	}
	if charter.Without {
		if result.Tier, err = freeTier(ctx, r); err != nil {
			return err
		}
		if ok = result.Tier != ""; ok {
			wrong = nil
		}
	}
	result.Findings = append(result.Findings, wrong...)
	if !charter.CID.IsZero() {
		result.Grant, result.Issuer, result.Expires = charter.CID.String(), string(charter.Env.Issuer), charter.Env.Expires.String()
	}
	if !ok {
		result.Findings = append(result.Findings, build.Check()...)
		return a.printPreflight(result)
	}
	decided, err := r.Decide(ctx, charter.CID, client.Judgeable(build.Locked))
	if err != nil {
		return err
	}
	decided = client.LookInside(build.Locked, decided)
	if build.Asked, err = r.Endpoints(ctx, build.Locked); err != nil {
		return err
	}
	now, err := r.Time()
	if err != nil {
		return err
	}
	rules, err := r.Rules(ctx)
	if err != nil {
		return err
	}
	local, err := build.CheckLocal(rules, now)
	if err != nil {
		return err
	}
	result.Findings = append(append(result.Findings, charter.Check(build, decided, now)...), local...)
	return a.printPreflight(result)
}

// freeTier is our tier where hosts of it read without a grant, otherwise "".
func freeTier(ctx context.Context, r *client.Registry) (string, error) {
	identity, ok := r.Identity()
	if !ok {
		return "", client.ErrNoIdentity
	}
	tier, reads, err := readsWithoutGrant(ctx, r, identity.DID())
	if !reads {
		tier = ""
	}
	return tier, err
}

// readBuild reads what of a build is on this computer.
func readBuild(f preflightFlags) (b client.Build, err error) {
	b.MemMB, b.DiskMB = f.memMB, f.diskMB
	path := f.lock
	if path == "" {
		if path, err = findLock(); err != nil {
			return b, err
		}
	}
	packages, err := readLock(path)
	if err != nil {
		return b, err
	}
	root, dirs, home, err := placesOf(path, f.lock != "")
	if err != nil {
		return b, err
	}
	var local []string
	for _, p := range packages {
		if p.Source == "" {
			local = append(local, p.Name)
		}
	}
	for _, dir := range dirs {
		overrides, err := cargoconfig.Overrides(root, dir, home, local...)
		if err != nil {
			return b, err
		}
		for _, o := range overrides {
			if !slices.Contains(b.Overrides, client.Override(o)) {
				b.Overrides = append(b.Overrides, client.Override(o))
			}
		}
	}
	b.Locked, err = withCached(packages, home, b.Overrides)
	return b, err
}

// placesOf are the root of the project whose lock is given, the folders that cargo may
// be run in (this one; where the lock was named, its root too), and CARGO_HOME.
func placesOf(lock string, named bool) (root string, dirs []string, home string, err error) {
	if root, err = filepath.Abs(filepath.Dir(lock)); err != nil {
		return "", nil, "", err
	}
	here, err := workingFolder()
	if err != nil {
		return "", nil, "", err
	}
	dirs = []string{here}
	if named {
		if physical, err := filepath.EvalSymlinks(root); err == nil {
			root = physical
		}
		dirs = append(dirs, root)
	}
	home, err = cargoHome()
	return root, dirs, home, err
}

// withCached adds to each locked crate what lies in CARGO_HOME under its name:
// cargo keeps the crates of each registry in a folder HOST-HASH of registry/cache,
// those of a replaced one in that of the registry in its place.
func withCached(packages []cargo.Locked, home string, overrides []client.Override) ([]client.Locked, error) {
	cache := filepath.Join(home, "registry", "cache")
	folders, err := os.ReadDir(cache)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("CARGO_HOME: %w", err)
	}
	var all []client.Locked
	for _, p := range packages {
		locked := client.Locked{Locked: p}
		hosts := cacheHosts(p.Source, overrides)
		for _, folder := range folders {
			if p.Checksum == "" || !isOfHosts(folder.Name(), hosts) {
				continue
			}
			path := filepath.Join(cache, folder.Name(), p.Name+"-"+p.Version+".crate")
			if cached, found := hashCached(path); found {
				locked.Cached = append(locked.Cached, cached)
			}
		}
		all = append(all, locked)
	}
	return all, nil
}

// cacheHosts are how the folders of a source's crates may begin: with its host, for
// crates.io with those of both of its indexes and of what is put in its place.
func cacheHosts(source string, overrides []client.Override) []string {
	sources := []string{source}
	if client.PlaceOf(source, nil).Kind == client.PlaceCratesIO {
		sources = append(sources, "sparse+https://index.crates.io/", "https://github.com/")
		for _, o := range overrides {
			if o.Kind == client.OverrideSource {
				sources = append(sources, o.To)
			}
		}
	}
	var hosts []string
	for _, s := range sources {
		if e, ok := client.EndpointOf(s, ""); ok {
			hosts = append(hosts, portless(e.Host))
		}
	}
	return hosts
}

// portless is a host without its port; the brackets of an IPv6 address stay, as in
// cargo's folders.
func portless(host string) string {
	if at := strings.LastIndexByte(host, ':'); at > strings.LastIndexByte(host, ']') {
		return host[:at]
	}
	return host
}

// isOfHosts reports whether a folder of CARGO_HOME is that of one of hosts, in
// whatever letters its URL was written.
func isOfHosts(folder string, hosts []string) bool {
	at := strings.LastIndexByte(folder, '-')
	return at > 0 && slices.ContainsFunc(hosts, func(host string) bool { return strings.EqualFold(folder[:at], host) })
}

// hashCached hashes a crate's file; found is false where there is none.
func hashCached(path string) (cached client.Cached, found bool) {
	cached.Path = path
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return cached, false
	case err == nil && !info.Mode().IsRegular(): // opening a pipe would wait for ever
		err = errors.New("it is not a regular file")
	case err == nil:
		file, failed := os.Open(path)
		if err = failed; err == nil {
			defer file.Close()
			id, failed := hashOf(file)
			cached.Hash, err = id.Digest(), failed
		}
	}
	if err != nil {
		cached.Problem = err.Error()
	}
	return cached, true
}

// printOrigins says what of that rests on crates of other registries.
func (a *app) printOrigins(result preflightJSON) {
	if result.Through > 0 {
		fmt.Fprintf(a.out, "note: %s through this registry from crates.io or other registries, judged as what is published here; that their bytes are those first seen there `aln-registry verify` proves\n", counted(int64(result.Through), "crate comes", "crates come"))
	}
	if result.Direct > 0 {
		fmt.Fprintf(a.out, "note: %s from crates.io itself, past this registry, which vouches for none of those bytes: `aln-registry login URL --replace-crates-io` has the crates come through it\n", counted(int64(result.Direct), "crate comes", "crates come"))
	}
}

func (a *app) printPreflight(result preflightJSON) error {
	result.OK = len(result.Findings) == 0
	if a.json {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else {
		for _, f := range result.Findings {
			fmt.Fprintf(a.out, "%s %s: %s -> %s\n", a.paint(checkFail), f.Clause, tidy(f.Detail), tidy(f.Mend))
		}
		switch {
		case result.OK && result.Tier != "":
			fmt.Fprintf(a.out, "%s %s: no rule denies them; you read without a grant, as hosts of the tier %s may, and memory, disk and hosts are held against none\n", a.paint(checkOK), counted(int64(result.Crates), "package", "packages"), result.Tier)
		case result.OK:
			fmt.Fprintf(a.out, "%s %s keep to the grant %s of %s, which expires at %s\n", a.paint(checkOK), counted(int64(result.Crates), "package", "packages"), result.Grant, result.Issuer, result.Expires)
		default:
			fmt.Fprintf(a.out, "%s; do not build. What stands behind -> mends it.\n", counted(int64(len(result.Findings)), "finding", "findings"))
		}
	}
	if !a.json {
		a.printOrigins(result)
	}
	switch {
	case result.OK:
		return nil
	case !slices.ContainsFunc(result.Findings, func(f client.Finding) bool { return f.Clause != client.ClausePrefetch }):
		return statusError{errSilent, exitUnseen}
	}
	return errSilent
}

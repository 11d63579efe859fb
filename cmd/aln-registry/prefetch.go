package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// prefetchFlags are what prefetch is told.
type prefetchFlags struct {
	whole         []string
	upstream, pin string
	// fromGiven: --from was.
	fromGiven bool
}

// maxListBytes bounds a list of crates.
const maxListBytes = 16 << 20

func (a *app) prefetchCommand() *cobra.Command {
	var f prefetchFlags
	c := &cobra.Command{
		Use: "prefetch [Cargo.lock|FILE|-]", Short: "Have the registry fetch crates of crates.io before a build asks for them", Args: cobra.MaximumNArgs(1),
		Long: "Have the registry fetch what a Cargo.lock pins (default: that of the project here), or what a list names: a\nline each of NAME VERSION, and the checksum, if that is known; - reads it from the standard input. What is held\nis there when crates.io is not. Each is judged as if you built with it. What was cut goes on where it was: type\nit again. Exit status 1 when not all is held.",
		RunE: func(c *cobra.Command, args []string) error {
			f.fromGiven = c.Flags().Changed("from")
			return a.prefetch(c.Context(), f, args)
		},
	}
	c.Flags().StringArrayVar(&f.whole, "all-versions-of", nil, "fetch all versions of the crate `NAME` (repeatable)")
	c.Flags().StringVar(&f.upstream, "from", particle.SourceCratesIO, "`NAME` of the upstream that a list and --all-versions-of are about; a Cargo.lock says it itself")
	c.Flags().StringVar(&f.pin, "pin", "", "keep them under this `NAME`, so that none is evicted, in place of what it kept before; takes a publisher or an admin")
	return c
}

// prefetchResult is what prefetch prints with --json.
type prefetchResult struct {
	OK      bool `json:"ok"`
	Held    int  `json:"held"`
	Fetched int  `json:"fetched"`
	Denied  int  `json:"denied"`
	Absent  int  `json:"absent"`
	Failed  int  `json:"failed"`
	// Bytes are those of what was fetched.
	Bytes int64 `json:"bytes"`
	// Elsewhere are packages of the lock that no upstream of the registry has.
	Elsewhere int `json:"elsewhere"`
	// Unpinned are crates that --pin kept before and that this list does not name.
	Unpinned int64                    `json:"unpinned"`
	Missing  []client.PrefetchOutcome `json:"missing"`
}

func (r *prefetchResult) add(o client.PrefetchOutcome) {
	switch o.Outcome {
	case client.PrefetchHeld:
		r.Held++
		return
	case client.PrefetchFetched:
		r.Fetched++
		r.Bytes += o.Bytes
		return
	case client.PrefetchDenied:
		r.Denied++
	case client.PrefetchAbsent:
		r.Absent++
	default:
		r.Failed++
	}
	r.Missing = append(r.Missing, o)
}

func (a *app) prefetch(ctx context.Context, f prefetchFlags, args []string) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	result := prefetchResult{Missing: []client.PrefetchOutcome{}}
	lists, err := a.prefetchLists(r, f, args, &result)
	if err != nil {
		return err
	}
	p := a.progress("crates")
	before, done, first := 0, 0, time.Time{}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		l := lists[name]
		all := 0
		began, err := r.Prefetch(ctx, *l, func(o client.PrefetchOutcome, of int) {
			result.add(o)
			done, all = done+1, max(all, of)
			p.at(int64(done), int64(before+all))
		})
		if err != nil {
			p.done()
			return ifInterrupted(ctx, err, fmt.Sprintf("%s held by now; type it again to go on", areHeld(result)))
		}
		before += all
		if first.IsZero() || began.Before(first) {
			first = began
		}
	}
	p.done()
	if f.pin != "" && len(result.Missing) == 0 && !first.IsZero() {
		if result.Unpinned, err = r.Unpin(ctx, f.pin, first.Add(-pinSlack)); err != nil {
			return fmt.Errorf("all is held and kept as %s, but what that kept before cannot be let go: %w", f.pin, err)
		}
	}
	return a.printPrefetch(result)
}

// pinSlack is by how much the clocks of a registry's servers may differ.
const pinSlack = 5 * time.Minute

func areHeld(r prefetchResult) string {
	n := int64(r.Held + r.Fetched)
	if n == 1 {
		return "1 crate is"
	}
	return counted(n, "", "crates are")
}

func (a *app) printPrefetch(result prefetchResult) error {
	result.OK = len(result.Missing) == 0
	if a.json {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else {
		for _, o := range result.Missing {
			fmt.Fprintf(a.out, "%s %s: %s: %s\n", a.paint(checkFail), tidy(strings.TrimSpace(o.Name+" "+o.Version)), tidy(o.Outcome), tidy(strings.TrimPrefix(o.Detail, "not found: ")))
		}
		text := fmt.Sprintf("%s held: %s, %d fetched (%d bytes)", areHeld(result), counted(int64(result.Held), "was", "were"), result.Fetched, result.Bytes)
		if n := len(result.Missing); n > 0 {
			text += fmt.Sprintf("; %d not", n)
		}
		if result.Elsewhere > 0 {
			text += fmt.Sprintf("; %s of the lock from elsewhere", counted(int64(result.Elsewhere), "package comes", "packages come"))
		}
		if result.Unpinned > 0 {
			text += fmt.Sprintf("; %s let go", counted(result.Unpinned, "other is", "others are"))
		}
		fmt.Fprintln(a.out, text)
	}
	if !result.OK {
		return errSilent
	}
	return nil
}

// prefetchLists are what to fetch, by upstream.
func (a *app) prefetchLists(r *client.Registry, f prefetchFlags, args []string, result *prefetchResult) (map[string]*client.PrefetchList, error) {
	lists := map[string]*client.PrefetchList{}
	of := func(upstream string) *client.PrefetchList {
		if lists[upstream] == nil {
			lists[upstream] = &client.PrefetchList{Upstream: upstream, Pin: f.pin}
		}
		return lists[upstream]
	}
	for _, name := range f.whole {
		if err := cargo.ValidateName(name); err != nil {
			return nil, usageError{fmt.Errorf("--all-versions-of: %w", err)}
		}
		of(f.upstream).Whole = append(of(f.upstream).Whole, name)
	}
	if len(args) == 0 && len(f.whole) > 0 {
		return lists, nil
	}
	data, name, err := a.prefetchFile(args)
	if err != nil {
		return nil, err
	}
	if !isLock(name, data) {
		crates, err := parseList(name, data)
		of(f.upstream).Crates = crates
		return lists, err
	}
	if f.fromGiven && len(f.whole) == 0 {
		return nil, usageError{fmt.Errorf("%s says itself where each crate is from; --from is for a list, and for --all-versions-of", name)}
	}
	packages, err := cargo.ParseLock(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	bases, err := r.Bases()
	if err != nil {
		return nil, err
	}
	for _, p := range packages {
		var upstream string
		switch place := client.PlaceOf(p.Source, bases); place.Kind {
		case client.PlaceProject, client.PlaceHosted: // are here
			continue
		case client.PlaceCratesIO, client.PlaceProxied:
			upstream = particle.SourceCratesIO
		case client.PlaceUpstream:
			upstream = place.Upstream
		default:
			result.Elsewhere++
			continue
		}
		of(upstream).Crates = append(of(upstream).Crates, client.Prefetched{Name: p.Name, Version: p.Version, Checksum: p.Checksum})
	}
	return lists, nil
}

// prefetchFile reads what is named, or the lock of the project here.
func (a *app) prefetchFile(args []string) (data []byte, name string, err error) {
	switch {
	case len(args) == 0:
		if name, err = findLock(); err != nil {
			return nil, "", err
		}
	case args[0] == "-":
		data, err = io.ReadAll(io.LimitReader(a.in, maxListBytes+1))
		if err == nil && len(data) > maxListBytes {
			err = fmt.Errorf("the list has more than %d bytes", maxListBytes)
		}
		return data, "the list", err
	default:
		name = args[0]
	}
	data, err = readRegular(name, maxListBytes)
	if errors.Is(err, fs.ErrNotExist) && cargo.ValidateName(name) == nil {
		err = fmt.Errorf("there is no file %s here; of a crate of that name `aln-registry prefetch --all-versions-of %s` fetches all versions, and a line NAME VERSION in a list one", name, name)
	}
	return data, name, err
}

// isLock tells a Cargo.lock from a list.
func isLock(name string, data []byte) bool {
	return filepath.Base(name) == lockName || bytes.Contains(data, []byte("[[package]]"))
}

// parseList reads a list: NAME VERSION [CHECKSUM] or NAME@VERSION [CHECKSUM] in a line;
// # begins a comment.
func parseList(name string, data []byte) ([]client.Prefetched, error) {
	var all []client.Prefetched
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(strings.Replace(text, "@", " ", 1))
		if len(words) == 0 {
			continue
		}
		if err := checkListed(words); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w; write NAME VERSION, and the checksum behind it where it is known", name, n, err)
		}
		c := client.Prefetched{Name: words[0], Version: words[1]}
		if len(words) == 3 {
			c.Checksum = words[2]
		}
		all = append(all, c)
	}
	if err := lines.Err(); err != nil { // of what is in memory: a line of 64 KiB or more
		return nil, fmt.Errorf("%s has a line that is too long; write NAME VERSION, each in a line of its own", name)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s names no crate", name)
	}
	return all, nil
}

func checkListed(words []string) error {
	if len(words) < 2 || len(words) > 3 {
		return errors.New("it is not a name and a version")
	}
	if err := cargo.ValidateName(words[0]); err != nil {
		return err
	}
	if _, err := cargo.ParseVersion(words[1]); err != nil {
		return err
	}
	if len(words) == 3 {
		if _, err := particle.ParseHash(words[2]); err != nil {
			return errors.New("the checksum is not 64 lower-case hex digits")
		}
	}
	return nil
}

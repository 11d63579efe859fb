package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
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
	noPin         bool
	// fromGiven: --from was.
	fromGiven bool
}

// maxListBytes bounds a list of crates.
const maxListBytes = 16 << 20

func (a *app) prefetchCommand() *cobra.Command {
	var f prefetchFlags
	c := &cobra.Command{
		Use: "prefetch [Cargo.lock|FILE|-]", Short: "Have the registry fetch crates of crates.io before a build asks for them", Args: cobra.MaximumNArgs(1),
		Long: "Have the registry fetch what a Cargo.lock pins (default: that of the project here), or what a list names: a\nline each of NAME VERSION or NAME@VERSION, and the checksum behind it, if that is known; # begins a comment, and\nempty lines are passed over; - reads it from the standard input. What is called Cargo.lock, or has [[package]] in\nit, is a lock, anything else a list.\nWhat is held is there when crates.io is not. Each is judged as if you built with it. What was cut goes on where\nit was: type it again. Exit status 1 when not all is held.\n\nWhat a Cargo.lock pins is kept, so that none of it is evicted: under the name of the project's package and\n/Cargo.lock (as app/Cargo.lock), or that of --pin, in place of what the name kept before. That takes a publisher or\nan admin; others have it fetched all the same. A list is kept with --pin alone.",
		RunE: func(c *cobra.Command, args []string) error {
			f.fromGiven = c.Flags().Changed("from")
			switch {
			case c.Flags().Changed("pin") && f.noPin:
				return usageError{errors.New("--pin and --no-pin are for different ends; give one of them")}
			case c.Flags().Changed("pin") && f.pin == "":
				return usageError{errors.New("--pin takes a name; --no-pin keeps nothing")}
			}
			return a.prefetch(c.Context(), f, args)
		},
	}
	c.Flags().StringArrayVar(&f.whole, "all-versions-of", nil, "fetch all versions of the crate `NAME`, yanked ones too (repeatable)")
	c.Flags().StringVar(&f.upstream, "from", particle.SourceCratesIO, "`NAME` of the upstream that a list and --all-versions-of are about; a Cargo.lock says it itself")
	c.Flags().StringVar(&f.pin, "pin", "", "keep them under this `NAME`, so that none is evicted, in place of what it kept before; takes a publisher or an admin (default for a Cargo.lock: PACKAGE/Cargo.lock)")
	c.Flags().BoolVar(&f.noPin, "no-pin", false, "do not keep what a Cargo.lock pins: it may be evicted")
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
	// KeptAs is the name under which what is held is kept, "" where it is not. NotKept is why
	// that of a lock is not, "" where it is, or is not to be.
	KeptAs  string `json:"kept_as"`
	NotKept string `json:"not_kept"`
	// LockAlone are crates of which all versions were asked for beside a lock, under no name: KeptAs
	// keeps what the lock pins, and not them.
	LockAlone []string `json:"not_kept_versions_of"`
	// Unpinned are crates that the name kept before and that this list does not name.
	Unpinned int64                    `json:"unpinned"`
	Missing  []client.PrefetchOutcome `json:"missing"`

	told map[[4]string]bool
}

// again reports whether an outcome of what came from upstream was told before: a list may have a
// crate in two spellings, and a version with its checksum and without.
func (r *prefetchResult) again(upstream string, o client.PrefetchOutcome) bool {
	key := [4]string{upstream, cargo.CanonicalName(o.Name), o.Version, o.Checksum}
	if o.Outcome == client.PrefetchHeld || o.Outcome == client.PrefetchFetched { // it has one checksum
		key[3] = "held"
	}
	again := r.told[key]
	if r.told == nil {
		r.told = map[[4]string]bool{}
	}
	r.told[key] = true
	return again
}

// add counts one of upstream, once, and reports whether it is held.
func (r *prefetchResult) add(upstream string, o client.PrefetchOutcome) (held bool) {
	if r.again(upstream, o) {
		return o.Outcome == client.PrefetchHeld || o.Outcome == client.PrefetchFetched
	}
	switch o.Outcome {
	case client.PrefetchHeld:
		r.Held++
		return true
	case client.PrefetchFetched:
		r.Fetched++
		r.Bytes += o.Bytes
		return true
	case client.PrefetchDenied:
		r.Denied++
	case client.PrefetchAbsent:
		r.Absent++
	default:
		r.Failed++
	}
	r.Missing = append(r.Missing, o)
	return false
}

func (a *app) prefetch(ctx context.Context, f prefetchFlags, args []string) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	result := prefetchResult{LockAlone: []string{}, Missing: []client.PrefetchOutcome{}}
	lists, err := a.prefetchLists(r, f, args, &result)
	if err != nil {
		return err
	}
	first, err := a.fetchLists(ctx, r, f, lists, &result)
	if err != nil {
		return err
	}
	if result.KeptAs == "" {
		return a.printPrefetch(result)
	}
	whole := len(result.Missing) == 0
	if result.Unpinned, err = r.Unpin(ctx, result.KeptAs, letGoBefore(first, whole)); err == nil {
		return a.printPrefetch(result)
	}
	if whole {
		return fmt.Errorf("all is held and kept as %s, but what that kept before cannot be let go: %w", result.KeptAs, err)
	}
	_ = a.printPrefetch(result)
	return fmt.Errorf("what %s kept long ago cannot be let go: %w", result.KeptAs, err)
}

// fetchLists has all lists fetched; began is when the registry began with the first that is kept.
func (a *app) fetchLists(ctx context.Context, r *client.Registry, f prefetchFlags, lists []*client.PrefetchList, result *prefetchResult) (began time.Time, err error) {
	p := a.progress("crates")
	defer p.done()
	before, done := 0, 0
	for _, l := range lists {
		all, held := 0, 0
		l.Alive = func(of int) {
			all = max(all, of)
			p.at(int64(done), int64(before+all))
		}
		fetch := func() (time.Time, error) {
			return r.Prefetch(ctx, *l, func(o client.PrefetchOutcome, of int) {
				if result.add(l.Upstream, o) {
					held++
				}
				done, all = done+1, max(all, of)
				p.at(int64(done), int64(before+all))
			})
		}
		if result.NotKept != "" && f.pin == "" {
			l.Pin = ""
		}
		at, err := fetch()
		if l.Pin != "" && f.pin == "" && all == 0 && mayNotKeep(err) { // nobody asked for that
			l.Pin, result.NotKept = "", "a publisher or an admin has it kept"
			at, err = fetch()
		}
		if err != nil {
			p.done()
			return began, ifInterrupted(ctx, err, fmt.Sprintf("%s held by now; type it again to go on", areHeld(*result)))
		}
		before += all
		if l.Pin != "" && held > 0 {
			result.KeptAs = l.Pin
		}
		if l.Pin == "" {
			result.LockAlone = append(result.LockAlone, l.Whole...)
		}
		if l.Pin != "" && (began.IsZero() || at.Before(began)) {
			began = at
		}
	}
	return began, nil
}

// mayNotKeep reports whether err says that crates are kept for others than who asks.
func mayNotKeep(err error) bool {
	var refused *client.APIError
	return errors.As(err, &refused) && refused.Status == http.StatusForbidden && refused.Code == "role"
}

func areHeld(r prefetchResult) string {
	n := int64(r.Held + r.Fetched)
	if n == 1 {
		return "1 crate is"
	}
	return counted(n, "", "crates are")
}

// ofAll is areHeld, of how many where that is not all.
func ofAll(r prefetchResult) string {
	n := r.Held + r.Fetched
	if len(r.Missing) == 0 {
		return areHeld(r)
	}
	return fmt.Sprintf("%d of %s", n, counted(int64(n+len(r.Missing)), "crate is", "crates are"))
}

// whyLacking says of what lacks how much for which reason; each by its name has been said.
func whyLacking(r prefetchResult) string {
	var all []string
	for _, of := range []struct {
		n   int
		why string
	}{{r.Denied, client.PrefetchDenied}, {r.Absent, client.PrefetchAbsent}, {r.Failed, client.PrefetchFailed}} {
		if of.n > 0 {
			all = append(all, fmt.Sprintf("%d %s", of.n, of.why))
		}
	}
	return strings.Join(all, ", ")
}

// kept says what is kept, and what is not; "" where nothing was to be.
func (r prefetchResult) kept() string {
	if r.KeptAs == "" {
		if r.NotKept == "" {
			return ""
		}
		return "not kept, and may be evicted one day: " + r.NotKept
	}
	says := "kept as " + r.KeptAs
	if len(r.LockAlone) > 0 {
		says = "what the lock pins is " + says
	}
	if len(r.Missing) > 0 {
		says += ", but for what lacks,"
	}
	says += fmt.Sprintf(" until `aln-registry upstream unpin %s`", r.KeptAs)
	if len(r.LockAlone) > 0 {
		says += fmt.Sprintf("; all versions of %s are not, and may be evicted one day: with --pin NAME both are", strings.Join(r.LockAlone, ", "))
	}
	return says
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
		text := fmt.Sprintf("%s held: %s there already, %s fetched now (%d bytes)", ofAll(result), counted(int64(result.Held), "was", "were"), counted(int64(result.Fetched), "was", "were"), result.Bytes)
		if n := len(result.Missing); n > 0 {
			text += fmt.Sprintf("; %s: %s", counted(int64(n), "lacks", "lack"), whyLacking(result))
		}
		if result.Elsewhere > 0 {
			text += fmt.Sprintf("; %s of the lock from elsewhere", counted(int64(result.Elsewhere), "package comes", "packages come"))
		}
		if result.Unpinned > 0 {
			text += fmt.Sprintf("; %s let go", counted(result.Unpinned, "other is", "others are"))
		}
		fmt.Fprintln(a.out, text)
		if says := result.kept(); says != "" {
			fmt.Fprintln(a.out, says)
		}
	}
	if !result.OK {
		return errSilent
	}
	return nil
}

// prefetchLists are what to fetch: of each upstream what is kept, and what is not.
func (a *app) prefetchLists(r *client.Registry, f prefetchFlags, args []string, result *prefetchResult) (lists []*client.PrefetchList, err error) {
	of := func(upstream, pin string) *client.PrefetchList {
		for _, l := range lists {
			if l.Upstream == upstream && l.Pin == pin {
				return l
			}
		}
		lists = append(lists, &client.PrefetchList{Upstream: upstream, Pin: pin})
		return lists[len(lists)-1]
	}
	for _, name := range f.whole {
		if err := cargo.ValidateName(name); err != nil {
			return nil, usageError{fmt.Errorf("--all-versions-of: %w", err)}
		}
		l := of(f.upstream, f.pin)
		l.Whole = append(l.Whole, name)
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
		of(f.upstream, f.pin).Crates = crates
		return lists, err
	}
	if f.fromGiven && len(f.whole) == 0 {
		return nil, usageError{fmt.Errorf("%s says itself where each crate is from; --from is for a list, and for --all-versions-of", name)}
	}
	packages, err := cargo.ParseLock(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	pin := f.pin
	if pin == "" && !f.noPin {
		pin = pinOfLock(name, packages)
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
		l := of(upstream, pin)
		l.Crates = append(l.Crates, client.Prefetched{Name: p.Name, Version: p.Version, Checksum: p.Checksum})
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

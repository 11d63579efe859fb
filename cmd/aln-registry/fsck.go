package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

func (a *app) fsckCommand() *cobra.Command {
	var f engineFlags
	var o registry.FsckOptions
	c := &cobra.Command{
		Use: "fsck", Short: "Hold catalog, log and blobs against each other (operators)", Args: cobra.NoArgs,
		Long: "Hold catalog, log and blobs against each other, in both directions, as of what is published at the start: every\nentry, record, document, artifact and held crate of another registry is hashed, and the catalog compared with a replay\nof the log. The servers may run meanwhile. It needs room for another catalog in TMPDIR.\nStatus 0: all is well; 1: something is not, and it says what, who suffers and what to do; 3: it could not look, or\nnot at everything.",
		RunE: func(c *cobra.Command, _ []string) error { return couldNotLook(a.fsck(c.Context(), f, o)) },
	}
	f.register(c)
	c.Flags().BoolVar(&o.Quick, "quick", false, "do not read the bytes of artifacts and held crates, only look whether they are there")
	c.Flags().BoolVar(&o.Repair, "repair", false, "put back what is missing and follows from what is signed or hashed, and let go of damaged crates of other registries, which are fetched anew; nothing else is changed or removed")
	return c
}

// couldNotLook gives an error that ended a look its own exit status.
func couldNotLook(err error) error {
	if err == nil || errors.Is(err, errSilent) || isUsage(err) {
		return err
	}
	return statusError{err, exitUnseen}
}

// fsckResult is what fsck prints with --json.
type fsckResult struct {
	// Size is what was looked at: what was published at the beginning.
	Size int64  `json:"size"`
	Root string `json:"root"`
	// Pending entries are committed and not published yet, Replayed ones were compared.
	Pending  int64 `json:"pending"`
	Replayed int64 `json:"replayed"`
	Quick    bool  `json:"quick"`
	Blobs    int64 `json:"blobs"`
	Bytes    int64 `json:"bytes"`
	// Unreferenced blobs are named by no entry, and not held of another registry.
	Unreferenced      int64 `json:"unreferenced"`
	UnreferencedBytes int64 `json:"unreferenced_bytes"`
	// Counts are of all findings, by code; Findings has at most 1,000 of each.
	Counts   map[string]int64   `json:"counts"`
	Repaired int64              `json:"repaired"`
	Findings []registry.Finding `json:"findings"`
}

func (a *app) fsck(ctx context.Context, f engineFlags, o registry.FsckOptions) error {
	opened := opening{purpose: toLook, log: a.logger()}
	n, err := f.openAround(ctx, opened)
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.openCatalog(ctx, opened); errors.Is(err, catalog.ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		o.Lost = err
	} else if err != nil {
		return f.mendable(err)
	}
	o.Begun = n.begunMark() != ""
	result := fsckResult{Quick: o.Quick, Findings: []registry.Finding{}}
	p := a.progress("")
	o.Progress = p.of
	o.Found = func(found registry.Finding) {
		found.Do = f.typed(found.Do)
		if a.json {
			result.Findings = append(result.Findings, found)
			return
		}
		p.done()
		a.printFinding(found)
	}
	o.Inventory = n.inventory()
	done, err := registry.Fsck(ctx, n.config, o)
	p.done()
	if err != nil {
		return err
	}
	result.fill(done)
	return a.printFscked(result, done)
}

// typed adds to the commands in a text the flags by which they find this registry.
func (f engineFlags) typed(text string) string {
	for _, command := range []string{"rebuild", "fsck --repair"} {
		text = strings.ReplaceAll(text, "`aln-registry "+command+"`", "`aln-registry "+command+" "+f.String()+"`")
	}
	return text
}

func (r *fsckResult) fill(done registry.Fscked) {
	r.Size, r.Pending, r.Replayed = done.Size, done.Pending, done.Replayed
	r.Root = base64.StdEncoding.EncodeToString(done.Root[:])
	r.Blobs, r.Bytes, r.Unreferenced, r.UnreferencedBytes = done.Blobs, done.Bytes, done.Unreferenced, done.UnreferencedBytes
	r.Counts, r.Repaired = done.Found, done.Repaired
}

func (a *app) printFinding(f registry.Finding) {
	fmt.Fprintf(a.out, "%s  %s: %s\n", f.Code, tidy(f.What), tidy(f.Detail))
	if len(f.Suffers) > 0 {
		fmt.Fprintf(a.out, "  suffers: %s\n", tidy(strings.Join(f.Suffers, ", ")))
	}
	if f.Repaired {
		fmt.Fprintln(a.out, "  repaired")
	} else {
		fmt.Fprintf(a.out, "  do: %s\n", f.Do)
	}
}

func (a *app) printFscked(r fsckResult, done registry.Fscked) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		a.sumUp(r, done)
	}
	switch {
	case done.Unreadable() > 0:
		return statusError{errSilent, exitUnseen}
	case !done.Clean():
		return errSilent
	}
	return nil
}

// sumUp says in a few lines what was looked at.
func (a *app) sumUp(r fsckResult, done registry.Fscked) {
	fmt.Fprintf(a.out, "%s with root %s, %s of %d bytes\n", entries(r.Size), r.Root, counted(r.Blobs, "blob", "blobs"), r.Bytes)
	if r.Quick {
		fmt.Fprintln(a.out, "artifacts were not read, and index lines not derived from them (--quick)")
	}
	if r.Pending > 0 {
		fmt.Fprintf(a.out, "%s not published yet; the next start, or the next change, does it\n", counted(r.Pending, "entry is", "entries are"))
	}
	if r.Replayed < r.Size {
		fmt.Fprintf(a.out, "the catalog's state was compared up to entry %d only: what comes then cannot be derived before the above is mended\n", r.Replayed)
	} else if r.Unreferenced > 0 {
		fmt.Fprintf(a.out, "%s of %d bytes that no entry names; `aln-registry gc` says which\n", counted(r.Unreferenced, "blob", "blobs"), r.UnreferencedBytes)
	}
	all := int64(0)
	for _, n := range r.Counts {
		all += n
	}
	switch {
	case all == 0 && r.Size+r.Pending == 0:
		fmt.Fprintln(a.out, "nothing is wrong: no log has begun here")
	case all == 0:
		fmt.Fprintln(a.out, "nothing is wrong")
	case r.Repaired > 0:
		fmt.Fprintf(a.out, "%s, %d repaired\n", counted(all, "finding", "findings"), r.Repaired)
	default:
		fmt.Fprintln(a.out, counted(all, "finding", "findings"))
	}
}

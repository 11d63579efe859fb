package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

// gcLock is held by who removes blobs, and by who replaces the catalog.
const gcLock = "gc.lock"

// defaultGrace is how old what nothing refers to has to be.
const defaultGrace = 24 * time.Hour

func (a *app) gcCommand() *cobra.Command {
	var f engineFlags
	var o registry.GCOptions
	c := &cobra.Command{
		Use: "gc", Short: "List the blobs that no entry of the log names, or remove them (operators)", Args: cobra.NoArgs,
		Long: "List the blobs that no entry of the log names, which uploads that were refused or interrupted leave behind; with\n--delete, remove them. What any record names, in whatever place, stays, and so\ndo the crates of other registries that are held. The servers may run meanwhile.",
		RunE: func(c *cobra.Command, _ []string) error { return a.gc(c.Context(), f, o) },
	}
	f.register(c)
	c.Flags().BoolVar(&o.Delete, "delete", false, "remove them; otherwise they are only listed")
	c.Flags().DurationVar(&o.Grace, "grace", defaultGrace, "leave alone what was stored more recently than that")
	return c
}

// mostGarbage bounds what gc lists with --json.
const mostGarbage = 10_000

// gcResult is what gc prints with --json.
type gcResult struct {
	Entries int64 `json:"entries"`
	// Held are crates of other registries, which stay.
	Held  int64 `json:"held"`
	Blobs int64 `json:"blobs"`
	Bytes int64 `json:"bytes"`
	// Unreferenced are older than the grace, Young are not.
	Unreferenced      int64 `json:"unreferenced"`
	UnreferencedBytes int64 `json:"unreferenced_bytes"`
	Young             int64 `json:"young"`
	YoungBytes        int64 `json:"young_bytes"`
	Removed           int64 `json:"removed"`
	RemovedBytes      int64 `json:"removed_bytes"`
	// Spared came to be named while they were to be removed.
	Spared int64 `json:"spared"`
	// Listed are the first 10,000 unreferenced ones, Strays what is no blob.
	Listed []gcBlob `json:"listed"`
	Strays []string `json:"strays"`
}

type gcBlob struct {
	CID    string    `json:"cid"`
	Size   int64     `json:"size"`
	Stored time.Time `json:"stored"`
}

func (a *app) gc(ctx context.Context, f engineFlags, o registry.GCOptions) error {
	if o.Grace < 0 {
		return usageError{fmt.Errorf("--grace %s is negative", o.Grace)}
	}
	n, err := f.open(ctx, opening{purpose: toLook, log: a.logger()})
	if err != nil {
		return err
	}
	defer n.close()
	if o.Delete {
		lock, err := n.lockGarbage()
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	result := gcResult{Listed: []gcBlob{}, Strays: []string{}}
	p := a.progress("")
	o.Progress, o.Inventory = p.of, n.inventory()
	o.Found = func(b storage.Stored) {
		if !a.json {
			p.done()
			fmt.Fprintf(a.out, "%s  %d bytes, stored %s\n", b.CID, b.Size, b.Modified.UTC().Format(time.RFC3339))
		} else if len(result.Listed) < mostGarbage {
			result.Listed = append(result.Listed, gcBlob{b.CID.String(), b.Size, b.Modified.UTC().Truncate(time.Second)})
		}
	}
	o.Stray = func(err error) {
		if len(result.Strays) < mostGarbage {
			result.Strays = append(result.Strays, err.Error())
		}
	}
	done, err := registry.CollectGarbage(ctx, n.config, o)
	p.done()
	if err != nil {
		return f.mendable(err)
	}
	result.fill(done)
	return a.printCollected(result, o)
}

// lockGarbage keeps two from removing at once, and anybody from replacing an embedded
// catalog under one that removes.
func (n *node) lockGarbage() (io.Closer, error) {
	if n.folder == "" {
		return io.NopCloser(nil), nil
	}
	lock, err := durable.Lock(filepath.Join(n.folder, gcLock))
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("another `gc --delete`, or a `rebuild`, is at work on the data folder %s", n.folder)
	}
	return lock, err
}

func (r *gcResult) fill(done registry.Collected) {
	r.Entries, r.Held, r.Blobs, r.Bytes = done.Entries, done.Held, done.Blobs, done.Bytes
	r.Unreferenced, r.UnreferencedBytes = done.Unreferenced, done.UnreferencedBytes
	r.Young, r.YoungBytes = done.Young, done.YoungBytes
	r.Removed, r.RemovedBytes, r.Spared = done.Removed, done.RemovedBytes, done.Spared
}

func (a *app) printCollected(r gcResult, o registry.GCOptions) error {
	if a.json {
		return a.printJSON(r)
	}
	for _, stray := range r.Strays {
		fmt.Fprintln(a.out, "no blob, and left alone:", tidy(stray))
	}
	names := entries(r.Entries)
	if r.Held > 0 {
		names += fmt.Sprintf(" and %s of other registries", counted(r.Held, "crate", "crates"))
	}
	fmt.Fprintf(a.out, "%s name %d of %s\n", names, r.Blobs-r.Unreferenced-r.Young, counted(r.Blobs, "blob", "blobs"))
	if r.Young > 0 {
		fmt.Fprintf(a.out, "%s of %d bytes that none names, stored within %s: left alone\n", counted(r.Young, "blob", "blobs"), r.YoungBytes, o.Grace)
	}
	switch {
	case o.Delete:
		fmt.Fprintf(a.out, "%s of %d bytes removed\n", counted(r.Removed, "blob", "blobs"), r.RemovedBytes)
		if r.Spared > 0 {
			fmt.Fprintf(a.out, "%s spared: named meanwhile\n", counted(r.Spared, "blob", "blobs"))
		}
	case r.Unreferenced > 0:
		fmt.Fprintf(a.out, "%s of %d bytes that none names; --delete removes them\n", counted(r.Unreferenced, "blob", "blobs"), r.UnreferencedBytes)
	default:
		fmt.Fprintln(a.out, "nothing to remove")
	}
	return nil
}

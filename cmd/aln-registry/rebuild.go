package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

func (a *app) rebuildCommand() *cobra.Command {
	var f engineFlags
	c := &cobra.Command{
		Use: "rebuild", Short: "Derive the catalog anew from blob storage", Args: cobra.NoArgs,
		Long: "Derive the catalog (the database) anew from blob storage: every entry of the log is replayed and\nchecked against every checkpoint. A catalog that is there stays in force until the new one is whole, and is\nkept beside it then. The servers must be stopped.",
		RunE: func(c *cobra.Command, _ []string) error {
			return ifInterrupted(c.Context(), a.rebuild(c.Context(), f), "nothing was changed")
		},
	}
	f.register(c)
	return c
}

// rebuildResult is what rebuild prints with --json.
type rebuildResult struct {
	Origin     string `json:"origin"`
	Entries    int64  `json:"entries"`
	Checkpoint int64  `json:"checkpoint"`
	// Root is the log's, as log show prints it.
	Root   string `json:"root"`
	State  string `json:"state"`
	Before string `json:"state_before"`
	// Audit is how many entries of the audit trail were taken over.
	Audit int64 `json:"audit"`
	// Held is how many crates of other registries, which are held here, were taken over, or
	// found where there was nothing to take over.
	Held int64 `json:"held"`
	// Kept is where the catalog that was there before is now, a file or a schema of the
	// database; "" for none.
	Kept string `json:"kept"`
	// Lost is what the log does not tell and could not be taken over, as far as there was any;
	// Anew is what comes again by itself once the registry runs.
	Lost     []string `json:"lost"`
	Anew     []string `json:"anew"`
	Refused  []string `json:"refused"`
	Withheld []string `json:"withheld"`
}

// What the log does not tell, and a rebuild therefore only has from the catalog that was there.
const (
	lostAudit     = "the audit trail"
	lostUpstream  = "the names under which prefetch keeps crates, and alarms of upstreams"
	lostUse       = "when crates of other registries were used last"
	lostCondemned = "what gc has condemned"
	anewFound     = "what is found in crates: each is looked into again"
	anewFiles     = "how index files of other registries are asked for: each is fetched once more"
)

func (r *rebuildResult) lostAll() {
	r.Lost = append(r.Lost, lostAudit, lostUpstream, lostUse, lostCondemned)
	r.Anew = append(r.Anew, anewFiles)
}

func alarms(list []registry.Refused) []string {
	texts := []string{}
	for _, r := range list {
		texts = append(texts, fmt.Sprintf("entry %d: %v", r.Index, r.Reason))
	}
	return texts
}

func (a *app) rebuild(ctx context.Context, f engineFlags) error {
	n, err := f.openAround(ctx, opening{purpose: toMend, log: a.logger()})
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.refuseNoLog(ctx); err != nil {
		return err
	}
	next, err := n.replaceCatalog(ctx, a.tellWaits())
	if err != nil {
		return err
	}
	defer next.close()
	if err := n.refuseLess(ctx, next); err != nil {
		return f.mendable(err)
	}
	n.config.Catalog = next.db
	p := a.progress("replayed entries")
	done, err := registry.Rebuild(ctx, n.config, func(done int64) { p.at(done, 0) })
	p.done()
	if err != nil {
		return err
	}
	digest, err := next.db.StateDigest(ctx)
	if err != nil {
		return err
	}
	result := rebuildResult{
		Origin: string(done.Origin), Entries: done.Entries, Checkpoint: done.Checkpoint,
		Root: base64.StdEncoding.EncodeToString(done.Root[:]), State: hex.EncodeToString(digest[:]),
		Lost: []string{}, Anew: []string{anewFound},
		Refused: alarms(done.Refused), Withheld: alarms(done.Withheld),
	}
	if err := a.takeOver(ctx, next, &result); err != nil {
		return err
	}
	if result.Held == 0 {
		if result.Held, err = registry.FindHeld(ctx, n.config, n.inventory(), ""); err != nil && ctx.Err() == nil {
			a.logger().Warn("not all crates of other registries are found again that are held: they are fetched when they are asked for, and gc takes them for garbage", "error", err)
		}
	}
	if result.Kept, err = next.finish(ctx); err != nil {
		return err
	}
	return a.printRebuilt(result)
}

// tellWaitsEvery is how often the same sessions are named again.
const tellWaitsEvery = 10 * time.Second

// tellWaits tells, on the error stream, of the sessions that a database waits for.
func (a *app) tellWaits() func([]catalog.Session) {
	var last string
	var at time.Time
	return func(sessions []catalog.Session) {
		text := catalog.SessionList(sessions)
		if text == last && time.Since(at) < tellWaitsEvery {
			return
		}
		last, at = text, time.Now()
		fmt.Fprintln(a.err, "the database waits for others:", tidy(text))
	}
}

// refuseNoLog keeps keys that have begun a log from getting the catalog of an empty one: it
// is not in the blob storage that was named; and another registry's is none of theirs.
func (n *node) refuseNoLog(ctx context.Context) error {
	if err := registry.CheckOrigin(ctx, n.config); err != nil {
		return err
	}
	mark := n.begunMark()
	if mark == "" {
		return nil
	}
	there, err := registry.HasLog(ctx, n.config.Blobs)
	if err != nil || there {
		return err
	}
	return n.missingLog(mark, "holds nothing of it; correct --blobs (ALN_BLOBS), or")
}

// refuseLess keeps a catalog from giving way to one of less. One that cannot be read is no
// witness.
func (n *node) refuseLess(ctx context.Context, next replacement) error {
	old, err := next.peek(ctx)
	if away(err) {
		return err
	}
	if err != nil {
		return nil
	}
	defer old.Close()
	lacks, err := registry.Lacks(ctx, n.config.Blobs, old)
	if err != nil || lacks < 0 {
		return err
	}
	return fmt.Errorf("%w: entry %d is missing from %s, and the catalog that is there has published it (where nobody has it any more, take that catalog away first: the file to another name, or --db of an empty database)",
		registry.ErrLost, lacks, n.blobsName)
}

// takeOver looks at the catalog that is there, and copies into the new one what the
// log does not tell: the audit trail, what is noted of other registries, and what gc has
// condemned. Each is worth having, and none is worth being without a catalog.
func (a *app) takeOver(ctx context.Context, next replacement, result *rebuildResult) error {
	old, err := next.old(ctx)
	if err != nil {
		result.lostAll()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		a.logger().Warn("the catalog that is there cannot be read, so the audit trail is not taken over, nor what is held of other registries; both are kept with it", "error", err)
		return nil
	}
	defer old.Close()
	if sum, err := old.StateDigest(ctx); err == nil {
		result.Before = hex.EncodeToString(sum[:])
	}
	switch head, err := old.Head(ctx); {
	case err == nil && head == 0 && result.Entries > 0: // made by a start that was refused then
		result.lostAll()
	case err == nil && head < result.Entries:
		result.Lost = append(result.Lost, fmt.Sprintf("what was noted after entry %d, to which the catalog that was there came", head-1))
	}
	if result.Audit, err = next.db.CopyAudit(ctx, old); err != nil {
		result.Lost = append(result.Lost, lostAudit)
		a.logger().Warn("the audit trail is not taken over; it stays in the catalog that is kept", "error", err)
	}
	upstream, err := next.db.CopyUpstream(ctx, old)
	if result.Held = upstream.Blobs; err != nil {
		result.Lost, result.Anew = append(result.Lost, lostUpstream, lostUse), append(result.Anew, anewFiles)
		a.logger().Warn("what is held of other registries is not taken over: what the log tells of is looked for", "error", err)
	}
	if err := next.db.CopyCondemned(ctx, old); err != nil {
		result.Lost = append(result.Lost, lostCondemned)
		a.logger().Warn("what gc has condemned is not taken over; let no gc run before the time that it gives", "error", err)
	}
	return nil
}

func (a *app) printRebuilt(result rebuildResult) error {
	if a.json {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "rebuilt %s: %s replayed, largest checkpoint %d\nroot %s\nstate %s\n", result.Origin, entries(result.Entries), result.Checkpoint, result.Root, result.State)
		if result.Kept != "" {
			fmt.Fprintf(a.out, "before %s (kept as %s)\n", result.Before, result.Kept)
		}
		if result.Audit > 0 {
			fmt.Fprintf(a.out, "%s of the audit trail taken over\n", entries(result.Audit))
		}
		if result.Held > 0 {
			fmt.Fprintf(a.out, "%s of other registries held\n", counted(result.Held, "crate", "crates"))
		}
		for _, what := range result.Lost {
			fmt.Fprintln(a.out, "not taken over, as far as there was any:", what)
		}
		for _, what := range result.Anew {
			fmt.Fprintln(a.out, "comes again by itself:", what)
		}
		for _, r := range result.Refused {
			fmt.Fprintln(a.out, "ALARM: void by the rules:", r)
		}
		for _, r := range result.Withheld {
			fmt.Fprintln(a.out, "ALARM: in the log, but not in the index:", r)
		}
	}
	if len(result.Refused)+len(result.Withheld) > 0 {
		return errSilent
	}
	return nil
}

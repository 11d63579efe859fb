package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

func (a *app) rebuildCommand() *cobra.Command {
	var f engineFlags
	c := &cobra.Command{
		Use: "rebuild", Short: "Derive the catalog anew from blob storage", Args: cobra.NoArgs,
		Long: "Derive the catalog (the database) anew from blob storage: every entry of the log is replayed and\nchecked against the largest checkpoint. A catalog that is there is kept beside the new one. The server must be stopped.",
		RunE: func(c *cobra.Command, _ []string) error { return a.rebuild(c.Context(), f) },
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
	// Kept is where the catalog that was there before is now, "" for none.
	Kept     string   `json:"kept"`
	Refused  []string `json:"refused"`
	Withheld []string `json:"withheld"`
}

// rebuildingFile is the new catalog while it is not complete.
const rebuildingFile = catalogFile + ".rebuilding"

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
	folder := n.folder
	if err := removeCatalog(filepath.Join(folder, rebuildingFile)); err != nil {
		return err
	}
	db, err := catalog.OpenSQLite(ctx, filepath.Join(folder, rebuildingFile))
	if err != nil {
		return err
	}
	defer db.Close()
	n.config.Catalog = db
	p := a.progress("replayed entries")
	done, err := registry.Rebuild(ctx, n.config, func(done int64) { p.at(done, 0) })
	p.done()
	if err != nil {
		return err
	}
	digest, err := n.config.Catalog.StateDigest(ctx)
	if err != nil {
		return err
	}
	audit, err := takeOverAudit(ctx, n.config.Catalog, filepath.Join(folder, catalogFile))
	if err != nil {
		a.logger().Warn("the audit trail is not taken over; it stays in the catalog that is kept", "error", err)
	}
	db.Close() // so that all of it is in one file
	before, kept, err := replaceCatalog(ctx, folder)
	if err != nil {
		return err
	}
	result := rebuildResult{
		Origin: string(done.Origin), Entries: done.Entries, Checkpoint: done.Checkpoint,
		Root: base64.StdEncoding.EncodeToString(done.Root[:]), State: hex.EncodeToString(digest[:]), Before: before, Kept: kept, Audit: audit,
		Refused: alarms(done.Refused), Withheld: alarms(done.Withheld),
	}
	return a.printRebuilt(result)
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

// takeOverAudit copies the audit trail, which the log does not tell, from the
// catalog at path, where there is one that can be read.
func takeOverAudit(ctx context.Context, db *catalog.DB, path string) (entries int64, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	old, err := catalog.OpenSQLite(ctx, path)
	if err != nil {
		return 0, err
	}
	defer old.Close()
	return db.CopyAudit(ctx, old)
}

// replaceCatalog puts the rebuilt catalog in place. One that was there before is
// kept under a name that nothing has yet; before is the digest of its state, ""
// where it cannot be read.
func replaceCatalog(ctx context.Context, folder string) (before, kept string, err error) {
	current := filepath.Join(folder, catalogFile)
	if _, err := os.Stat(current); err == nil {
		if before, kept, err = setAside(ctx, current); err != nil {
			return "", "", err
		}
	} else if err := removeCatalog(current); err != nil { // a WAL without its database
		return "", "", err
	}
	if err := durable.Replace(filepath.Join(folder, rebuildingFile), current); err != nil {
		return "", "", err
	}
	return before, kept, durable.SyncDir(folder)
}

// setAside renames the catalog at path, with what belongs to it, to a free name.
func setAside(ctx context.Context, path string) (digest, kept string, err error) {
	if db, err := catalog.OpenSQLite(ctx, path); err == nil {
		if sum, err := db.StateDigest(ctx); err == nil {
			digest = hex.EncodeToString(sum[:])
		}
		db.Close()
	}
	kept = path + ".before-rebuild"
	for i := 2; ; i++ {
		if _, err := os.Stat(kept); errors.Is(err, fs.ErrNotExist) {
			break
		}
		kept = fmt.Sprintf("%s.before-rebuild-%d", path, i)
	}
	for _, suffix := range catalogSuffixes {
		err := durable.Replace(path+suffix, kept+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
	}
	return digest, kept, nil
}

// catalogSuffixes are the files of an SQLite database, itself last: until its
// rename the old state is whole.
var catalogSuffixes = []string{"-shm", "-wal", ""}

func removeCatalog(path string) error {
	for _, suffix := range catalogSuffixes {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

func (a *app) rebuildCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use: "rebuild", Short: "Derive the catalog anew from blob storage", Args: cobra.NoArgs,
		Long: "Derive the catalog (the database) anew from blob storage: every entry of the log is replayed and\nchecked against the largest checkpoint. A catalog that is there is kept beside the new one. The server must be stopped.",
		RunE: func(c *cobra.Command, _ []string) error { return a.rebuild(c.Context(), data) },
	}
	c.Flags().StringVar(&data, "data", defaultDataName, "the registry's data folder")
	return c
}

// rebuildResult is what rebuild prints with --json.
type rebuildResult struct {
	Origin     string   `json:"origin"`
	Entries    int64    `json:"entries"`
	Checkpoint int64    `json:"checkpoint"`
	State      string   `json:"state"`
	Before     string   `json:"state_before"`
	Refused    []string `json:"refused"`
}

func (a *app) rebuild(ctx context.Context, data string) error {
	if _, err := os.Stat(filepath.Join(data, keyFile)); err != nil {
		return fmt.Errorf("there is no registry in the folder %s: %w", data, err)
	}
	folder, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	lock, err := lockFolder(folder)
	if err != nil {
		return err
	}
	lock.Close() // openNode takes it again; nothing is written in between
	current := filepath.Join(folder, catalogFile)
	before, err := setAside(ctx, current)
	if err != nil {
		return err
	}
	n, err := openNode(ctx, folder, "", slog.New(slog.NewTextHandler(a.err, nil)))
	if err != nil {
		return err
	}
	defer n.close()
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
	result := rebuildResult{
		Origin: string(done.Origin), Entries: done.Entries, Checkpoint: done.Checkpoint,
		State: hex.EncodeToString(digest[:]), Before: before, Refused: []string{},
	}
	for _, r := range done.Refused {
		result.Refused = append(result.Refused, fmt.Sprintf("entry %d: %v", r.Index, r.Reason))
	}
	return a.printRebuilt(result)
}

func (a *app) printRebuilt(result rebuildResult) error {
	if a.json {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "rebuilt %s: %d entries replayed, largest checkpoint %d\nstate %s\n", result.Origin, result.Entries, result.Checkpoint, result.State)
		if result.Before != "" {
			fmt.Fprintf(a.out, "before %s (kept as %s.before-rebuild)\n", result.Before, catalogFile)
		}
		for _, r := range result.Refused {
			fmt.Fprintln(a.out, "ALARM: void by the rules:", r)
		}
	}
	if len(result.Refused) > 0 {
		return errSilent
	}
	return nil
}

// setAside renames the catalog at path, if there is one, and returns the digest
// of its state, "" where it cannot be read.
func setAside(ctx context.Context, path string) (digest string, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if db, err := catalog.OpenSQLite(ctx, path); err == nil {
		if sum, err := db.StateDigest(ctx); err == nil {
			digest = hex.EncodeToString(sum[:])
		}
		db.Close()
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Rename(path+suffix, path+".before-rebuild"+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return digest, nil
}

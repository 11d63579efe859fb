package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

func (a *app) backupCommand() *cobra.Command {
	var f engineFlags
	var o backupFlags
	c := &cobra.Command{
		Use: "backup --to FOLDER", Short: "Copy an embedded registry, while it serves (operators)", Args: cobra.NoArgs,
		Long: "Copy an embedded registry, while it serves, to a folder that is a data folder then: `serve --data` on it, or on a\ncopy of it, starts at once. Into a backup that is there only what is missing is copied. What is copied is verified.\nWhere it is interrupted, typing it again goes on. Half a backup never has the name that was given.",
		RunE: func(c *cobra.Command, _ []string) error {
			return ifInterrupted(c.Context(), a.backup(c.Context(), f, o), "typing it again goes on")
		},
	}
	f.register(c)
	c.Flags().StringVar(&o.to, "to", "", "`FOLDER` of the backup, which is made, or brought up to date")
	c.Flags().BoolVar(&o.withoutKeys, "without-keys", false, "leave out the registry's keys, which have to be backed up by other means then")
	return c
}

type backupFlags struct {
	to          string
	withoutKeys bool
}

// backupResult is what backup prints with --json.
type backupResult struct {
	To string `json:"to"`
	// Entries are in it, of which Published are published.
	Entries   int64 `json:"entries"`
	Published int64 `json:"published"`
	// Blobs are in the registry, of which Copied, of Bytes in all, were copied now.
	Blobs  int64 `json:"blobs"`
	Copied int64 `json:"copied"`
	Bytes  int64 `json:"bytes"`
	// Damaged ones were left out: no entry needs them.
	Damaged int64 `json:"damaged"`
	Keys    bool  `json:"keys"`
}

// insteadOfBackup is what to do where engines hold what is to be backed up.
const insteadOfBackup = "`backup` copies an embedded registry; with --db or --blobs the engines' own means do better. First the database " +
	"(`pg_dump --format=custom`, or a base backup with its WAL for any point in time), then the bucket (replication, versioning or a mirror): " +
	"a blob is stored before the entry that names it is committed, so a bucket copied later holds all that an earlier database names, and not the " +
	"other way round. Where the restored bucket knows of more entries than the database, `serve` says `rebuild`, which loses nothing. " +
	"Back up the file of --key once, apart"

func (a *app) backup(ctx context.Context, f engineFlags, o backupFlags) error {
	switch {
	case !f.embedded():
		return usageError{errors.New(insteadOfBackup)}
	case o.to == "":
		return usageError{errors.New("--to is missing: the folder of the backup, best on another disk")}
	}
	n, err := f.open(ctx, opening{purpose: toLook, log: a.logger()})
	if err != nil {
		return err
	}
	defer n.close()
	t, err := openTarget(n.folder, o)
	if err != nil {
		return err
	}
	defer t.close()
	p := a.progress("")
	done, err := t.fill(ctx, n, p.of)
	p.done()
	if errors.Is(err, registry.ErrLost) { // it says what mends each
		return err
	}
	if err != nil {
		return f.mendable(err)
	}
	if err := t.finish(); err != nil {
		return err
	}
	return a.printBackup(backupResult{
		To: t.final, Entries: done.Entries, Published: done.Published, Blobs: done.Blobs, Copied: done.Copied, Bytes: done.Bytes,
		Damaged: done.Damaged, Keys: !o.withoutKeys,
	})
}

func (a *app) printBackup(r backupResult) error {
	if a.json {
		return a.printJSON(r)
	}
	fmt.Fprintf(a.out, "%s holds %s, %d published, and all they need\n", r.To, entries(r.Entries), r.Published)
	fmt.Fprintf(a.out, "copied %d of %s, %d bytes\n", r.Copied, counted(r.Blobs, "blob", "blobs"), r.Bytes)
	if r.Damaged > 0 {
		fmt.Fprintf(a.out, "left out %s that no entry needs and that cannot be read; `aln-registry gc` lists such\n", counted(r.Damaged, "blob", "blobs"))
	}
	if r.Keys {
		fmt.Fprintln(a.out, "it holds the registry's secret keys: keep it as you keep them")
	} else {
		fmt.Fprintln(a.out, "without the registry's keys: it can only be served with keys/registry.jwk put back")
	}
	return nil
}

// Names of what a backup is made of until it is whole.
const (
	incompleteSuffix = ".incomplete"
	newCatalogFile   = catalogFile + ".new"
	betweenFile      = catalogFile + ".between"
)

// target is the folder that a backup is made in.
type target struct {
	backupFlags
	// final is where the backup is in the end; folder is the same where there is one
	// already, which is a whole backup at every moment.
	final, folder string
	lock          *os.File
	store         *disk.Store
	copy          *catalog.DB
}

// openTarget finds out whether there is a backup, and locks it, or what is to become one.
func openTarget(data string, o backupFlags) (*target, error) {
	final, err := filepath.Abs(o.to)
	if err != nil {
		return nil, err
	}
	if within(data, final) || within(final, data) {
		return nil, usageError{fmt.Errorf("--to %s and the data folder %s lie in each other", final, data)}
	}
	t := &target{backupFlags: o, final: final, folder: final}
	switch _, err := os.Stat(filepath.Join(final, catalogFile)); {
	case errors.Is(err, fs.ErrNotExist):
		if err := vacant(final); err != nil {
			return nil, err
		}
		t.folder += incompleteSuffix
	case err != nil:
		return nil, err
	}
	if t.withoutKeys {
		if _, err := os.Stat(filepath.Join(t.folder, keyFile)); err == nil {
			return nil, usageError{fmt.Errorf("--without-keys, but %s holds the keys of an earlier backup; remove %s, or leave the flag out", t.folder, filepath.Join(t.folder, keyFile))}
		}
	}
	if err := durable.MkdirAll(t.folder, 0o700); err != nil {
		return nil, err
	}
	t.lock, err = durable.Lock(filepath.Join(t.folder, serveLock))
	if errors.Is(err, durable.ErrLocked) {
		err = fmt.Errorf("somebody works in %s: another backup, or a server on it; serve copies of a backup, not the backup", t.folder)
	}
	if err != nil {
		return nil, err
	}
	if t.store, err = disk.Open(filepath.Join(t.folder, storeFolder)); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// within reports whether path is folder, or lies in it.
func within(folder, path string) bool {
	below, err := filepath.Rel(folder, path)
	return err == nil && below != ".." && !strings.HasPrefix(below, ".."+string(filepath.Separator))
}

// vacant is nil if a new backup may have the name folder: nothing has it, or an empty folder.
func vacant(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		return usageError{fmt.Errorf("--to %s is not empty, and no backup: it has no %s", folder, catalogFile)}
	}
	return err
}

func (t *target) close() {
	if t.copy != nil {
		t.copy.Close()
	}
	if t.store != nil {
		t.store.Close()
	}
	if t.lock != nil {
		t.lock.Close()
	}
	t.copy, t.store, t.lock = nil, nil, nil
}

func (t *target) path(name string) string { return filepath.Join(t.folder, name) }

// fill copies the catalog, then all that it needs. Whatever ends it, what is in a folder
// that was a backup before stays one: blobs do no harm, then comes a catalog that has
// the new entries but says that no more are published than were, so that their objects
// may be there or not, then the objects, then the catalog as it is.
func (t *target) fill(ctx context.Context, n *node, progress func(string, int64, int64)) (registry.BackedUp, error) {
	if err := t.copyKeys(n); err != nil {
		return registry.BackedUp{}, err
	}
	if err := t.copyCatalog(ctx, n); err != nil {
		return registry.BackedUp{}, err
	}
	b := &registry.Backup{From: n.config, Inventory: n.inventory(), Catalog: t.copy, To: t.store, Progress: progress}
	if err := b.Begin(ctx); err != nil {
		return b.Done, err
	}
	before, err := t.earlier(ctx, b)
	if err != nil {
		return b.Done, err
	}
	if err := b.CopyBlobs(ctx); err != nil {
		return b.Done, err
	}
	if before != nil {
		if err := t.placeBetween(ctx, *before); err != nil {
			return b.Done, err
		}
	}
	return b.Done, b.CopyLog(ctx)
}

func (t *target) copyKeys(n *node) error {
	if t.withoutKeys {
		return nil
	}
	if err := durable.MkdirAll(t.path(filepath.Dir(keyFile)), 0o700); err != nil {
		return err
	}
	for _, name := range []string{keyFile, startedFile} {
		raw, err := os.ReadFile(filepath.Join(n.folder, name))
		if errors.Is(err, fs.ErrNotExist) && name == startedFile {
			continue
		}
		if err == nil {
			err = durable.WriteFile(t.path(name), raw, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyCatalog copies the catalog as it is at this moment, beside the one of before.
func (t *target) copyCatalog(ctx context.Context, n *node) error {
	for _, name := range []string{newCatalogFile, betweenFile} { // of one that was interrupted
		if err := removeCatalog(t.path(name)); err != nil {
			return err
		}
	}
	if err := n.config.Catalog.CopySQLite(ctx, t.path(newCatalogFile)); err != nil {
		return err
	}
	var err error
	t.copy, err = catalog.AttachSQLite(ctx, t.path(newCatalogFile))
	return err
}

// earlier is what the backup of before says is published, nil where there is none; it
// is an error where that is not an earlier state of the same log.
func (t *target) earlier(ctx context.Context, b *registry.Backup) (*catalog.Published, error) {
	if t.folder != t.final {
		return nil, nil
	}
	db, err := catalog.PeekSQLite(t.path(catalogFile))
	if err != nil {
		return nil, err
	}
	defer db.Close() // with which its WAL goes, if it was left one
	if err := b.Extends(ctx, db); err != nil {
		return nil, fmt.Errorf("%s: %w", t.folder, err)
	}
	var p catalog.Published
	p.Size, p.Checkpoint, err = db.Published(ctx)
	return &p, err
}

// placeBetween puts the new catalog in place, saying that only before is published.
func (t *target) placeBetween(ctx context.Context, before catalog.Published) error {
	if err := t.copy.CopySQLite(ctx, t.path(betweenFile)); err != nil {
		return err
	}
	if err := catalog.SetPublishedIn(ctx, t.path(betweenFile), before); err != nil {
		return err
	}
	return t.place(betweenFile)
}

// place makes the file of that name the backup's catalog.
func (t *target) place(name string) error {
	for _, suffix := range []string{"-wal", "-shm"} {
		for _, of := range []string{name, catalogFile} {
			if _, err := os.Lstat(t.path(of) + suffix); err == nil {
				return fmt.Errorf("somebody has the catalog of %s open; end that, and type this again", t.folder)
			}
		}
	}
	if err := durable.Replace(t.path(name), t.path(catalogFile)); err != nil {
		return err
	}
	return durable.SyncDir(t.folder)
}

// finish puts the catalog in place, and gives a new backup its name.
func (t *target) finish() error {
	err := t.copy.Close()
	if t.copy = nil; err != nil {
		return err
	}
	if err := t.place(newCatalogFile); err != nil {
		return err
	}
	if t.folder == t.final {
		return nil
	}
	t.close()
	if err := os.Remove(t.final); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty folder
		return err
	}
	if err := durable.Replace(t.folder, t.final); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(t.final))
}

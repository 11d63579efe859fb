package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

func (a *app) migrateCommand() *cobra.Command {
	return group("migrate", "The catalog's schema, and this release's (operators)", a.migrateStatusCommand(), a.migrateUpCommand())
}

func (a *app) migrateStatusCommand() *cobra.Command {
	var f engineFlags
	c := &cobra.Command{
		Use: "status", Short: "Say whether the catalog has the schema of this release (operators)", Args: cobra.NoArgs,
		Long: "Say whether the catalog has the schema of this release. Nothing is changed, and servers may run. Status 1\nwhere it has not: migrations are pending, or a newer release has migrated it.",
		RunE: func(c *cobra.Command, _ []string) error { return a.migrateStatus(c.Context(), f) },
	}
	f.registerCatalog(c)
	return c
}

func (a *app) migrateUpCommand() *cobra.Command {
	var f engineFlags
	c := &cobra.Command{
		Use: "up", Short: "Bring the catalog to the schema of this release (operators)", Args: cobra.NoArgs,
		Long: "Bring the catalog to the schema of this release. In PostgreSQL `serve` never does that by itself to a schema\nthat is there; servers of the release before may run on meanwhile. The embedded catalog is copied first, as\n`serve` does at its start, and its server must be stopped.",
		RunE: func(c *cobra.Command, _ []string) error { return a.migrateUp(c.Context(), f) },
	}
	f.registerCatalog(c)
	return c
}

// migrateResult is what migrate prints with --json.
type migrateResult struct {
	Catalog string `json:"catalog"`
	// Current is the version of the catalog's schema, 0 for none; Known is this release's.
	Current int64 `json:"current"`
	Known   int64 `json:"known"`
	// Pending are the migrations that are to be done, Done those that were done now.
	Pending []string `json:"pending"`
	Done    []string `json:"done"`
}

func (a *app) migrateStatus(ctx context.Context, f engineFlags) error {
	if err := f.checkURLs(); err != nil {
		return err
	}
	schema, name, err := a.schemaOf(ctx, f)
	if err != nil {
		return err
	}
	return a.printSchema(migrateResult{Catalog: name, Current: schema.Current, Known: schema.Known, Pending: schema.Pending})
}

// schemaOf reads what the catalog has, and says where that is.
func (a *app) schemaOf(ctx context.Context, f engineFlags) (schema catalog.Schema, name string, err error) {
	if f.db == "" {
		name = filepath.Join(absolute(f.data), catalogFile)
		schema, err = catalog.SQLiteSchema(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no catalog in the folder %s; give the registry's folder with --data, or its database with --db", absolute(f.data))
		}
		return schema, name, err
	}
	name = f.database()
	err = f.await(ctx, a.logger(), "the database", func() (err error) {
		schema, err = catalog.PostgresSchema(ctx, f.db)
		return err
	})
	return schema, name, err
}

func (a *app) migrateUp(ctx context.Context, f engineFlags) error {
	if err := f.checkURLs(); err != nil {
		return err
	}
	before, name, err := a.schemaOf(ctx, f) // which waits for the database
	if err != nil {
		return err
	}
	result := migrateResult{Catalog: name}
	if f.db == "" {
		_, lock, err := lockFolder(f.data)
		if err != nil {
			return err
		}
		defer lock.Close()
		db, err := catalog.OpenSQLite(ctx, name)
		if err != nil {
			return err
		}
		result.Current, result.Known, result.Done = before.Known, before.Known, before.Pending
		if err := db.Close(); err != nil {
			return err
		}
		return a.printSchema(result)
	}
	after, err := catalog.MigratePostgres(ctx, f.db, func(name string) {
		result.Done = append(result.Done, name)
		if !a.json {
			fmt.Fprintln(a.out, "done:", name)
		}
	})
	result.Current, result.Known, result.Pending = after.Current, after.Known, after.Pending
	if err != nil {
		return err
	}
	return a.printSchema(result)
}

func (a *app) printSchema(r migrateResult) error {
	behind := len(r.Pending) > 0 || r.Current != r.Known
	if a.json {
		r.Pending, r.Done = append([]string{}, r.Pending...), append([]string{}, r.Done...)
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "%s has schema %d, this release %d\n", r.Catalog, r.Current, r.Known)
		for _, name := range r.Pending {
			fmt.Fprintln(a.out, "pending:", name)
		}
		if r.Current > r.Known {
			fmt.Fprintln(a.out, "a newer release of aln-registry has migrated it; this one does not work on it")
		}
	}
	if behind {
		return errSilent
	}
	return nil
}

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
)

func (a *app) keyRegistryCommand() *cobra.Command {
	var out, web string
	c := &cobra.Command{
		Use: "registry --out FILE", Short: "Make the key file of a new registry on --db or --blobs (operators)", Args: cobra.NoArgs,
		Long: "Make the key file of a new registry: its DID's key and its log's, for `serve --key FILE`. All servers of\nthe registry get this one file. Without --db and --blobs `serve` makes one by itself, in its data folder.",
		RunE: func(*cobra.Command, []string) error { return a.keyRegistry(out, web) },
	}
	c.Flags().StringVar(&out, "out", "", "file to write, for its owner alone; never over one that is there")
	c.Flags().StringVar(&web, "did", "", "did:web of the registry, as in did:web:registry.example (default: a new did:key)")
	return c
}

func (a *app) keyRegistry(out, web string) error {
	if out == "" {
		return usageError{errors.New("key registry needs --out FILE, the file to write")}
	}
	if err := checkDID(did.DID(web)); err != nil {
		return err
	}
	err := registry.CreateKeys(out, did.DID(web), rand.Reader)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and may be the key of a log that only it can continue; choose another file", out)
	}
	if err != nil {
		return err
	}
	keys, err := registry.ReadKeys(out, "")
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"did": string(keys.DID()), "file": out})
	}
	fmt.Fprintf(a.out, "%s %s\n", keys.DID(), out)
	fmt.Fprintln(a.err, "Whoever loses this file cannot continue the registry's log, and whoever takes it can forge it: back it up, and keep it secret.")
	return nil
}

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

func (a *app) grantDiffCommand() *cobra.Command {
	var locks []string
	c := &cobra.Command{
		Use: "diff A B", Short: "Compare two EnvGrants: fields, and crates added and removed", Args: cobra.ExactArgs(2),
		Long: "Compare two EnvGrants, each a CID or a file as grant new --out writes it: the fields that differ, and the\nhashes that the second one adds and removes, with the names of the crates where a lock names them\n(--from-lockfile) or they are published here. Exit status 0 also where they differ.",
		RunE: func(c *cobra.Command, args []string) error { return a.grantDiff(c.Context(), args[0], args[1], locks) },
	}
	c.Flags().StringSliceVar(&locks, "from-lockfile", nil, "Cargo.lock that says what the hashes are called (repeatable)")
	return c
}

// crateHash is a hash with what it is called, "" where that is not known.
type crateHash struct {
	SHA256 string `json:"sha256"`
	Name   string `json:"name"`
}

// fieldChange is a field in which two grants differ.
type fieldChange struct {
	Field  string `json:"field"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// grantDiffJSON is grant diff for programs.
type grantDiffJSON struct {
	Fields  []fieldChange `json:"fields"`
	Added   []crateHash   `json:"added"`
	Removed []crateHash   `json:"removed"`
}

// grantSide is one of the two grants, with what it lists.
type grantSide struct {
	env    particle.EnvGrant
	hashes [][32]byte
}

func (a *app) grantDiff(ctx context.Context, first, second string, locks []string) error {
	names, err := lockNames(locks)
	if err != nil {
		return err
	}
	open := onceOpened(a.open)
	var sides [2]grantSide
	for i, text := range []string{first, second} {
		if sides[i], err = a.grantSide(ctx, open, text); err != nil {
			return err
		}
	}
	diff := compareGrants(sides[0], sides[1])
	if unnamed := nameHashes(&diff, names); len(unnamed) > 0 {
		if r, err := open(); err == nil { // two files are compared without a registry, too
			if here, err := r.CrateNames(ctx, unnamed); err == nil {
				nameHashes(&diff, here)
			}
		}
	}
	if a.json {
		return a.printJSON(diff)
	}
	a.printGrantDiff(diff)
	return nil
}

// onceOpened asks open once.
func onceOpened(open func() (*client.Registry, error)) func() (*client.Registry, error) {
	var r *client.Registry
	var err error
	return func() (*client.Registry, error) {
		if r == nil && err == nil {
			r, err = open()
		}
		return r, err
	}
}

// grantSide reads a grant by its CID or from a file; its list by CID from the
// registry, or from the file that grant new --out wrote beside it.
func (a *app) grantSide(ctx context.Context, open func() (*client.Registry, error), text string) (grantSide, error) {
	var side grantSide
	id, err := storage.ParseCID(text)
	fromFile := err != nil
	if fromFile {
		raw, err := readSmallFile(text)
		if err != nil {
			return side, fmt.Errorf("%.80q is neither the CID of a grant nor a file with one: %w", text, err)
		}
		if side.env, err = particle.ParseEnvGrant(bytes.TrimSuffix(raw, []byte("\n"))); err != nil {
			return side, fmt.Errorf("%s: %w", text, err)
		}
		if list := side.env.AllowedCratesList; list != nil {
			raw, err := readRegular(text+listSuffix, client.MaxListBytes)
			if err == nil && storage.CIDOf(raw) == *list {
				side.hashes, err = particle.ParseList(raw)
				return side, err
			}
		}
	}
	if fromFile && side.env.AllowedCratesList == nil {
		side.hashes, _, err = side.env.Hashes()
		return side, err
	}
	r, err := open()
	if err != nil {
		return side, err
	}
	if !fromFile {
		g, err := r.Grant(ctx, id)
		if err != nil {
			return side, err
		}
		side.env = g.Env
		if me, ok := r.Identity(); ok && me.DID() == g.Subject && a.grant.id.IsZero() {
			r = r.Under(id) // of several of one's own none need be named to look at one's list
		}
	}
	side.hashes, _, err = r.ListOf(ctx, side.env)
	return side, err
}

// compareGrants says in what b differs from a.
func compareGrants(a, b grantSide) grantDiffJSON {
	diff := grantDiffJSON{Fields: []fieldChange{}, Added: without(b.hashes, a.hashes), Removed: without(a.hashes, b.hashes)}
	before := grantRows(a.env)
	for i, row := range grantRows(b.env) {
		if row[1] != before[i][1] {
			diff.Fields = append(diff.Fields, fieldChange{row[0], before[i][1], row[1]})
		}
	}
	return diff
}

// without lists what of the first is not in the second, in order.
func without(these, those [][32]byte) []crateHash {
	have := make(map[[32]byte]bool, len(those))
	for _, h := range those {
		have[h] = true
	}
	left := []crateHash{}
	for _, h := range these {
		if !have[h] {
			left = append(left, crateHash{SHA256: hex.EncodeToString(h[:])})
		}
	}
	slices.SortFunc(left, func(a, b crateHash) int { return cmp.Compare(a.SHA256, b.SHA256) })
	return left
}

// nameHashes fills in the names that are known, and returns the hashes that still have none.
func nameHashes(diff *grantDiffJSON, names map[[32]byte]string) (unnamed [][32]byte) {
	for _, list := range [][]crateHash{diff.Added, diff.Removed} {
		for i := range list {
			h, err := particle.ParseHash(list[i].SHA256)
			if err != nil || list[i].Name != "" {
				continue
			}
			if list[i].Name = names[h]; list[i].Name == "" {
				unnamed = append(unnamed, h)
			}
		}
	}
	return unnamed
}

// lockNames are what Cargo.locks call their hashes.
func lockNames(paths []string) (map[[32]byte]string, error) {
	names := map[[32]byte]string{}
	for _, path := range paths {
		packages, err := readLock(path)
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			if h, err := particle.ParseHash(p.Checksum); err == nil {
				names[h] = p.Name + " " + p.Version
			}
		}
	}
	return names, nil
}

// readLock reads a Cargo.lock.
func readLock(path string) ([]cargo.Locked, error) {
	raw, err := readRegular(path, cargo.MaxLockBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; run `cargo generate-lockfile`", err)
	}
	if err != nil {
		return nil, err
	}
	packages, err := cargo.ParseLock(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return packages, nil
}

func (a *app) printGrantDiff(diff grantDiffJSON) {
	var rows [][]string
	for _, f := range diff.Fields {
		rows = append(rows, []string{f.Field, f.Before, "->", f.After})
	}
	a.table(rows)
	rows = nil
	for _, list := range []struct {
		sign   string
		hashes []crateHash
	}{{"+", diff.Added}, {"-", diff.Removed}} {
		for _, h := range list.hashes {
			rows = append(rows, []string{list.sign + " " + h.SHA256, h.Name})
		}
	}
	a.table(rows)
	if len(diff.Fields)+len(rows) == 0 {
		fmt.Fprintln(a.out, "they grant the same")
	}
}

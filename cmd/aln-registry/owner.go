package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

func (a *app) ownerCommand() *cobra.Command {
	change := func(use, short string, add bool) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.MinimumNArgs(2),
			RunE: func(c *cobra.Command, args []string) error { return a.ownerChange(c.Context(), args[0], args[1:], add) },
		}
	}
	return group("owner", "Who may publish versions of an artifact",
		&cobra.Command{
			Use: "list [KIND/]NAME", Short: "List an artifact's owners", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return a.ownerList(c.Context(), args[0]) },
		},
		change("add [KIND/]NAME DID...", "Make members owners of an artifact (owners, admins)", true),
		change("remove [KIND/]NAME DID...", "End somebody's ownership; the last owner stays (owners, admins)", false))
}

// ownersJSON is what owner list prints with --json.
type ownersJSON struct {
	Kind   record.Kind `json:"kind"`
	Name   string      `json:"name"`
	Owners []did.DID   `json:"owners"`
}

func (a *app) ownerList(ctx context.Context, what string) error {
	s, err := nameReference(what)
	if err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	name, _, err := r.Versions(ctx, s, 1)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(ownersJSON{name.Kind, name.Name, append([]did.DID{}, name.Owners...)})
	}
	rows := [][]string{}
	for _, d := range name.Owners {
		rows = append(rows, []string{string(d)})
	}
	a.table(rows)
	return nil
}

// changedJSON is what a change of an artifact prints with --json.
type changedJSON struct {
	Subject string `json:"subject"`
	client.Submitted
}

func (a *app) ownerChange(ctx context.Context, what string, who []string, add bool) error {
	s, err := nameReference(what)
	if err != nil {
		return err
	}
	named := []did.DID{}
	for _, text := range who {
		d, err := did.Parse(text)
		if err != nil {
			return usageError{fmt.Errorf("owners are named by their DID: %w", err)}
		}
		named = append(named, d)
	}
	body, verb := &record.Own{Add: named, Remove: []did.DID{}}, "added to"
	if !add {
		body, verb = &record.Own{Add: []did.DID{}, Remove: named}, "removed from"
	}
	return a.change(ctx, client.Draft{Subject: s, Body: body}, counted(int64(len(named)), "owner", "owners")+" "+verb+" "+s.String())
}

func (a *app) yankCommand() *cobra.Command {
	var undo bool
	c := &cobra.Command{
		Use: "yank [KIND/]NAME@VERSION", Short: "Mark a version as not to be chosen any more (owners, admins)", Args: cobra.ExactArgs(1),
		Long: "Mark a version as not to be chosen any more: resolvers go around it, `get` without a version too. Its bytes\nstay, for those who have chosen it already.",
		RunE: func(c *cobra.Command, args []string) error {
			s, err := versionReference(args[0])
			if err != nil {
				return err
			}
			said := "yanked " + s.String()
			if undo {
				said = "took back the yank of " + s.String()
			}
			return a.change(c.Context(), client.Draft{Subject: s, Body: &record.Yank{Yanked: !undo}}, said)
		},
	}
	c.Flags().BoolVar(&undo, "undo", false, "take a yank back")
	return c
}

// change signs and enters a change of an artifact.
func (a *app) change(ctx context.Context, d client.Draft, said string) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	done, err := r.SignAndSubmit(ctx, d)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(changedJSON{d.Subject.String(), done})
	}
	fmt.Fprintf(a.out, "%s: record %s, log index %d\n", said, done.Record, done.Index)
	return nil
}

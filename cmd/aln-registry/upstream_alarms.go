package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// mostShownAlarms bounds what `upstream alarms` shows.
const mostShownAlarms = 10_000

func (a *app) alarmsCommand() *cobra.Command {
	limit := 100
	c := &cobra.Command{
		Use: "alarms [NAME]", Short: "Show what an upstream did and should never do, newest first", Args: cobra.MaximumNArgs(1),
		Long: "Show what an upstream (default crates-io) did and should never do: crates that are not what its index names,\nversions that changed or vanished, index files that are none. Nothing of that was served or believed. It takes an\nauditor or an admin.",
		RunE: func(c *cobra.Command, args []string) error {
			name := particle.SourceCratesIO
			if len(args) == 1 {
				name = args[0]
			}
			return a.listAlarms(c.Context(), name, limit)
		},
	}
	c.Flags().IntVar(&limit, "limit", limit, "how many to show")
	return c
}

func (a *app) seenCommand() *cobra.Command {
	var why, from string
	c := &cobra.Command{
		Use: "seen ID...", Short: "Say that alarms were looked into, so that nobody is warned of them any more (admins)", Args: cobra.MinimumNArgs(1),
		Long: "Say that alarms were looked into, by their IDs as `upstream alarms` shows them, and what came of it. Nobody is\nwarned any more of them, nor of earlier ones that say the same; a later one is new. It is in the audit trail.\nWhat the alarm is about does not change: what is not believed, yanked or gone stays so. (Admins.)",
		RunE: func(c *cobra.Command, args []string) error { return a.seeAlarms(c.Context(), from, args, why) },
	}
	c.Flags().StringVar(&why, "why", "", "what came of it (required)")
	c.Flags().StringVar(&from, "from", particle.SourceCratesIO, "the upstream whose alarms they are")
	return c
}

func (a *app) listAlarms(ctx context.Context, name string, limit int) error {
	if limit < 1 || limit > mostShownAlarms {
		return usageError{fmt.Errorf("--limit %d is not from 1 to %d", limit, mostShownAlarms)}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	alarms, more, err := r.Alarms(ctx, name, limit, false)
	if refused := (*client.APIError)(nil); errors.As(err, &refused) && refused.Status == http.StatusNotFound && name != particle.SourceCratesIO {
		return fmt.Errorf("%w; `upstream alarms` takes the name of an upstream, not that of a crate", err)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Alarms []client.Alarm `json:"alarms"`
			More   bool           `json:"more"`
		}{append([]client.Alarm{}, alarms...), more})
	}
	if len(alarms) == 0 {
		fmt.Fprintln(a.out, "There are no alarms of "+tidy(name)+".")
		return nil
	}
	a.printAlarms(name, alarms)
	if more {
		fmt.Fprintln(a.out, "There are older ones; --limit shows more.")
	}
	return nil
}

// printAlarms shows those that somebody has looked into apart, behind the others.
func (a *app) printAlarms(upstream string, alarms []client.Alarm) {
	rows := [][]string{{"ID", "TIME", "KIND", "CRATE", "WHAT IT WAS"}}
	seen := [][]string{{"ID", "TIME", "KIND", "CRATE", "SEEN", "BY", "WHY", "WHAT IT WAS"}}
	for _, alarm := range alarms {
		what := alarm.Name
		if alarm.Version != "" {
			what += "@" + alarm.Version
		}
		row := []string{strconv.FormatInt(alarm.ID, 10), alarm.Time.String(), alarm.Kind, what}
		if s := alarm.Seen; s != nil {
			seen = append(seen, append(row, s.Time.String(), s.By, s.Why, alarm.Detail))
			continue
		}
		rows = append(rows, append(row, alarm.Detail))
	}
	if len(rows) > 1 {
		a.table(rows)
		from := ""
		if upstream != particle.SourceCratesIO {
			from = " --from " + tidy(upstream)
		}
		fmt.Fprintf(a.out, "Nothing of it was believed. What each kind means, and what to do: docs/OPERATIONS.md, \"Alarms of upstreams\". An admin who has looked into one types `aln-registry upstream seen ID --why TEXT%s`: nobody is warned of it then.\n", from)
	} else {
		fmt.Fprintln(a.out, "All were looked into.")
	}
	if len(seen) > 1 {
		fmt.Fprintln(a.out, "Looked into, and not warned of any more; what they are about is as it was:")
		a.table(seen)
	}
}

func (a *app) seeAlarms(ctx context.Context, upstream string, args []string, why string) error {
	if why == "" {
		return usageError{errors.New("--why is missing: what came of looking into it")}
	}
	var ids []int64
	for _, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return usageError{fmt.Errorf("%.40q is no ID of an alarm; `aln-registry upstream alarms` shows them", arg)}
		}
		ids = append(ids, id)
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	var marked int64
	for _, id := range ids {
		n, err := r.SeeAlarm(ctx, upstream, id, why)
		if err != nil && marked > 0 {
			return fmt.Errorf("%w; those before it were marked as seen", err)
		}
		if err != nil {
			return err
		}
		marked += n
	}
	if a.json {
		return a.printJSON(struct {
			Marked int64 `json:"marked"`
		}{marked})
	}
	if marked == 0 {
		fmt.Fprintln(a.out, "They were looked into before, which stands.")
		return nil
	}
	fmt.Fprintf(a.out, "%s marked as seen. What alarms are about does not change by that: what is not believed, yanked or gone stays so.\n", counted(marked, "alarm is", "alarms are"))
	return nil
}

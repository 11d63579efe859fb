package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
)

func (a *app) upstreamCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the registries that this one takes crates from", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.listUpstreams(c.Context()) },
	}
	locks := &cobra.Command{
		Use: "locks [NAME]", Short: "List the names under which `prefetch` keeps crates, or what one of them lacks", Args: cobra.MaximumNArgs(1),
		Long: "List the names under which `prefetch` keeps crates, and how many of all that each is to keep are held, and how\nmany of these are denied to you now. With NAME, list what it lacks: what was not to be had when it was last asked\nfor, and what is held and denied now, by which rule.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.listLacks(c.Context(), args[0])
			}
			return a.listLocks(c.Context())
		},
	}
	unpin := &cobra.Command{
		Use: "unpin NAME", Short: "Let all crates go that are kept under a name (publishers, admins)", Args: cobra.ExactArgs(1),
		Long: "Let all crates go that `prefetch` keeps under a name. Exit status 1 when none is. (Publishers, admins.)",
		RunE: func(c *cobra.Command, args []string) error { return a.unpin(c.Context(), args[0]) },
	}
	return group("upstream", "Look at the registries that this one takes crates from", list, a.alarmsCommand(), a.seenCommand(), locks, unpin)
}

func (a *app) listUpstreams(ctx context.Context) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	all, offline, err := r.Upstreams(ctx)
	if err != nil {
		return err
	}
	unseen, told := newestAlarms(ctx, r, all)
	if a.json {
		listed := []listedUpstream{}
		for _, u := range all {
			listed = append(listed, listedUpstream{u, unseen[u.Name].first()})
		}
		return a.printJSON(struct {
			Offline    bool             `json:"offline"`
			AlarmsTold bool             `json:"alarms_told"`
			Upstreams  []listedUpstream `json:"upstreams"`
		}{offline, told, listed})
	}
	if len(all) == 0 {
		fmt.Fprintln(a.out, "It takes crates from no other registry.")
		return nil
	}
	rows, troubled := [][]string{{"NAME", "UPSTREAM", "FOR CARGO", "STATE"}}, false
	for _, u := range all {
		rows = append(rows, []string{u.Name, u.Upstream, u.IndexURL, stateOf(u, offline)})
		troubled = troubled || !offline && (u.Down || u.Trouble != "")
	}
	a.table(rows)
	if troubled {
		fmt.Fprintln(a.out, "What is held is served meanwhile. Whoever runs the registry looks at its log, which says more, and at --upstream (URL, ca=, proxy=, token_file=) where it does not pass.")
	}
	a.printNewestAlarms(all, unseen)
	return nil
}

// listedUpstream is an upstream as `upstream list` shows it to programs. Alarm is its newest alarm that
// nobody has looked into, nil for none, and where alarms are not told to who asks.
type listedUpstream struct {
	client.Upstream
	Alarm *client.Alarm `json:"alarm"`
}

// unseenAlarms are the newest of an upstream that nobody has looked into, at most two.
type unseenAlarms []client.Alarm

func (u unseenAlarms) first() *client.Alarm {
	if len(u) == 0 {
		return nil
	}
	return &u[0]
}

// newestAlarms are those of each upstream, by its name. Not told: they are not for everybody, and the list
// is all that was asked for.
func newestAlarms(ctx context.Context, r *client.Registry, all []client.Upstream) (unseen map[string]unseenAlarms, told bool) {
	unseen = map[string]unseenAlarms{}
	for _, u := range all {
		alarms, _, err := r.Alarms(ctx, u.Name, 2, true)
		if err != nil {
			return nil, false
		}
		unseen[u.Name] = alarms
	}
	return unseen, true
}

// stateOf is how it stands with an upstream, in a few words.
func stateOf(u client.Upstream, offline bool) string {
	state := "ok"
	switch {
	case offline:
		return "never asked (--offline)"
	case u.Down:
		state = "does not answer"
	case u.Trouble != "":
		state = "in trouble"
	}
	return state + troubleOf(u)
}

// troubleOf is what was last wrong with an upstream, and when, behind a colon; "" for nothing.
func troubleOf(u client.Upstream) string {
	if u.Trouble == "" {
		return ""
	}
	says := ": " + tidy(u.Trouble)
	if u.TroubleAt != nil {
		says += ", last at " + u.TroubleAt.UTC().Format(time.RFC3339)
	}
	return says
}

// printNewestAlarms says which upstreams have alarms that nobody has looked into.
func (a *app) printNewestAlarms(all []client.Upstream, unseen map[string]unseenAlarms) {
	for _, u := range all {
		alarms := unseen[u.Name]
		if len(alarms) == 0 {
			continue
		}
		what := tidy(alarms[0].Name)
		if alarms[0].Version != "" {
			what += "@" + tidy(alarms[0].Version)
		}
		others := ""
		if len(alarms) > 1 {
			others = ", and there are others"
		}
		fmt.Fprintf(a.out, "%s has an alarm, %s of %s at %s%s: `aln-registry upstream alarms %s`\n", tidy(u.Name), tidy(alarms[0].Kind), what, alarms[0].Time, others, tidy(u.Name))
	}
}

func (a *app) listLocks(ctx context.Context) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	locks, err := r.Locks(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Locks []client.Lock `json:"locks"`
		}{append([]client.Lock{}, locks...)})
	}
	if len(locks) == 0 {
		fmt.Fprintln(a.out, "Nothing is kept; `aln-registry prefetch Cargo.lock` keeps what it pins.")
		return nil
	}
	rows, lacks, denied := [][]string{{"NAME", "HELD", "BYTES", "LAST PINNED", "BY"}}, "", ""
	for _, l := range locks {
		held := fmt.Sprintf("%d of %d", l.Held, l.Pins+l.Lacking)
		if l.Denied > 0 {
			held += fmt.Sprintf(", %d denied now", l.Denied)
			denied = cmp.Or(denied, l.Lock)
		}
		rows = append(rows, []string{l.Lock, held, fmt.Sprint(l.Bytes), l.Since.String(), l.DID})
		if l.Lacking > 0 && lacks == "" {
			lacks = l.Lock
		}
	}
	a.table(rows)
	if lacks != "" {
		fmt.Fprintf(a.out, "What lacks, `aln-registry upstream locks %s` says; `aln-registry prefetch` of the same lock tries again.\n", tidy(lacks))
	}
	if denied != "" {
		fmt.Fprintf(a.out, "What is denied now is held and not served to you: a build of that lock fails. `aln-registry upstream locks %s` says which, and by what rule.\n", tidy(denied))
	}
	return nil
}

// listLacks lists what a lock lacks, and what it keeps of which no build has any use now.
func (a *app) listLacks(ctx context.Context, lock string) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	lacks, denied, err := r.Lacks(ctx, lock)
	if err != nil {
		return err
	}
	if len(lacks)+len(denied) == 0 {
		// Who may not see the list of them is not told whether it is among them.
		locks, err := r.Locks(ctx)
		if err == nil && !slices.ContainsFunc(locks, func(l client.Lock) bool { return l.Lock == lock }) {
			return nothingKept(lock)
		}
	}
	if a.json {
		return a.printJSON(struct {
			Lock    string        `json:"lock"`
			Lacking []client.Lack `json:"lacking"`
			Denied  []client.Lack `json:"denied"`
		}{lock, append([]client.Lack{}, lacks...), append([]client.Lack{}, denied...)})
	}
	if len(lacks)+len(denied) == 0 {
		fmt.Fprintln(a.out, tidy(lock)+" lacks nothing that you may know of.")
		return nil
	}
	rows := [][]string{{"CRATE", "VERSION", "FROM", "WHY"}}
	for _, l := range lacks {
		why := cmp.Or(l.Why, "not asked for yet")
		if l.Why == "" && l.Version == "" {
			why = "not all asked for yet"
		}
		rows = append(rows, []string{l.Name, cmp.Or(l.Version, "all"), l.Upstream, why})
	}
	for _, l := range denied {
		rows = append(rows, []string{l.Name, l.Version, l.Upstream, "held, and denied now by rule " + l.Why})
	}
	a.table(rows)
	return nil
}

func nothingKept(lock string) error {
	return fmt.Errorf("nothing is kept under the name %s; `aln-registry upstream locks` lists the names", lock)
}

func (a *app) unpin(ctx context.Context, lock string) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	n, err := r.Unpin(ctx, lock, time.Time{})
	if err != nil {
		return err
	}
	if a.json {
		err := a.printJSON(struct {
			Unpinned int64 `json:"unpinned"`
		}{n})
		if err == nil && n == 0 {
			err = errSilent
		}
		return err
	}
	if n == 0 {
		return nothingKept(lock)
	}
	fmt.Fprintf(a.out, "%s let go\n", counted(n, "crate is", "crates are"))
	return nil
}

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

func (a *app) logCommand() *cobra.Command {
	var last int64
	show := &cobra.Command{
		Use: "show", Short: "Show the newest checkpoint and the last entries", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if last < 0 {
				return usageError{fmt.Errorf("--last %d: it counts entries", last)}
			}
			return a.logShow(c.Context(), last)
		},
	}
	show.Flags().Int64Var(&last, "last", 20, "how many entries to show")
	var full bool
	var ended []string
	check := &cobra.Command{
		Use: "check", Short: "Check that the log extends what was seen before; --full: replay all of it", Args: cobra.NoArgs,
		Long: "Check that the newest checkpoint is the log's, begins with the pinned entry 0, extends the checkpoint seen\nlast and is not older than --max-age. With --full every entry is fetched and run through the rules from\nnothing, and what the indexes serve is compared with the result, those of crates.io and of other registries\nas well, none of which is asked for that: only that proves that nothing was left out.\nOf which registries that is the log says. If the operator took one away, so that no index of it is served any\nmore, that is a failure until --ended says that you know. (Members can.)",
		RunE: func(c *cobra.Command, _ []string) error {
			if len(ended) > 0 && !full {
				return usageError{errors.New("--ended is about the indexes, which only --full looks at")}
			}
			return a.logCheck(c.Context(), full, ended)
		},
	}
	check.Flags().BoolVar(&full, "full", false, "replay every entry and compare the index with the result")
	check.Flags().StringSliceVar(&ended, "ended", nil, "with --full, an upstream by its `name` that the registry is known to take no crates from any more (repeatable)")
	return group("log", "The registry's log", show, check, a.newLogKeyCommand())
}

// logJSON is the log for programs.
type logJSON struct {
	Origin   string      `json:"origin"`
	Size     int64       `json:"size"`
	Root     string      `json:"root"`
	Cosigned time.Time   `json:"cosigned_at,omitzero"`
	Entries  []entryJSON `json:"entries,omitempty"`
}

// entryJSON is one entry; what its record says is left out where it is not for us to read.
type entryJSON struct {
	Index int64     `json:"index"`
	Time  time.Time `json:"time"`
	// CID is the record's bytes, Record its identity, as everywhere else.
	CID     storage.CID `json:"cid"`
	Record  record.ID   `json:"record,omitzero"`
	Type    string      `json:"type,omitzero"`
	Subject string      `json:"subject,omitzero"`
	Signer  string      `json:"signer,omitzero"`
	act     string      // the type as people are told it
	about   string      // the subject as people know it
}

func (a *app) logShow(ctx context.Context, last int64) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	view, err := r.View(ctx)
	if err != nil {
		return err
	}
	opened, verdict, err := view.Check(ctx)
	if err != nil {
		return err
	}
	if !verdict.OK() {
		return a.printVerdict(verdict)
	}
	shown := logJSON{Origin: opened.Origin, Size: opened.Size, Root: base64.StdEncoding.EncodeToString(opened.Root[:]), Cosigned: opened.CosignedAt}
	for i := max(0, opened.Size-last); i < opened.Size; i++ {
		entry, err := showEntry(ctx, r, view, i)
		if err != nil {
			return err
		}
		shown.Entries = append(shown.Entries, entry)
	}
	if a.json {
		return a.printJSON(shown)
	}
	fmt.Fprintf(a.out, "origin    %s\nsize      %d\nroot      %s\ncosigned  %s\n\n", shown.Origin, shown.Size, shown.Root, shown.Cosigned.Format(time.RFC3339))
	rows := [][]string{{"INDEX", "TIME", "TYPE", "ABOUT", "SIGNED BY"}}
	for _, e := range shown.Entries {
		rows = append(rows, []string{fmt.Sprint(e.Index), e.Time.Format(time.RFC3339), e.act, e.about, e.Signer})
	}
	a.table(rows)
	return nil
}

// unreadable stands in place of the type of an entry whose record is not for us.
const unreadable = "(not for you to read)"

// showEntry reads one proven entry; its record's words only as far as we may read it.
func showEntry(ctx context.Context, r *client.Registry, view *client.View, index int64) (entryJSON, error) {
	raw, err := view.Entry(index)
	if err != nil {
		return entryJSON{}, err
	}
	entry, err := translog.ParseEntry(raw)
	if err != nil {
		return entryJSON{}, err
	}
	shown := entryJSON{Index: index, Time: entry.Time, CID: entry.Record, Type: unreadable, act: unreadable}
	fetch := r.Record
	if index == 0 {
		fetch = r.PublicRecord
	}
	rec, _, err := fetch(ctx, entry.Record.String())
	var refused *client.APIError
	if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
		return shown, nil
	}
	if err != nil {
		return entryJSON{}, err
	}
	subject := rec.Subject()
	shown.act = rec.Act()
	shown.Record, shown.Type, shown.Subject, shown.Signer = rec.ID(), string(rec.Type()), subject.String(), string(rec.Header().Signer.DID)
	if shown.about = string(subject.Member()); shown.about == "" {
		shown.about = shown.Subject
	}
	return shown, nil
}

func (a *app) logCheck(ctx context.Context, full bool, ended []string) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	if full {
		return a.logCheckFull(ctx, r, ended)
	}
	opened, verdict, err := r.LogCheck(ctx)
	if err != nil {
		return err
	}
	if err := a.printVerdict(verdict); err != nil || a.json {
		return err
	}
	fmt.Fprintf(a.out, "the log of %s has %s and extends what was seen before\n", opened.Origin, entries(opened.Size))
	return nil
}

// fullJSON is what log check --full prints with --json.
type fullJSON struct {
	Verdict    verify.Verdict     `json:"verdict"`
	Size       int64              `json:"size"`
	Violations []verify.Violation `json:"violations"`
	Index      []string           `json:"index"`
	// Denied counts by rule the versions that are marked yanked since they are denied to who asks.
	Denied map[string]int `json:"denied"`
	// LeftOut counts by why the versions that the indexes lack and, on somebody's word, may lack.
	LeftOut map[string]int `json:"left_out"`
	OK      bool           `json:"ok"`
}

func (a *app) logCheckFull(ctx context.Context, r *client.Registry, ended []string) error {
	p := a.progress("replayed entries")
	verdict, replayed, err := r.Replay(ctx, p.at)
	p.done()
	if err != nil {
		return err
	}
	if !verdict.OK() {
		return a.printVerdict(verdict)
	}
	found, compared := compareIndexes(ctx, r, replayed, ended)
	if compared != nil && replayed.Violated == 0 && len(found.Differences) == 0 {
		return compared // nothing is held against it so far
	}
	result := fullJSON{
		Verdict: verdict, Size: replayed.Size, Violations: replayed.Violations, Index: found.Differences, Denied: found.Denied, LeftOut: found.LeftOut,
		OK: replayed.Violated == 0 && len(found.Differences) == 0 && compared == nil,
	}
	return a.printCompared(result, replayed.Violated, compared)
}

// printCompared prints what was found, also where compared ended the comparison.
func (a *app) printCompared(result fullJSON, violated int64, compared error) error {
	var unproved *client.Unproved
	if errors.As(compared, &unproved) { // the log is not believed any more
		result.Verdict = unproved.Verdict
	}
	if a.json {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else {
		a.printFull(result, violated)
	}
	switch {
	case compared != nil && unproved != nil: // whose verdict would be printed once more
		return fmt.Errorf("the indexes were not compared to their end: %v", compared) //nolint:errorlint // on purpose
	case compared != nil:
		return fmt.Errorf("the indexes were not compared to their end: %w", compared)
	case !result.OK:
		return errSilent
	}
	return nil
}

// compareIndexes is what was found in the hosted index and in those of other registries, as
// far as it got: what ends one comparison need not end the other.
func compareIndexes(ctx context.Context, r *client.Registry, replayed verify.Replayed, ended []string) (client.Compared, error) {
	found, err := r.CompareIndex(ctx, replayed)
	if ctx.Err() != nil || err != nil && errors.Is(err, client.ErrUnreachable) {
		return found, err
	}
	theirs, failed := r.CompareUpstreams(ctx, replayed, ended)
	found.Add(theirs)
	if err == nil {
		err = failed
	}
	return found, err
}

func (a *app) printFull(result fullJSON, violated int64) {
	for _, v := range result.Violations {
		fmt.Fprintf(a.out, "%s  entry %d: %s\n", a.paint(checkFail), v.Index, tidy(v.Reason))
	}
	for _, difference := range result.Index {
		fmt.Fprintf(a.out, "%s  index: %s\n", a.paint(checkFail), tidy(difference))
	}
	a.printDenied(result.Denied)
	a.printLeftOut(result.LeftOut)
	if result.OK {
		fmt.Fprintf(a.out, "%s  all %d entries follow the rules, and the index says what the log says\n", a.paint(checkOK), result.Size)
		return
	}
	fmt.Fprintf(a.out, "%d of %s break the rules; the index differs in %s\n", violated, entries(result.Size), counted(int64(len(result.Index)), "place", "places"))
}

// printDenied says what of the comparison rests on the registry's word.
func (a *app) printDenied(denied map[string]int) {
	var all int64
	var by []string
	for _, rule := range slices.Sorted(maps.Keys(denied)) {
		all += int64(denied[rule])
		by = append(by, fmt.Sprintf("%s: %d", tidy(rule), denied[rule]))
	}
	if all > 0 {
		fmt.Fprintf(a.out, "note: %s denied to you by rules (%s) and marked yanked for that: the registry's word, as are the dependencies of those that you may not download\n", counted(all, "version is", "versions are"), strings.Join(by, ", "))
	}
}

// leftOutWords say on whose word what is left out of the indexes may be.
var leftOutWords = map[string]string{
	client.LeftOutOffline: "the registry says that it is offline and does not hold them: its word",
	client.LeftOutGone:    "they were dropped upstream long ago, as the log says, and may be left out",
	client.LeftOutEnded:   "you say that it takes no crates from there any more (--ended)",
}

// printLeftOut says what was not compared, since it is not served.
func (a *app) printLeftOut(leftOut map[string]int) {
	for _, why := range slices.Sorted(maps.Keys(leftOut)) {
		fmt.Fprintf(a.out, "note: %s of other registries in the log and in no index, and not compared: %s\n", counted(int64(leftOut[why]), "version is", "versions are"), leftOutWords[why])
	}
}

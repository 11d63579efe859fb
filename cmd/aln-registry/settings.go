package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

func (a *app) settingsCommand() *cobra.Command {
	return group("settings", "The registry's settings, and who decides on them",
		&cobra.Command{
			Use: "show", Short: "Show the settings in force and the proposals that wait for votes", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return a.settingsShow(c.Context()) },
		},
		a.settingsSetCommand())
}

// settingsFlags are what settings set changes.
type settingsFlags struct {
	add, remove         map[string]*[]string
	threshold, releaseK int
	minAgeDays          int
	tiers               []string
	document            string
	logKey              string
	removeLogKeys       []string
	changed             func(flag string) bool
	allNames            []string
}

// listSettings are the settings that are lists, by the flag's stem, with what one member is.
var listSettings = []struct{ stem, what string }{
	{"admin", "DID of an admin"},
	{"index-url", "index URL by which crates call this registry, as in sparse+https://host/index/"},
	{"dependency-registry", "index URL of a registry that crates may depend on"},
	{"private-name", "prefix of crate names that are never asked for elsewhere"},
}

func (a *app) settingsSetCommand() *cobra.Command {
	f := settingsFlags{add: map[string]*[]string{}, remove: map[string]*[]string{}}
	c := &cobra.Command{
		Use: "set", Short: "Change the settings, or propose to (admins)", Args: cobra.NoArgs,
		Long: "Change the settings. Where one admin decides (admin_threshold 1) they are in force at once; otherwise this\nis a proposal, and in force when that many admins have approved of it, you counted.",
		RunE: func(c *cobra.Command, _ []string) error {
			f.changed = c.Flags().Changed
			if !slices.ContainsFunc(f.allNames, f.changed) {
				return usageError{fmt.Errorf("settings set needs at least one of --%s", strings.Join(f.allNames, ", --"))}
			}
			return a.settingsSet(c.Context(), &f)
		},
	}
	flags := c.Flags()
	for _, l := range listSettings {
		f.add[l.stem], f.remove[l.stem] = new([]string), new([]string)
		flags.StringSliceVar(f.add[l.stem], "add-"+l.stem, nil, l.what+", to be added (repeatable)")
		flags.StringSliceVar(f.remove[l.stem], "remove-"+l.stem, nil, "the same, to be taken out (repeatable)")
		f.allNames = append(f.allNames, "add-"+l.stem, "remove-"+l.stem)
	}
	flags.IntVar(&f.threshold, "admin-threshold", 0, "how many admins decide on settings")
	flags.IntVar(&f.releaseK, "release-k", 0, "how many reviewers end a quarantine")
	flags.IntVar(&f.minAgeDays, "min-age-days", 0, "days that a version waits before anybody reads it, 0 for none")
	flags.StringSliceVar(&f.tiers, "tier-default", nil, "TIER=allow or TIER=deny: what a host of that tier gets without a grant (repeatable)")
	flags.StringVar(&f.document, "document", "", "file with the registry's own new DID document (did:web)")
	flags.StringVar(&f.logKey, "log-key", "", "the `KEY` that signs the log from now on, as log new-key printed it; the one before stays beside it for 30 days")
	flags.StringSliceVar(&f.removeLogKeys, "remove-log-key", nil, "a log key that was replaced more than 30 days ago (repeatable)")
	f.allNames = append(f.allNames, "admin-threshold", "release-k", "min-age-days", "tier-default", "document", "log-key", "remove-log-key")
	return c
}

// apply changes s as the flags say.
func (f *settingsFlags) apply(s *record.Registry) error {
	if err := f.checkAdded(); err != nil {
		return err
	}
	for _, l := range listSettings[1:] {
		list := map[string]*[]string{"index-url": &s.IndexURLs, "dependency-registry": &s.DependencyRegistries, "private-name": &s.PrivateNames}[l.stem]
		if err := edit(l.stem, list, *f.add[l.stem], *f.remove[l.stem]); err != nil {
			return err
		}
	}
	add, err := parseDIDs("--add-admin", *f.add["admin"])
	if err != nil {
		return err
	}
	remove, err := parseDIDs("--remove-admin", *f.remove["admin"])
	if err != nil {
		return err
	}
	if err := edit("admin", &s.Admins, add, remove); err != nil {
		return err
	}
	if err := edit("log-key", &s.LogKeys, nil, f.removeLogKeys); err != nil {
		return err
	}
	if f.logKey != "" {
		if slices.Contains(s.LogKeys, f.logKey) {
			return usageError{fmt.Errorf("--log-key %.200q: the settings hold it already; `aln-registry log new-key` makes another", f.logKey)}
		}
		s.LogKeys = slices.Insert(s.LogKeys, 0, f.logKey) // the first one signs
	}
	for flag, number := range map[string]struct{ to, from *int }{
		"admin-threshold": {&s.AdminThreshold, &f.threshold}, "release-k": {&s.ReleaseK, &f.releaseK}, "min-age-days": {&s.MinAgeDays, &f.minAgeDays},
	} {
		if f.changed(flag) {
			*number.to = *number.from
		}
	}
	for _, text := range f.tiers {
		if err := setTier(&s.TierDefault, text); err != nil {
			return err
		}
	}
	return nil
}

// privateForm is how a crate's name begins.
var privateForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)

// checkAdded refuses what would be entered and then serve nobody. What is there
// already is not looked at: it can still be taken out.
func (f *settingsFlags) checkAdded() error {
	for _, v := range *f.add["index-url"] {
		if base, err := client.ParseURL(v); err != nil || client.IndexURL(base) != v {
			return usageError{fmt.Errorf("--add-index-url %.200q is no index URL that clients ask; write it like sparse+https://host/index/", v)}
		}
	}
	for _, v := range *f.add["dependency-registry"] {
		if !isRegistryIndex(v) {
			return usageError{fmt.Errorf("--add-dependency-registry %.200q is not an index URL; write it like sparse+https://host/index/, or, of a registry with a git index, https://host/index", v)}
		}
	}
	for _, v := range *f.add["private-name"] {
		if !privateForm.MatchString(v) {
			return usageError{fmt.Errorf("--add-private-name %.80q is not how a crate's name begins: a letter, then letters, digits, '-' and '_'", v)}
		}
	}
	return nil
}

// isRegistryIndex reports whether v is a URL by which manifests name a registry of
// any make: sparse+ and http or https, or a git index, which cargo writes both with
// registry+ before it and without.
func isRegistryIndex(v string) bool {
	rest, sparse := strings.CutPrefix(v, "sparse+")
	if !sparse {
		rest = strings.TrimPrefix(v, "registry+")
	}
	u, err := url.Parse(rest)
	if err != nil || u.Hostname() == "" || u.User != nil && u.Scheme != "ssh" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" || u.Scheme == "ssh" && !sparse
}

func parseDIDs(flag string, texts []string) ([]did.DID, error) {
	var list []did.DID
	for _, text := range texts {
		d, err := did.Parse(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", flag, err)}
		}
		list = append(list, d)
	}
	return list, nil
}

// edit takes members out of a list and adds others; what changes nothing is a slip.
func edit[T ~string](what string, list *[]T, add, remove []T) error {
	for _, v := range remove {
		i := slices.Index(*list, v)
		if i < 0 {
			return usageError{fmt.Errorf("--remove-%s %.200q: the settings do not hold it", what, string(v))}
		}
		*list = slices.Delete(*list, i, i+1)
	}
	for _, v := range add {
		if slices.Contains(*list, v) {
			return usageError{fmt.Errorf("--add-%s %.200q: the settings hold it already", what, string(v))}
		}
		*list = append(*list, v)
	}
	return nil
}

func setTier(t *record.TierDefault, text string) error {
	tier, access, _ := strings.Cut(text, "=")
	field := map[string]*record.TierAccess{
		particle.TierCoreStakeholder: &t.CoreStakeholder, particle.TierCollaborator: &t.Collaborator, particle.TierGuest: &t.Guest,
	}[tier]
	if field == nil || access != string(record.Allow) && access != string(record.Deny) {
		return usageError{fmt.Errorf("--tier-default %.80q: write TIER=allow or TIER=deny, the tier one of %s", text, strings.Join(tiers, ", "))}
	}
	*field = record.TierAccess(access)
	return nil
}

// settingsRows are settings for people: a name and a value each.
func settingsRows(s *record.Registry) [][]string {
	var admins []string
	for _, d := range s.Admins {
		admins = append(admins, string(d))
	}
	document := "none"
	if s.DIDDocument != nil {
		document = s.DIDDocument.String()
	}
	t := s.TierDefault
	return [][]string{
		{"did", string(s.DID)}, {"did_document", document}, {"log_keys", strings.Join(s.LogKeys, " ")},
		{"index_urls", strings.Join(s.IndexURLs, " ")}, {"admins", strings.Join(admins, " ")},
		{"admin_threshold", strconv.Itoa(s.AdminThreshold)}, {"release_k", strconv.Itoa(s.ReleaseK)},
		{"tier_default", fmt.Sprintf("core_stakeholder %s, collaborator %s, guest %s", t.CoreStakeholder, t.Collaborator, t.Guest)},
		{"min_age_days", strconv.Itoa(s.MinAgeDays)}, {"dependency_registries", strings.Join(s.DependencyRegistries, " ")},
		{"private_names", strings.Join(s.PrivateNames, " ")},
	}
}

// differences are the rows in which two settings differ: name, before, after.
func differences(before, after *record.Registry) [][]string {
	var rows [][]string
	old := settingsRows(before)
	for i, row := range settingsRows(after) {
		if row[1] != old[i][1] {
			rows = append(rows, []string{"  " + row[0], old[i][1], "->", row[1]})
		}
	}
	return rows
}

// settingsJSON is settings show for programs.
type settingsJSON struct {
	client.Settings
	Proposals []client.Proposal `json:"proposals"`
}

func (a *app) settingsShow(ctx context.Context) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	shown := settingsJSON{}
	if shown.Settings, err = r.Settings(ctx); err != nil {
		return err
	}
	if shown.Proposals, err = r.Proposals(ctx); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(shown)
	}
	in := shown.Settings
	a.table(append(settingsRows(in.Settings), []string{"record", string(in.Record)}))
	for _, p := range shown.Proposals {
		fmt.Fprintf(a.out, "\nproposal %s of %s: %d of %d approvals\n", tidy(string(p.Record)), tidy(string(p.Proposer)), len(p.Approvals), p.Needed)
		a.table(differences(in.Settings, p.Settings))
	}
	return nil
}

// changeJSON is a change of settings for programs.
type changeJSON struct {
	client.Submitted
	// Enacted: in force; otherwise it waits for votes, or a rejection ended it.
	Enacted bool `json:"enacted"`
	// Unsure is why a vote's effect is not known, "" where it is.
	Unsure   string           `json:"unsure,omitzero"`
	Settings *record.Registry `json:"settings"`
}

func (a *app) settingsSet(ctx context.Context, f *settingsFlags) error {
	var document []byte
	var err error
	if f.document != "" {
		if document, err = readSmallFile(f.document); err != nil {
			return fmt.Errorf("--document: %w", err)
		}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	before, after, done, err := r.ChangeSettings(ctx, document, f.apply)
	switch {
	case errors.Is(err, client.ErrNotEntitled):
		return fmt.Errorf("only an admin of the registry can do this: %w", err)
	case errors.Is(err, record.ErrMalformed):
		return usageError{err}
	case err != nil:
		return err
	}
	enacted := before.AdminThreshold == 1
	if a.json {
		return a.printJSON(changeJSON{Submitted: done, Enacted: enacted, Settings: after})
	}
	if enacted {
		fmt.Fprintf(a.out, "changed the settings: record %s, log index %d\n", done.Record, done.Index)
	} else {
		fmt.Fprintf(a.out, "proposed to change the settings: record %s, log index %d\n", done.Record, done.Index)
	}
	a.table(differences(before, after))
	if added := *f.add["private-name"]; len(added) > 0 {
		fmt.Fprintf(a.out, "note: once in force, no other registry is asked for crates whose names begin so (%s), and none of them that was taken from one before is served; --remove-private-name ends that\n", strings.Join(added, ", "))
	}
	if !enacted {
		fmt.Fprintf(a.out, "In force once %d more of the admins type:  aln-registry approve %s\n", before.AdminThreshold-1, done.Record)
	}
	return nil
}

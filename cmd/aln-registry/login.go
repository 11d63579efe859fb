package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// identityVariable is the environment's --identity.
const identityVariable = "ALN_IDENTITY"

// provide is what cargo runs as its credential provider. It has no flags, so
// their environment variables are read here.
func (a *app) provide(ctx context.Context) int {
	err := a.provideTo(ctx)
	if err != nil {
		fmt.Fprintf(a.err, "aln-registry: %s\n", tidyLines(err.Error()))
		return exitFailed
	}
	return 0
}

func (a *app) provideTo(ctx context.Context) error {
	if text := os.Getenv(maxAgeVariable); text != "" {
		if err := a.maxAge.Set(text); err != nil {
			return fmt.Errorf("%s: %w", maxAgeVariable, err)
		}
	}
	if text := os.Getenv(grantVariable); text != "" {
		if err := a.grant.Set(text); err != nil {
			return fmt.Errorf("%s: %w", grantVariable, err)
		}
	}
	a.identity = os.Getenv(identityVariable)
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.Provide(ctx, a.in, a.out)
}

// loginFlags are login's settings.
type loginFlags struct {
	name, caFile, origin string
	forgetCA             bool
	// replace and restore are about what stands in the place of crates.io in the project.
	replace, restore bool
}

// terms are what the flags say of the registry to be met.
func (f loginFlags) terms(identity string) (client.Terms, error) {
	terms := client.Terms{Identity: identity, ForgetCA: f.forgetCA}
	if f.origin != "" {
		d, err := did.Parse(f.origin)
		if err != nil {
			return terms, usageError{fmt.Errorf("--origin: %w", err)}
		}
		terms.Origin = d
	}
	if f.caFile == "" {
		return terms, nil
	}
	data, err := readSmallFile(f.caFile)
	if err != nil {
		return terms, fmt.Errorf("--ca-file: %w", err)
	}
	if terms.CA, err = client.ParseCA(data); err != nil {
		return terms, fmt.Errorf("--ca-file %s: %w", f.caFile, err)
	}
	return terms, nil
}

// readSmallFile reads a file that somebody named, of at most 1 MiB.
func readSmallFile(path string) ([]byte, error) { return readRegular(path, 1<<20) }

func readRegular(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most { // opening a pipe would wait for ever
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", path, most)
	}
	return os.ReadFile(path)
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use: "login [URL]", Short: "Meet a registry and set cargo up for it", Args: cobra.MaximumNArgs(1),
		Long: "Meet a registry: make an identity if there is none, check and pin the registry's own first record, write\nits index URL into this project's .cargo/config.toml (safe to commit) and this program as credential\nprovider into CARGO_HOME. No secret is written to any of cargo's files.",
		RunE: func(c *cobra.Command, args []string) error {
			url, err := registryURL(a.registry)
			if len(args) == 1 {
				url, err = args[0], nil
			}
			if err != nil {
				return err
			}
			if url == "" {
				return usageError{errors.New("login needs the registry's URL, as in `aln-registry login http://127.0.0.1:8585`")}
			}
			return a.login(c.Context(), url, f)
		},
	}
	c.Flags().StringVar(&f.name, "name", "", "what the project calls the registry, as in cargo publish --registry NAME (default: as cargo's configuration here calls it already, otherwise aln)")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "certificate (PEM) of the private authority that the registry's certificate comes from; kept for all later commands, and for cargo")
	c.Flags().BoolVar(&f.forgetCA, "forget-ca", false, "trust no private authority for the registry any more, whatever was given before")
	c.MarkFlagsMutuallyExclusive("ca-file", "forget-ca")
	c.Flags().BoolVar(&f.replace, "replace-crates-io", false, "have this project take the crates of crates.io through the registry: [source] in its .cargo/config.toml, safe to commit")
	c.Flags().BoolVar(&f.restore, "restore-crates-io", false, "take back what --replace-crates-io wrote")
	c.MarkFlagsMutuallyExclusive("replace-crates-io", "restore-crates-io")
	c.Flags().StringVar(&f.origin, "origin", "", "DID that the registry must have: the first meeting is no matter of trust then (for CI)")
	return c
}

// loginResult is what login prints with --json.
type loginResult struct {
	URL      string `json:"url"`
	IndexURL string `json:"index_url"`
	Origin   string `json:"origin"`
	DID      string `json:"did"`
	// Name is what cargo calls the registry in this project.
	Name string `json:"name"`
	// CratesIO is where the project's crates of crates.io come from, "" for there.
	CratesIO string `json:"crates_io"`
	Member   bool   `json:"member"`
	// Refusal is why the registry gave no session; "" for a member.
	Refusal string `json:"refusal"`
	// Reads says under what a member reads; null where that is not known.
	Reads   *standing `json:"reads"`
	Changed []string  `json:"changed"`
	Notes   []string  `json:"notes"`
}

func (a *app) login(ctx context.Context, url string, f loginFlags) error {
	terms, err := f.terms(a.identity)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := a.checkIdentity(c); err != nil {
		return err
	}
	met, err := c.Meet(ctx, url, terms)
	if err != nil {
		return err
	}
	entered, err := c.Enter(ctx, met, true)
	if err != nil {
		return err
	}
	begun, err := c.Begin(ctx, entered)
	if err != nil {
		return err
	}
	result := resultOf(met, entered)
	if begun {
		result.Notes = append(result.Notes, "you are the first admin: your own member record is entry 1 of the log")
	}
	older, err := olderNames(c.Home(), entered)
	if err != nil {
		return err
	}
	if f.replace && result.Member {
		if err := takesCratesIO(ctx, c, entered.Pin); err != nil {
			return err
		}
	}
	if err := setUpCargo(c.Home(), &result, f, entered.Pin, older); err != nil {
		if entered.Made {
			return fmt.Errorf("%w (the registry is known to you now, and an identity was made for you: %s)", err, entered.Identity.Path)
		}
		return err
	}
	if result.Member {
		if r, err := c.Registry(entered.Pin); err == nil {
			if reads, err := standingAt(ctx, r); err == nil {
				result.Reads = &reads
			}
		}
	}
	if a.json {
		return a.printJSON(result)
	}
	a.printLogin(result, met.New, entered.Refusal)
	return nil
}

// takesCratesIO refuses to send a project for its crates to a registry that has none of
// crates.io: every build of it would fail. What the registry does not tell is not judged.
func takesCratesIO(ctx context.Context, c *client.Client, pin client.Pin) error {
	r, err := c.Registry(pin)
	if err != nil {
		return err
	}
	all, _, err := r.Upstreams(ctx)
	if err != nil || hasUpstream(all, particle.SourceCratesIO) {
		return nil
	}
	return fmt.Errorf("%s does not take the crates of crates.io (`aln-registry upstream list`): cargo would find none of them there; nothing was written", pin.URL)
}

func hasUpstream(all []client.Upstream, name string) bool {
	return slices.ContainsFunc(all, func(u client.Upstream) bool { return u.Name == name })
}

// checkIdentity refuses an identity that cannot be used, before anybody is asked.
// The default one need not be there: it is made once the registry has been met.
func (a *app) checkIdentity(c *client.Client) error {
	_, err := c.Identity(a.identity)
	if errors.Is(err, client.ErrNoIdentity) && (a.identity == "" || a.identity == client.DefaultIdentity) {
		return nil
	}
	return err
}

// resultOf is what is known once the registry is pinned.
func resultOf(met client.Login, e client.Entered) loginResult {
	result := loginResult{
		URL: e.Pin.URL, IndexURL: e.Pin.IndexURL, Origin: string(e.Pin.Origin), DID: string(e.Identity.DID()),
		Member: e.Refusal == nil, Changed: []string{}, Notes: append([]string{}, met.Notes...),
	}
	if e.Refusal != nil {
		result.Refusal = e.Refusal.Error()
	}
	if e.Made {
		result.Notes = append(result.Notes, "made an identity for you: "+e.Identity.Path+" (back it up; `aln-registry key export`)")
	}
	for _, pin := range e.Adopted {
		result.Notes = append(result.Notes, pin.IndexURL+" is this registry too; what is called so is asked for at "+e.Pin.URL)
	}
	for _, pin := range e.Forgotten {
		result.Notes = append(result.Notes, pin.IndexURL+" is forgotten: the registry's settings name it no more, and nothing is asked there any longer")
	}
	return result
}

// olderNames are the index URLs by which a project may still call the registry.
func olderNames(h client.Home, e client.Entered) ([]string, error) {
	var older []string
	for _, pin := range e.Forgotten {
		older = append(older, pin.IndexURL)
	}
	if e.Refusal != nil {
		return older, nil
	}
	names, err := h.OtherNames(e.Pin)
	return append(names, older...), err
}

// setUpCargo writes the settings that cargo needs. Where the project calls the
// registry by one of its older index URLs, that is replaced.
func setUpCargo(h client.Home, result *loginResult, f loginFlags, pin client.Pin, older []string) error {
	cargoHome, err := cargoHome()
	if err != nil {
		return err
	}
	if err := setUpProject(result, f, cargoHome, older); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	change, err := cargoconfig.SetProvider(cargoHome, program)
	if err != nil {
		return err
	}
	result.note(change)
	if _, err := os.Stat(h.BundlePath()); len(pin.CA) == 0 && (!f.forgetCA || err != nil) {
		return nil
	}
	change, note, err := trustInCargo(h, cargoHome)
	if note != "" {
		result.Notes = append(result.Notes, note)
	}
	result.note(change)
	return err
}

// setUpProject makes the project here, if there is one, name the registry.
func setUpProject(result *loginResult, f loginFlags, cargoHome string, older []string) error {
	name := f.name
	folder, ok, err := projectFolder()
	if err != nil {
		return err
	}
	if !ok && (f.replace || f.restore) {
		return errors.New("there is no Cargo.toml here or above: type this in the folder of the project whose crates are to come through the registry")
	}
	if !ok {
		result.Notes = append(result.Notes, "no Cargo.toml here or above, so no project was set up: type this again in a crate's folder")
		if folder, err = workingFolder(); err != nil {
			return err
		}
		result.Name, err = nameHere(name, folder, cargoHome, result.IndexURL)
		return err
	}
	if f.replace { // before anything is written
		if err := cargoconfig.MayReplaceCratesIO(folder, cargoHome, client.CratesIOURL(result.URL)); err != nil {
			return err
		}
	}
	for _, old := range older {
		changes, err := cargoconfig.MoveIndex(folder, old, result.IndexURL)
		if err != nil {
			return err
		}
		for _, change := range changes {
			result.note(change)
		}
	}
	if result.Name, err = nameHere(name, folder, cargoHome, result.IndexURL); err != nil {
		return err
	}
	change, err := cargoconfig.SetIndex(folder, cargoHome, result.Name, result.IndexURL)
	if errors.Is(err, cargoconfig.ErrNameTaken) {
		return fmt.Errorf("%w; a name is given by --name NAME", err)
	}
	result.note(change)
	if err != nil {
		return err
	}
	return setUpCratesIO(result, f, folder, cargoHome, older)
}

// setUpCratesIO writes or takes back what has the project in folder take the crates of crates.io
// through the registry. What was written for one of the registry's older URLs is mended.
func setUpCratesIO(result *loginResult, f loginFlags, folder, cargoHome string, older []string) error {
	var change cargoconfig.Change
	now, err := cargoconfig.Replacement(folder, cargoHome)
	if err != nil {
		return err
	}
	moved := slices.ContainsFunc(older, func(index string) bool { return client.CratesIOURL(baseOf(index)) == now.Text() })
	switch {
	case f.restore:
		if change, err = cargoconfig.RestoreCratesIO(folder); err == nil {
			result.Notes = append(result.Notes, restored(change))
		}
	case f.replace, moved:
		before := now.Text()
		change, err = cargoconfig.ReplaceCratesIO(folder, client.CratesIOURL(result.URL))
		if err == nil && change.Changed && !moved && before != "" && before != client.CratesIOURL(result.URL) {
			result.Notes = append(result.Notes, now.Path+" puts "+before+" in the place of crates.io, and still does for other projects")
		}
	}
	if err != nil {
		return err
	}
	result.note(change)
	if now, err = cargoconfig.Replacement(folder, cargoHome); err != nil {
		return err
	}
	if result.CratesIO = now.Text(); f.restore && result.CratesIO != "" {
		result.Notes = append(result.Notes, now.Path+" still puts "+result.CratesIO+" in the place of crates.io")
	}
	return nil
}

// restored says what --restore-crates-io did.
func restored(change cargoconfig.Change) string {
	if !change.Changed {
		return "there was nothing to take back: " + change.Path + " has nothing that --replace-crates-io writes"
	}
	return change.Path + " says no more that crates of crates.io come through the registry"
}

// usualName is what a project calls a registry that has no name there.
const usualName = "aln"

// nameHere is what the registry is to be called: as was asked for, as cargo's
// configuration in folder calls it already (it takes no second name), or as usual.
func nameHere(asked, folder, cargoHome, indexURL string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	named, err := cargoconfig.Named(folder, cargoHome)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if base, err := client.ParseURL(named[name].Text()); err == nil && client.IndexURL(base) == indexURL {
			return name, nil
		}
	}
	return usualName, nil
}

func (r *loginResult) note(change cargoconfig.Change) {
	if change.Changed && !slices.Contains(r.Changed, change.Path) {
		r.Changed = append(r.Changed, change.Path)
	}
}

// cargoHome is cargo's own rule: CARGO_HOME, else ~/.cargo.
func cargoHome() (string, error) {
	if folder := os.Getenv("CARGO_HOME"); folder != "" {
		return filepath.Abs(folder)
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(user, ".cargo"), nil
}

func (a *app) printLogin(result loginResult, first bool, refusal error) {
	verb := "is the registry you know: you met it before, or started it"
	if first {
		verb = "is now known to you"
	}
	fmt.Fprintf(a.out, "%s %s\n", result.URL, verb)
	rows := [][]string{{"  registry", result.Origin}, {"  you", result.DID}}
	if result.Reads != nil && result.Reads.Grant != "" && result.Reads.Problem == "" {
		rows = append(rows, []string{"  grant", result.Reads.Grant + " until " + result.Reads.Expires})
	}
	if result.CratesIO != "" {
		rows = append(rows, []string{"  crates.io", "through " + result.CratesIO})
	}
	for _, path := range result.Changed {
		rows = append(rows, []string{"  wrote", path})
	}
	a.table(rows)
	for _, note := range result.Notes {
		fmt.Fprintln(a.out, "note:", tidy(note)) // a project's configuration may be other people's
	}
	var api *client.APIError
	switch {
	case result.Member && result.Reads != nil && result.Reads.Problem != "":
		fmt.Fprintf(a.out, "You are a member, but may not read yet: %s\n-> %s\n", tidy(result.Reads.Problem), tidy(result.Reads.Mend))
	case result.Member:
		fmt.Fprintf(a.out, "You are a member. Now:  cargo publish --registry %s,  cargo add --registry %s NAME\n", tidy(result.Name), tidy(result.Name))
	case errors.As(refusal, &api):
		fmt.Fprintf(a.out, "The registry does not let you in yet: %s\n", api.Detail)
	case refusal != nil:
		fmt.Fprintf(a.out, "The registry gave no session: %s\n", tidyLines(refusal.Error()))
	}
}

// Command aln-registry is a self-sovereign artifact registry: the server, the
// tools of its users and operators, and cargo's credential provider in one
// binary. This package only wires: it turns flags and environment into the
// arguments of the other packages, and results into text or JSON.
//
// Exit statuses: 0 done; 1 refused or interrupted, or something that was to hold
// does not; 2 the command line is wrong; 3 what was to be looked at could not be.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // a second interrupt ends the program at once
		<-ctx.Done()
		stop()
	}()
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
	exitUnseen = 3
)

// statusError ends a command with a status of its own.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

// statusOf is the status that err asks for, or else status.
func statusOf(err error, status int) int {
	var own statusError
	if errors.As(err, &own) {
		return own.status
	}
	return status
}

// errSilent ends a command with status 1 after it has said all itself.
var errSilent = errors.New("failed")

// usageError marks a wrong command line.
type usageError struct{ error }

// app is what every command works with.
type app struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	registry string
	identity string
	maxAge   maxAge
	grant    grantCID
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, err: errOut}
	if len(args) == 1 && args[0] == "--cargo-plugin" {
		return a.provide(ctx)
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSilent):
		return statusOf(err, exitFailed)
	case interrupted(ctx, err):
		fmt.Fprintln(errOut, "aln-registry: interrupted"+left(err))
		return statusOf(err, exitFailed)
	}
	var unproved *client.Unproved
	if a.json && errors.As(err, &unproved) { // with the notes, where two contradict each other
		if err := a.printVerdict(unproved.Verdict); !errors.Is(err, errSilent) {
			fmt.Fprintf(errOut, "aln-registry: %v\n", err)
		}
	}
	fmt.Fprintf(errOut, "aln-registry: %s\n", tidyLines(err.Error()))
	if isUsage(err) {
		return exitUsage
	}
	return statusOf(err, exitFailed)
}

// interrupted reports whether err is only that a signal ended the command: what
// it was doing just then is not what went wrong. Other errors, such as those of a
// server that is shutting down, stay what they are.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

// leaving is an error of a command that says what an interrupt leaves.
type leaving struct {
	error
	what string
}

func (e leaving) Unwrap() error { return e.error }

// ifInterrupted adds to err what it leaves where it is an interrupt's.
func ifInterrupted(ctx context.Context, err error, what string) error {
	if err == nil || !interrupted(ctx, err) {
		return err
	}
	return leaving{err, what}
}

func left(err error) string {
	var told leaving
	if errors.As(err, &told) {
		return "; " + told.what
	}
	return ""
}

// isUsage reports whether err is of the command line: URLs and names come from
// nowhere else.
func isUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage) || errors.Is(err, client.ErrURL) || errors.Is(err, client.ErrIdentityName) ||
		errors.Is(err, cargoconfig.ErrName) || strings.HasPrefix(err.Error(), "unknown command") ||
		strings.HasPrefix(err.Error(), "if any flags in the group") // cobra has no type for it
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "aln-registry",
		Short:         "A registry that a lab runs itself and that nobody has to trust",
		Long:          "A registry that a lab runs itself and that nobody has to trust: cargo publishes to it and\nresolves from it, every artifact is addressed by its content, signed, and entered in a log.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("aln-registry {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		err = flagError(err)
		if strings.HasPrefix(err.Error(), "unknown ") {
			err = fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())
		}
		return usageError{err}
	})
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print JSON for programs")
	flags.StringVar(&a.registry, "registry", "", "URL of the registry to ask, or its name in cargo's configuration (needed only when several are known)")
	flags.StringVar(&a.identity, "identity", "", "name of the identity to sign with (default: the one given at login, or \"default\")")
	flags.Var(&a.maxAge, "max-age", "how old the log's newest checkpoint may be, by this computer's clock; the log cosigns it every hour (\"off\": any age)")
	flags.Var(&a.grant, "grant", "`CID` of the EnvGrant to be judged by (needed only when several are in force for you)")
	root.AddCommand(
		a.serveCommand(), a.rebuildCommand(), a.fsckCommand(), a.gcCommand(), a.backupCommand(), a.migrateCommand(), a.keyCommand(), a.loginCommand(), a.memberCommand(), a.didCommand(), a.settingsCommand(), a.approveCommand(),
		a.publishCommand(), a.getCommand(), a.listCommand(), a.ownerCommand(), a.yankCommand(),
		a.grantCommand(), a.quarantineCommand(), a.whyCommand(), a.preflightCommand(), a.prefetchCommand(), a.upstreamCommand(),
		a.verifyCommand(), a.logCommand(), a.doctorCommand(), a.tokenCommand(), a.completionCommand(), a.versionCommand(),
	)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return fromEnvironment(c, os.LookupEnv) }
	wrapUsage(root)
	refuseUnknownHelp(root)
	if err := a.completeFlags(root); err != nil {
		panic(err) // a flag of that name is not there: a mistake of this program
	}
	return root
}

// flagError says what a number is, or yes and no, where Go's words would tell of its parser.
func flagError(err error) error {
	before, parser, ok := strings.Cut(err.Error(), ": strconv.")
	switch {
	case ok && strings.HasPrefix(parser, "ParseInt"):
		return errors.New(before + ": write a whole number")
	case strings.HasPrefix(err.Error(), "strconv.ParseBool"): // all of it, where a variable set it
		return errors.New("write true or false")
	case ok && strings.HasPrefix(parser, "ParseBool"):
		return errors.New(before + ": write true or false")
	}
	return err
}

// group is a command that only holds others: alone it is a wrong command line.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(c.ErrOrStderr())
			return errors.Join(usageError{fmt.Errorf("`%s` takes one of the commands above", c.CommandPath())}, c.Help())
		},
	}
	c.AddCommand(commands...)
	return c
}

// wrapUsage makes wrong numbers of arguments usage errors in every command, and
// says how it is written.
func wrapUsage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			switch {
			case err == nil:
				return nil
			case c.HasSubCommands() && len(args) > 0:
				err = unknownCommand(c, args[0])
			case !c.HasSubCommands() && len(args) > 0 && c.Use == c.Name():
				err = fmt.Errorf("`%s` takes no argument such as %.80q, only flags", c.CommandPath(), shownWord(args[0]))
			case !c.HasSubCommands():
				err = fmt.Errorf("%w; write `%s`", err, c.UseLine())
			}
			return usageError{fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
		}
	}
	for _, sub := range c.Commands() {
		wrapUsage(sub)
	}
}

// shownWord is a word of the command line as errors show it: a URL without its flag
// may hold a password.
func shownWord(word string) string {
	if strings.Contains(word, "://") || strings.Contains(word, "password=") {
		return "URL"
	}
	return word
}

// unknownCommand is the error about a word that is none of c's commands, with
// those that look like it.
func unknownCommand(c *cobra.Command, word string) error {
	if c.SuggestionsMinimumDistance <= 0 {
		c.SuggestionsMinimumDistance = 2
	}
	err := fmt.Errorf("unknown command %.80q for %q", shownWord(word), c.CommandPath())
	if near := c.SuggestionsFor(word); len(near) > 0 {
		err = fmt.Errorf("%w (did you mean %s?)", err, strings.Join(near, " or "))
	}
	return err
}

// refuseUnknownHelp makes help about a command that there is not an error, as the
// command itself is one.
func refuseUnknownHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() != "help" {
			continue
		}
		c.Run, c.RunE = nil, func(_ *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			switch {
			case err != nil:
				return usageError{err}
			case len(rest) > 0:
				return usageError{unknownCommand(about, rest[0])}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		}
	}
}

// fromEnvironment gives every flag that was not given on the command line the
// value of its environment variable: --public-url has ALN_PUBLIC_URL.
func fromEnvironment(c *cobra.Command, lookup func(string) (string, bool)) error {
	var failed error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := "ALN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := lookup(name)
		if f.Changed || !ok || value == "" || f.Name == "help" || f.Name == "version" {
			return
		}
		if err := c.Flags().Set(f.Name, value); err != nil && failed == nil {
			failed = usageError{fmt.Errorf("%s: %w", name, flagError(err))}
		}
	})
	return failed
}

// home is the folder with our identities and pins.
func home() (client.Home, error) {
	path, err := client.DefaultHome(os.Getenv("ALN_HOME"))
	if err != nil {
		return client.Home{}, err
	}
	return client.OpenHome(path), nil
}

func (a *app) client() (*client.Client, error) {
	h, err := home()
	if err != nil {
		return nil, err
	}
	own, err := transport()
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{
		Home: h, KeyFile: os.Getenv("ALN_KEY_FILE"), Identity: a.identity, Grant: a.grant.String(), HTTP: own, Now: time.Now, Rand: rand.Reader,
		MaxAge: a.maxAge.age, HasToken: cargoHasToken, Version: version,
	}), nil
}

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// tokenFlags are token's settings.
type tokenFlags struct {
	scope    string
	lifetime time.Duration
}

func (a *app) tokenCommand() *cobra.Command {
	var f tokenFlags
	c := &cobra.Command{
		Use: "token", Short: "Print a session, for a build that has no key of its own", Args: cobra.NoArgs,
		Long: "Print a session: a token that stands for you for minutes. It is meant for a build that shall read from the\nregistry and have no key, as in\n\n    CARGO_REGISTRIES_ALN_TOKEN=$(aln-registry token --lifetime 30m) cargo build\n\nWith --grant (ALN_GRANT) it reads by that EnvGrant. A session changes nothing: every change is a record\nsigned by a key. It is written to the standard output and nowhere else; whoever reads it may do the same\nuntil it ends.",
		RunE: func(c *cobra.Command, _ []string) error { return a.token(c.Context(), f) },
	}
	c.Flags().StringVar(&f.scope, "scope", particle.ScopeRead, "what it is for: scopes, separated by spaces")
	c.Flags().DurationVar(&f.lifetime, "lifetime", policy.DefaultSession, "how long it is good for, at most "+policy.MaxSession.String())
	return c
}

// check refuses what no registry would grant.
func (f tokenFlags) check() error {
	scopes := strings.Fields(f.scope)
	if len(scopes) == 0 {
		return usageError{fmt.Errorf("--scope names no scope; take %s", particle.ScopeRead)}
	}
	for _, scope := range scopes {
		if !particle.KnownScope(scope) {
			return usageError{fmt.Errorf("--scope %.40q is no scope; most builds need %s", scope, particle.ScopeRead)}
		}
	}
	if f.lifetime < time.Second || f.lifetime > policy.MaxSession {
		return usageError{fmt.Errorf("--lifetime %s: a session lives from 1s to %s", f.lifetime, policy.MaxSession)}
	}
	return nil
}

// tokenJSON is a session for programs.
type tokenJSON struct {
	Token   string `json:"token"`
	Scope   string `json:"scope"`
	Expires string `json:"expires"`
	DID     string `json:"did"`
	URL     string `json:"url"`
	// Grant is the EnvGrant that it names, "" for none.
	Grant string `json:"grant"`
}

func (a *app) token(ctx context.Context, f tokenFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	scope := strings.Join(strings.Fields(f.scope), " ")
	s, err := r.NewSession(ctx, scope, f.lifetime)
	if err != nil {
		return err
	}
	if isTerminal(a.out) {
		fmt.Fprintf(a.err, "warning: whoever sees this token is you until %s; clear the screen, and do not put it on a command line\n", s.Expires.Format(time.TimeOnly))
	}
	if !a.json {
		fmt.Fprintln(a.out, s.Token)
		return nil
	}
	identity, _ := r.Identity()
	return a.printJSON(tokenJSON{
		Token: s.Token, Scope: scope, Expires: s.Expires.UTC().Format(time.RFC3339), DID: string(identity.DID()), URL: r.Pin().URL, Grant: a.grant.String(),
	})
}

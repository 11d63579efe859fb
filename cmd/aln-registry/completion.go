package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// completionScripts writes a shell's script, by the shell's name.
var completionScripts = map[string]func(root *cobra.Command, out io.Writer) error{
	"bash":       func(root *cobra.Command, out io.Writer) error { return root.GenBashCompletionV2(out, true) },
	"zsh":        func(root *cobra.Command, out io.Writer) error { return root.GenZshCompletion(out) },
	"fish":       func(root *cobra.Command, out io.Writer) error { return root.GenFishCompletion(out, true) },
	"powershell": func(root *cobra.Command, out io.Writer) error { return root.GenPowerShellCompletionWithDesc(out) },
}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a script that completes commands in a shell",
		Long: "Print a script that completes commands, flags and the registries and keys known here:\n\n    bash        source <(aln-registry completion bash)\n    zsh         aln-registry completion zsh > \"${fpath[1]}/_aln-registry\"\n    fish        aln-registry completion fish > ~/.config/fish/completions/aln-registry.fish\n    powershell  aln-registry completion powershell | Out-String | Invoke-Expression",
		Args: cobra.ExactArgs(1), ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			script, ok := completionScripts[args[0]]
			if !ok {
				return usageError{fmt.Errorf("%.40q is none of bash, zsh, fish and powershell", args[0])}
			}
			return script(c.Root(), a.out)
		},
	}
}

// completeFlags offers what is known here for the flags that name it.
func (a *app) completeFlags(root *cobra.Command) error {
	fixed := func(values ...string) func() []string { return func() []string { return values } }
	modes, effects := fixed(particle.ModeEnforce, particle.ModeDryRun), fixed(particle.EffectDeny, particle.EffectWaiveMinAge)
	sources, content := fixed(particle.SourceHosted, particle.SourceCratesIO), fixed(particle.ContentBLAKE3)
	for _, o := range []struct {
		command []string // nil: root
		flag    string
		offer   func() []string
	}{
		{nil, "registry", a.knownURLs}, {nil, "identity", a.knownIdentities}, {nil, "max-age", fixed("24h", "48h", anyAge)},
		{[]string{"token"}, "scope", knownScopes}, {[]string{"grant", "new"}, "tier", fixed(tiers...)},
		{[]string{"quarantine", "add"}, "mode", modes}, {[]string{"quarantine", "test"}, "mode", modes},
		{[]string{"quarantine", "add"}, "effect", effects}, {[]string{"quarantine", "test"}, "effect", effects},
		{[]string{"quarantine", "add"}, "source", sources}, {[]string{"quarantine", "test"}, "source", sources},
		{[]string{"quarantine", "add"}, "content", content}, {[]string{"quarantine", "test"}, "content", content},
	} {
		c, _, err := root.Find(o.command)
		if err != nil {
			return err
		}
		err = c.RegisterFlagCompletionFunc(o.flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return o.offer(), cobra.ShellCompDirectiveNoFileComp
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) knownURLs() []string {
	h, err := home()
	if err != nil {
		return nil
	}
	pins, err := h.CurrentPins()
	if err != nil {
		return nil
	}
	var urls []string
	for _, pin := range pins {
		urls = append(urls, pin.URL)
	}
	return urls
}

func (a *app) knownIdentities() []string {
	h, err := home()
	if err != nil {
		return nil
	}
	identities, err := h.Identities()
	if err != nil {
		return nil
	}
	var names []string
	for _, identity := range identities {
		names = append(names, identity.Name)
	}
	return names
}

func knownScopes() []string {
	return []string{particle.ScopeRead, particle.ScopeBuild, particle.ScopePublish, particle.ScopeAudit, particle.ScopeAdmin}
}

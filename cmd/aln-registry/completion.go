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
	offers := map[string]func() []string{"registry": a.knownURLs, "identity": a.knownIdentities, "scope": knownScopes, "max-age": func() []string { return []string{"24h", "48h", anyAge} }}
	for name, offer := range offers {
		c := root
		if name == "scope" {
			var err error
			if c, _, err = root.Find([]string{"token"}); err != nil {
				return err
			}
		}
		err := c.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return offer(), cobra.ShellCompDirectiveNoFileComp
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

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
)

func (a *app) keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "key", Short: "Identities: the keys by which you sign", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{
			Use: "new [NAME]", Short: "Make an identity (an Ed25519 did:key)", Args: cobra.MaximumNArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.keyNew(nameArgument(args)) },
		},
		&cobra.Command{
			Use: "list", Short: "List the identities", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return a.keyList() },
		},
		&cobra.Command{
			Use: "show [NAME]", Short: "Show an identity's DID and where its key is", Args: cobra.MaximumNArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.keyShow(nameArgument(args)) },
		},
		a.keyExportCommand(), a.keyImportCommand(),
	)
	return c
}

func nameArgument(args []string) string {
	if len(args) == 0 {
		return client.DefaultIdentity
	}
	return args[0]
}

// identityJSON is an identity for programs; never its key.
type identityJSON struct {
	Name string `json:"name"`
	DID  string `json:"did"`
	File string `json:"file"`
}

func (a *app) printIdentities(list []client.Identity) error {
	items, rows := []identityJSON{}, [][]string{}
	for _, i := range list {
		items = append(items, identityJSON{i.Name, string(i.DID()), i.Path})
		rows = append(rows, []string{i.Name, string(i.DID()), i.Path})
	}
	if a.json {
		return a.printJSON(items)
	}
	a.table(rows)
	return nil
}

func (a *app) keyNew(name string) error {
	h, err := home()
	if err != nil {
		return err
	}
	identity, err := h.CreateIdentity(name, rand.Reader)
	if err != nil {
		return err
	}
	return a.printIdentities([]client.Identity{identity})
}

func (a *app) keyList() error {
	h, err := home()
	if err != nil {
		return err
	}
	list, err := h.Identities()
	if err != nil {
		return err
	}
	if len(list) == 0 && !a.json {
		fmt.Fprintf(a.err, "no identity yet; `aln-registry key new` or `aln-registry login URL` makes one\n")
	}
	return a.printIdentities(list)
}

func (a *app) keyShow(name string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	identity, err := c.Identity(name)
	if err != nil {
		return err
	}
	return a.printIdentities([]client.Identity{identity})
}

func (a *app) keyExportCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "export [NAME]", Short: "Write an identity's key, encrypted by a passphrase (JWE)", Args: cobra.MaximumNArgs(1),
		Long: "Write an identity's key, encrypted by a passphrase. The passphrase is asked for on a terminal;\nelsewhere it is the first line of the standard input.",
		RunE: func(_ *cobra.Command, args []string) error { return a.keyExport(nameArgument(args), out) },
	}
	c.Flags().StringVar(&out, "out", "", "file to write (default: the standard output)")
	return c
}

func (a *app) keyExport(name, out string) error {
	h, err := home()
	if err != nil {
		return err
	}
	identity, err := h.Identity(name)
	if err != nil {
		return err
	}
	passphrase, err := a.passphrase("passphrase for the export: ", true)
	if err != nil {
		return err
	}
	encrypted, err := did.EncryptKey(identity.Key(), passphrase, rand.Reader)
	if err != nil {
		return err
	}
	if out == "" {
		fmt.Fprintf(a.out, "%s\n", encrypted)
		return nil
	}
	return durable.CreateFile(out, append(encrypted, '\n'), 0o600)
}

func (a *app) keyImportCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "import FILE", Short: "Read an exported key in as an identity", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.keyImport(args[0], name) },
	}
	c.Flags().StringVar(&name, "name", client.DefaultIdentity, "name of the new identity")
	return c
}

func (a *app) keyImport(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	encrypted, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return err
	}
	passphrase, err := a.passphrase("passphrase of the export: ", false)
	if err != nil {
		return err
	}
	key, err := did.DecryptKey(bytes.TrimSpace(encrypted), passphrase)
	if err != nil {
		return err
	}
	h, err := home()
	if err != nil {
		return err
	}
	identity, err := h.ImportIdentity(name, key)
	if err != nil {
		return err
	}
	return a.printIdentities([]client.Identity{identity})
}

// passphrase asks on a terminal without echo, or reads the first line of the input.
func (a *app) passphrase(prompt string, twice bool) ([]byte, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return bytes.TrimRight(line, "\r\n"), nil
	}
	fmt.Fprint(a.err, prompt)
	first, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.err)
	if err != nil || !twice {
		return first, err
	}
	fmt.Fprint(a.err, "once more: ")
	second, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.err)
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

package main

import (
	"bufio"
	"bytes"
	"context"
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
	return group("key", "Identities: the keys by which you sign",
		a.keyNewCommand(),
		&cobra.Command{
			Use: "list", Short: "List the identities", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return a.keyList() },
		},
		&cobra.Command{
			Use: "show [NAME]", Short: "Show an identity's DID and where its key is", Args: cobra.MaximumNArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.keyShow(a.nameArgument(args)) },
		},
		a.keyExportCommand(), a.keyImportCommand(), a.keyDocumentCommand(), a.keyRotateCommand(), a.keyRegistryCommand(),
	)
}

func (a *app) keyNewCommand() *cobra.Command {
	var web string
	c := &cobra.Command{
		Use: "new [NAME]", Short: "Make an identity with an Ed25519 key: a did:key, or with --did a did:web", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.keyNew(a.nameArgument(args), web) },
	}
	c.Flags().StringVar(&web, "did", "", "did:web of a host that is yours, as in did:web:host.example or did:web:host.example:people:anna")
	return c
}

// nameArgument is the identity that a key command is about: its argument's, or
// that of --identity, "" for the default one.
func (a *app) nameArgument(args []string) string {
	if len(args) == 0 {
		return a.identity
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

func (a *app) keyNew(name, web string) error {
	h, err := home()
	if err != nil {
		return err
	}
	var identity client.Identity
	if web == "" {
		identity, err = h.CreateIdentity(name, rand.Reader)
	} else {
		identity, err = newWebIdentity(h, name, web)
	}
	if errors.Is(err, client.ErrIdentityExists) {
		return fmt.Errorf("%w; give the new one another name: `aln-registry key new NAME`", err)
	}
	if err != nil {
		return err
	}
	if err := a.printIdentities([]client.Identity{identity}); err != nil || a.json || web == "" {
		return err
	}
	fmt.Fprintln(a.err, "Next: publish what `aln-registry key document` prints, and have an admin type `aln-registry member add", web, "--role publisher`")
	return nil
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
		RunE: func(c *cobra.Command, args []string) error {
			return a.keyExport(c.Context(), a.nameArgument(args), out)
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write (default: the standard output)")
	return c
}

func (a *app) keyExport(ctx context.Context, name, out string) error {
	h, err := home()
	if err != nil {
		return err
	}
	identity, err := h.Identity(name)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(out); err == nil { // said before the passphrase is asked for
		return fmt.Errorf("%s exists already; choose another file", out)
	}
	passphrase, err := a.passphrase(ctx, "passphrase for the export: ", true)
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
	if err := durable.CreateFile(out, append(encrypted, '\n'), 0o600); err != nil || !a.json {
		return err
	}
	return a.printJSON(map[string]string{"file": out, "did": string(identity.DID())})
}

func (a *app) keyImportCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "import FILE", Short: "Read an exported key in as an identity", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" {
				name = a.identity
			}
			return a.keyImport(c.Context(), args[0], name)
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the new identity (default \"default\")")
	return c
}

func (a *app) keyImport(ctx context.Context, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	encrypted, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return err
	}
	passphrase, err := a.passphrase(ctx, "passphrase of the export: ", false)
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
	if errors.Is(err, client.ErrIdentityExists) {
		return fmt.Errorf("%w; give the imported one another name: --name NAME", err)
	}
	if err != nil {
		return err
	}
	return a.printIdentities([]client.Identity{identity})
}

// passphrase asks on a terminal without echo, or reads the first line of the input.
func (a *app) passphrase(ctx context.Context, prompt string, twice bool) ([]byte, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return bytes.TrimRight(line, "\r\n"), nil
	}
	first, err := a.askHidden(ctx, f, prompt)
	if err != nil || !twice {
		return first, err
	}
	second, err := a.askHidden(ctx, f, "once more: ")
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

// askHidden reads a line from a terminal that does not show it. Reading cannot be
// broken off; who interrupts it gets the terminal back as it was, and the reader is
// left to the end of the program.
func (a *app) askHidden(ctx context.Context, terminal *os.File, prompt string) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type answer struct {
		line []byte
		err  error
	}
	answered := make(chan answer, 1)
	fmt.Fprint(a.err, prompt)
	go func() {
		line, err := term.ReadPassword(fd)
		answered <- answer{line, err}
	}()
	defer fmt.Fprintln(a.err)
	select {
	case got := <-answered:
		return got.line, got.err
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}

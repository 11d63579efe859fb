package main

import (
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
)

func (a *app) keyDocumentCommand() *cobra.Command {
	var both bool
	var out string
	c := &cobra.Command{
		Use: "document [NAME]", Short: "Print the DID document that a did:web identity publishes", Args: cobra.MaximumNArgs(1),
		Long: "Print the DID document that a did:web identity publishes, and say where. After `key rotate` it holds the\nnew key; with --both the one in use as well, for those who still ask the host about it.",
		RunE: func(_ *cobra.Command, args []string) error { return a.keyDocument(a.nameArgument(args), both, out) },
	}
	c.Flags().BoolVar(&both, "both", false, "after key rotate: hold the key in use beside the new one")
	c.Flags().StringVar(&out, "out", "", "file to write (default: the standard output)")
	return c
}

func (a *app) keyRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rotate [NAME]", Short: "Make the next key of a did:web identity", Args: cobra.MaximumNArgs(1),
		Long: "Make the next key of a did:web identity. The one in use stays so until `aln-registry did update` has made\nthe new document known to the registry.",
		RunE: func(_ *cobra.Command, args []string) error { return a.keyRotate(a.nameArgument(args)) },
	}
}

// ownIdentity is the identity of that name, or ALN_KEY_FILE's.
func (a *app) ownIdentity(name string) (client.Identity, error) {
	c, err := a.client()
	if err != nil {
		return client.Identity{}, err
	}
	return c.Identity(name)
}

func (a *app) keyDocument(name string, both bool, out string) error {
	identity, err := a.ownIdentity(name)
	if err != nil {
		return err
	}
	raw, err := identity.Document(both)
	if err != nil {
		return err
	}
	if err := a.printDocument(identity.DID(), raw, out); err != nil {
		return err
	}
	return a.sayWhereToPublish(identity.DID())
}

// sayWhereToPublish goes to the error stream: the output is the document.
func (a *app) sayWhereToPublish(d did.DID) error {
	url, err := d.WebURL()
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.err, "Publish this as %s\n", url)
	}
	return nil
}

func (a *app) keyRotate(name string) error {
	identity, err := a.ownIdentity(name)
	if err != nil {
		return err
	}
	next, err := identity.Rotate(rand.Reader)
	if err != nil {
		return err
	}
	if err := a.printIdentities([]client.Identity{next}); err != nil || a.json {
		return err
	}
	fmt.Fprintln(a.err, "Next: publish what `aln-registry key document` prints, then type `aln-registry did update`")
	return nil
}

// newWebIdentity makes a did:web identity.
func newWebIdentity(h client.Home, name, id string) (client.Identity, error) {
	d, err := did.Parse(id)
	if err != nil {
		return client.Identity{}, usageError{fmt.Errorf("--did: %w", err)}
	}
	if d.Method() != "web" {
		return client.Identity{}, usageError{fmt.Errorf("--did %s: only a did:web can be asked for; a did:key follows from its key", d)}
	}
	return h.CreateWebIdentity(name, d, rand.Reader)
}

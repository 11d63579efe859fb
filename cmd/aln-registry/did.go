package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
)

// documentFlags say where a did:web's document comes from.
type documentFlags struct {
	file, caFile string
	private      []string
}

func (f *documentFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "document", "", "file with the DID document of a did:web (default: fetched from its host)")
	f.registerNetwork(c)
}

func (f *documentFlags) registerNetwork(c *cobra.Command) {
	c.Flags().StringVar(&f.caFile, "did-ca-file", "", "certificate (PEM) of the private authority that the certificate of the did:web's host comes from")
	c.Flags().StringSliceVar(&f.private, "allow-private-address", nil, "address or network, as in 10.1.2.3 or 10.1.0.0/16, that a did:web's host may have although it is not on the public Internet (repeatable)")
}

// get reads the document of d, from the file or from its host.
func (f *documentFlags) get(ctx context.Context, d did.DID) ([]byte, error) {
	if f.file != "" {
		raw, err := readSmallFile(f.file)
		if err != nil {
			return nil, fmt.Errorf("--document: %w", err)
		}
		document, err := did.ParseDocument(raw)
		if err != nil {
			return nil, fmt.Errorf("--document %s: %w", f.file, err)
		}
		if document.ID() != d {
			return nil, fmt.Errorf("--document %s: it is the document of %s, not %s", f.file, document.ID(), d)
		}
		return raw, nil
	}
	resolver, err := f.resolver()
	if err != nil {
		return nil, err
	}
	raw, err := resolver.Resolve(ctx, d)
	switch {
	case errors.Is(err, did.ErrAddress):
		return nil, fmt.Errorf("%w; if this host is your lab's own, allow it by --allow-private-address, or give the document by --document FILE", err)
	case errors.Is(err, did.ErrResolve):
		return nil, fmt.Errorf("%w; --document FILE takes it from a file", err)
	}
	return raw, err
}

func (f *documentFlags) resolver() (did.Resolver, error) {
	var r did.Resolver
	for _, text := range f.private {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			address, alone := netip.ParseAddr(text)
			if alone != nil {
				return r, usageError{fmt.Errorf("--allow-private-address %.80q is neither an address nor a network such as 10.1.0.0/16", text)}
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		r.Allowed = append(r.Allowed, prefix)
	}
	if f.caFile == "" {
		return r, nil
	}
	data, err := readSmallFile(f.caFile)
	if err != nil {
		return r, fmt.Errorf("--did-ca-file: %w", err)
	}
	ca, err := client.ParseCA(data)
	if err != nil {
		return r, fmt.Errorf("--did-ca-file %s: %w", f.caFile, err)
	}
	if r.Roots, err = x509.SystemCertPool(); err != nil { // a computer without any
		r.Roots = x509.NewCertPool()
	}
	r.Roots.AppendCertsFromPEM(ca)
	return r, nil
}

func (a *app) didCommand() *cobra.Command {
	return group("did", "Documents of did:web identities", a.didResolveCommand(), a.didUpdateCommand())
}

func (a *app) didResolveCommand() *cobra.Command {
	var f documentFlags
	var out string
	c := &cobra.Command{
		Use: "resolve DID", Short: "Fetch a did:web's document and check that it is its own", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := did.Parse(args[0])
			if err != nil {
				return usageError{err}
			}
			raw, err := f.get(c.Context(), d)
			if err != nil {
				return err
			}
			return a.printDocument(d, raw, out)
		},
	}
	f.registerNetwork(c)
	c.Flags().StringVar(&out, "out", "", "file to write (default: the standard output)")
	return c
}

// printDocument prints d's document, or writes it to a new file; programs are told which.
func (a *app) printDocument(d did.DID, raw []byte, out string) error {
	if out == "" {
		fmt.Fprintf(a.out, "%s\n", raw)
		return nil
	}
	url, err := d.WebURL()
	if err != nil {
		return err
	}
	if err := durable.CreateFile(out, raw, 0o644); err != nil || !a.json {
		return err
	}
	return a.printJSON(map[string]string{"file": out, "did": string(d), "url": url})
}

func (a *app) didUpdateCommand() *cobra.Command {
	var f documentFlags
	var member string
	var since int64
	c := &cobra.Command{
		Use: "update", Short: "Make a did:web member's new document known to the registry", Args: cobra.NoArgs,
		Long: "Make a did:web member's new document known to the registry: your own, signed by the key that you use\nnow, or as an admin anybody's. From the next request on its keys count, and no others. After `key rotate`\nthe new key is put into use.\n\nWhat the replaced keys signed stays valid, unless --compromised-since says from which log index on somebody\nelse may have had them: `verify` then refuses what they signed from there on. A key that the document holds is\nnone of them. When a theft is noticed only later, give the document that is in force\nonce more, with --compromised-since.",
		RunE: func(c *cobra.Command, _ []string) error {
			var compromised *int64
			if c.Flags().Changed("compromised-since") {
				if compromised = &since; since < 0 {
					return usageError{fmt.Errorf("--compromised-since %d is not a log index; `aln-registry log show` lists them", since)}
				}
			}
			return a.didUpdate(c.Context(), member, &f, compromised)
		},
	}
	f.register(c)
	c.Flags().StringVar(&member, "member", "", "DID of the member (default: your own)")
	c.Flags().Int64Var(&since, "compromised-since", 0, "log index from which on nothing is believed that was signed by keys which the document does not hold")
	return c
}

func (a *app) didUpdate(ctx context.Context, member string, f *documentFlags, compromisedSince *int64) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	d, err := memberOrSelf(r, member)
	if err != nil {
		return err
	}
	if d.Method() != "web" {
		return fmt.Errorf("%s: %w", d, client.ErrNoDocument)
	}
	document, err := f.get(ctx, d)
	if err != nil {
		return err
	}
	update, err := r.UpdateDID(ctx, d, document, compromisedSince)
	switch {
	case errors.Is(err, client.ErrNotEntitled):
		return fmt.Errorf("only %s itself or an admin can do this: %w", d, err)
	case err != nil:
		return err
	case a.json:
		return a.printJSON(update)
	}
	a.printUpdate(r.Pin().URL, update, compromisedSince)
	return nil
}

func (a *app) printUpdate(registry string, update client.DIDUpdate, compromisedSince *int64) {
	switch {
	case update.Known:
		fmt.Fprintf(a.out, "%s knows this document of %s already\n", registry, update.DID)
	case update.Repeated:
		fmt.Fprintf(a.out, "the document of %s stays: record %s, log index %d\n", update.DID, update.Record, update.Index)
	default:
		fmt.Fprintf(a.out, "replaced the document of %s: record %s, log index %d\n", update.DID, update.Record, update.Index)
	}
	if update.OldKey != "" {
		fmt.Fprintf(a.out, "The new key is in use; the old one is in %s.\n", update.OldKey)
		fmt.Fprintf(a.out, "Where another registry knows you:  ALN_KEY_FILE=%s aln-registry did update --registry URL\n", update.OldKey)
	}
	if len(update.Disowned) > 0 {
		fmt.Fprintf(a.out, "From log index %d on nothing is believed that was signed by  %s\n", *compromisedSince, strings.Join(update.Disowned, " "))
	}
	if len(update.Kept) > 0 {
		fmt.Fprintf(a.out, "note: the document holds keys from before, and what they signed stays believed: %s\n", strings.Join(update.Kept, " "))
	}
	if update.Shut {
		fmt.Fprintln(a.out, "note: the document does not hold the key that you use: it can sign nothing there any more")
	}
}

// memberOrSelf is the DID in text, or the one that r is asked as.
func memberOrSelf(r *client.Registry, text string) (did.DID, error) {
	if text != "" {
		d, err := did.Parse(text)
		if err != nil {
			return "", usageError{fmt.Errorf("--member: %w", err)}
		}
		return d, nil
	}
	identity, ok := r.Identity()
	if !ok {
		return "", client.ErrNoIdentity
	}
	return identity.DID(), nil
}

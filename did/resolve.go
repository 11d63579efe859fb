package did

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// Bounds of a resolution, besides MaxDocument.
const (
	// resolveTimeout is for all of it: name, connection, TLS and document.
	resolveTimeout  = 5 * time.Second
	maxHeader       = 16 << 10 // bytes of the answer's header
	resolverAgent   = "aln-registry"
	documentFormats = "application/did+json, application/did+ld+json;q=0.9, application/json;q=0.8"
)

// Errors of resolution, wrapped with what went wrong.
var (
	// ErrResolve: the document of a did:web could not be fetched.
	ErrResolve = errors.New("cannot resolve the DID")
	// ErrAddress: a host's name leads to an address that is not on the public Internet.
	ErrAddress = errors.New("not an address of the public Internet")
)

// Resolver fetches the documents of did:web. Who chooses the DID chooses where
// the request goes, so it is built for DIDs of one's enemies: https only, no
// redirect is followed, no proxy asked, no cookie or credential sent, nothing
// compressed accepted; the address is checked when it is dialled, after the name
// was resolved, so that a name that answers differently the second time gains
// nothing. The zero value is ready for use. Safe for concurrent use.
type Resolver struct {
	// DNS finds hosts; nil: net.DefaultResolver.
	DNS *net.Resolver
	// Roots are the authorities that hosts' certificates must come from; nil: the system's.
	Roots *x509.CertPool
	// Allowed are addresses beyond the public Internet's that may be dialled all the same:
	// those of a lab's own hosts.
	Allowed []netip.Prefix
}

// Resolve fetches the document of d and checks that it is d's. It takes at most
// 5 seconds and 64 KiB. Errors: ErrDID for what is no did:web, ErrResolve (and
// ErrAddress with it), ErrDocument.
func (r Resolver) Resolve(ctx context.Context, d DID) ([]byte, error) {
	target, err := d.WebURL()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	data, err := r.fetch(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrResolve, target, err)
	}
	document, err := ParseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	if document.ID() != d {
		return nil, fmt.Errorf("%w: %s describes %s, not %s", ErrDocument, target, document.ID(), d)
	}
	return data, nil
}

// fetch does one GET. The connection is its own and ends with it.
func (r Resolver) fetch(ctx context.Context, target string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", documentFormats)
	request.Header.Set("User-Agent", resolverAgent)
	transport := r.transport()
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request) // a Client would follow redirects
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer answer.Body.Close()
	switch encoding := answer.Header.Get("Content-Encoding"); {
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return nil, fmt.Errorf("it answers %d, a redirect, which is not followed; publish the document at this very URL", answer.StatusCode)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	case encoding != "" && encoding != "identity":
		return nil, fmt.Errorf("it answers in the encoding %.40q, which was not asked for", encoding)
	}
	// What type the server calls it is not looked at: many publish it as a plain file.
	data, err := io.ReadAll(io.LimitReader(answer.Body, MaxDocument+1))
	if err != nil {
		return nil, explain(ctx, err)
	}
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("the document is longer than %d bytes", MaxDocument)
	}
	return data, nil
}

// transport has no Proxy, whatever the environment says.
func (r Resolver) transport() *http.Transport {
	dialer := &net.Dialer{Resolver: r.DNS, ControlContext: r.control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: r.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    resolveTimeout,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// control is called with the very address that is about to be connected to.
func (r Resolver) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	dialled, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %.80q", ErrAddress, address)
	}
	return checkAddress(dialled.Addr(), r.Allowed)
}

// explain says of a failure what people can do something about.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no whole answer within %s: %w", resolveTimeout, ctx.Err())
	}
	return err
}

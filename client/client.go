// Package client is a registry as seen from outside: who we are (identities in
// ALN_HOME), which registries we have met (pins), how we ask them (HTTP,
// sessions, signed records, evidence for package verify), and cargo's credential
// provider on top of it. It never holds state of a registry that it has not a
// proof or a fresh answer for.
//
// Invariants: a registry is known by its index URL, and is the same one only if
// its origin and its entry 0 are (docs/FORMATS.md §4); a pinned checkpoint only
// ever grows; private keys never leave the key file and sessions for changes
// never reach a disk; what a server answers is bounded in bytes and time, and no
// credential follows a redirect to another host or travels over plain http
// except to this computer itself.
//
// Network, clock, randomness and the home folder are arguments.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Errors that callers branch on; each is wrapped with what was met and what to do.
var (
	// ErrURL: not the URL of a registry, or one that would send credentials in the clear.
	ErrURL = errors.New("not a usable registry URL")
	// ErrNotPinned: no `aln-registry login` has met that registry.
	ErrNotPinned = errors.New("unknown registry")
	// ErrSeveralPins: several registries are known and none was named.
	ErrSeveralPins = errors.New("several registries are known")
	// ErrNoIdentity: there is no such identity in ALN_HOME.
	ErrNoIdentity = errors.New("no such identity")
	// ErrIdentityName: not a text that names an identity.
	ErrIdentityName = errors.New("not a name of an identity")
	// ErrIdentityExists: an identity of that name exists; keys are never written over.
	ErrIdentityExists = errors.New("identity exists already")
	// ErrChanged: the registry at a pinned URL is another one than was met first.
	ErrChanged = errors.New("this is not the registry that was met before")
	// ErrMeanwhile: another process pinned something that was not judged against.
	ErrMeanwhile = errors.New("another command saw something else of the log meanwhile; try again")
	// ErrUntrusted: what a registry says of itself does not hold together.
	ErrUntrusted = errors.New("the registry does not prove who it is")
	// ErrNotFresh: the registry shows a checkpoint that is too old, of the future, or of no known age.
	ErrNotFresh = errors.New("the log's checkpoint is not fresh")
	// ErrWithheld: the registry does not show us what its log's keys follow from, so
	// that nothing can be said of its log.
	ErrWithheld = errors.New("what the log's keys follow from is for members")
	// ErrNotRegistry: something else than an aln-registry answers at a URL.
	ErrNotRegistry = errors.New("this is not an aln-registry")
	// ErrUnreachable: the registry gave no answer, or not all of it.
	ErrUnreachable = errors.New("cannot reach the registry")
	// ErrAnswer: an answer is not of the form that was agreed, or too long.
	ErrAnswer = errors.New("unexpected answer of the registry")
	// ErrNotEntitled: the registry knows of nothing that lets us sign such a record.
	ErrNotEntitled = errors.New("not entitled")
	// ErrCA: not the certificates of an authority.
	ErrCA = errors.New("not a usable file of certificates")
	// ErrProxy: a setting for a proxy that names none.
	ErrProxy = errors.New("not a usable proxy")
	// ErrOrigin: the registry is not the one that was expected.
	ErrOrigin = errors.New("this is not the registry that was expected")
	// ErrClock: the clocks differ by more than can be corrected for.
	ErrClock = errors.New("the clocks do not agree")
)

// Config is what a Client needs.
type Config struct {
	Home Home
	// KeyFile names a key file that is used in place of every identity (ALN_KEY_FILE); "" for none.
	KeyFile string
	// Identity names the identity to ask as at every registry, in place of the
	// one that its pin names; "" for the pin's.
	Identity string
	// Grant is the CID of the EnvGrant that sessions name (ALN_GRANT); "" for none,
	// which is right where a host has one or none.
	Grant string
	// HTTP sends requests; its Timeout, Jar and CheckRedirect are not used. nil: http.DefaultTransport.
	HTTP http.RoundTripper
	// Now is this computer's clock.
	Now  func() time.Time
	Rand io.Reader
	// MaxAge is the largest age of a checkpoint that is believed; 0: DefaultMaxAge,
	// verify.AnyAge: any.
	MaxAge time.Duration
	// Sleep waits between two questions to a registry that is behind or cannot answer
	// now, for a duration or until the context ends; nil: in real time.
	Sleep func(context.Context, time.Duration) error
	// HasToken reports whether cargo itself has a token for the registry that it
	// calls so; nil: that is not known.
	HasToken func(registry string) bool
	// Version goes into the User-Agent.
	Version string
}

// DefaultMaxAge is the largest age of a checkpoint that is believed, where nothing
// else was said (FORMATS §4).
const DefaultMaxAge = 24 * time.Hour

// Client reaches registries on behalf of one user. Safe for concurrent use.
type Client struct {
	home     Home
	keyFile  string
	identity string
	grant    string
	web      web
	rand     io.Reader
	hasToken func(registry string) bool
	maxAge   time.Duration

	mu sync.Mutex
	// trusting holds, by the certificates of a private CA, what trusts it.
	trusting map[string]web
}

// New returns a client; Home, Now and Rand must be given.
func New(c Config) *Client {
	maxAge := c.MaxAge
	if maxAge == 0 {
		maxAge = DefaultMaxAge
	}
	return &Client{
		home: c.Home, keyFile: c.KeyFile, identity: c.Identity, grant: c.Grant, rand: c.Rand, hasToken: c.HasToken, maxAge: maxAge,
		web: newWeb(c.HTTP, c.Now, c.Sleep, c.Version), trusting: map[string]web{},
	}
}

// Home returns the folder that the client works with.
func (c *Client) Home() Home { return c.home }

// Identity returns the identity to sign with: the key file's if one was
// configured, otherwise the one called name ("" is DefaultIdentity). ErrNoIdentity.
func (c *Client) Identity(name string) (Identity, error) {
	if c.keyFile != "" {
		return LoadIdentity(c.keyFile)
	}
	return c.home.Identity(name)
}

// Open returns the pinned registry that which names: its URL, its index URL, or
// "" when only one is pinned. Errors: ErrNotPinned, ErrSeveralPins, and those of Registry.
func (c *Client) Open(which string) (*Registry, error) {
	pin, err := c.home.SelectPin(which)
	if err != nil {
		return nil, err
	}
	return c.Registry(pin)
}

// Registry returns the registry behind pin with the identity that was configured,
// which must be there (ErrNoIdentity) unless it is the default one, or the one that
// pin names: without it only what is public can be asked.
func (c *Client) Registry(pin Pin) (*Registry, error) {
	w, err := c.webOf(pin.URL, pin.CA)
	if err != nil {
		return nil, fmt.Errorf("pin of %s: %w", pin.URL, err)
	}
	r := &Registry{client: c, pin: pin, web: w, grant: c.grant}
	name := c.identity
	if name == "" {
		name = pin.Identity
	}
	identity, err := c.Identity(name)
	switch {
	case err == nil:
		r.identity = &identity
	case c.identity != "" && c.identity != DefaultIdentity:
		return nil, err
	case !errors.Is(err, ErrNoIdentity):
		return nil, fmt.Errorf("identity for %s: %w", pin.URL, err)
	}
	return r, nil
}

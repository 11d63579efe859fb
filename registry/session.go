package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// recordValidity is how long records that the registry signs may wait for their entry.
const recordValidity = 5 * time.Minute

// SessionURL is where assertions are posted, and so their audience.
func (r *Registry) SessionURL() string { return r.PublicURL + "/v1/session" }

// Mint exchanges an assertion for a session (RFC 7523; FORMATS §5). Errors: a
// *policy.Denial that says why, ErrUnauthenticated, or the catalog's, in which
// case nothing is minted.
func (r *Registry) Mint(ctx context.Context, assertion string) (token string, life time.Duration, err error) {
	if err := r.Current(); err != nil {
		return "", 0, err
	}
	t, err := policy.ParseAssertion(assertion)
	if err != nil {
		return "", 0, fmt.Errorf("%w: assertion: %v", ErrUnauthenticated, err)
	}
	key, err := r.verifyAssertion(ctx, t)
	if err != nil {
		return "", 0, err
	}
	now := r.Clock()
	since, err := r.Catalog.AssertionsSince(ctx)
	if err != nil {
		return "", 0, err
	}
	if denial := policy.CheckAssertion(t, r.SessionURL(), since, now); denial != nil {
		return "", 0, denial
	}
	holder, err := r.holder(ctx, keysOf(t.Claims.Subject), t.Claims.Grant)
	if err != nil {
		return "", 0, err
	}
	id, err := r.randomID()
	if err != nil {
		return "", 0, err
	}
	claims, denial := policy.Admit(t.Claims, holder, r.origin, id, now)
	if denial != nil {
		return "", 0, denial
	}
	bindKey(&claims, t.KeyID, key)
	// Last, so that only the assertions of members take room in the catalog.
	expires := time.Unix(t.Claims.Expiry, 0).Add(policy.ClockSkew + time.Second)
	fresh, err := r.Catalog.UseAssertion(ctx, string(t.Claims.Issuer), t.Claims.ID, expires, now)
	if err != nil {
		return "", 0, err
	}
	if !fresh {
		return "", 0, &policy.Denial{Rule: policy.RuleToken, Reason: "this assertion was used before; sign a new one"}
	}
	token, err = policy.SignSession(claims, did.EdDSA, r.Keys.Signer())
	return token, time.Duration(claims.Expiry-claims.IssuedAt) * time.Second, err
}

// Authenticate says who a session token stands for now, and under which grant it
// reads. Only the signature's result is cached, and what a grant's CID names; time,
// membership, issuer and which grant is in force are looked at on every call.
// Errors: ErrUnauthenticated, a *policy.Denial, or ErrUnavailable where this replica
// may not go by what it shows.
func (r *Registry) Authenticate(ctx context.Context, token string) (policy.Asker, error) {
	if err := r.Current(); err != nil {
		return policy.Asker{}, err
	}
	t, err := r.verifiedSession(token)
	if err != nil {
		return policy.Asker{}, err
	}
	holder, err := r.holder(ctx, t.holder, t.Claims.Grant)
	if err != nil {
		return policy.Asker{}, err
	}
	if holder.Member || holder.Admin {
		if err := r.checkKey(ctx, t.Claims); err != nil {
			return policy.Asker{}, err
		}
	}
	now := r.Clock()
	asker, denial := policy.CheckSession(t.Token, holder, r.origin, now)
	if denial != nil {
		return policy.Asker{}, fmt.Errorf("%w: %w", ErrUnauthenticated, denial)
	}
	return asker, r.resolve(ctx, &asker, holder.Grants, now)
}

// session is a token whose signature was verified, with the keys of its holder's
// state: looked up on every request, and spelled once.
type session struct {
	policy.Token[particle.SessionToken]
	holder holderKeys
}

func (r *Registry) verifiedSession(token string) (session, error) {
	if t, ok := r.verified.get(token); ok {
		return t, nil
	}
	parsed, err := policy.ParseSession(token)
	t := session{parsed, keysOf(parsed.Claims.Subject)}
	if err != nil {
		return t, fmt.Errorf("%w: %v", ErrUnauthenticated, err)
	}
	if t.KeyID != r.Keys.id {
		return t, fmt.Errorf("%w: the session was not minted by this registry", ErrUnauthenticated)
	}
	if err := t.Verify(r.Keys.key.Public()); err != nil {
		return t, fmt.Errorf("%w: the session's signature is wrong", ErrUnauthenticated)
	}
	r.verified.put(strings.Clone(token), t) // not the whole header
	return t, nil
}

func (r *Registry) randomID() (string, error) {
	var raw [16]byte
	if _, err := io.ReadFull(r.Rand, raw[:]); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw[:]), nil
}

// SplitCredential takes apart what cargo sends: a session, and behind ~ the
// record that the credential provider signed (FORMATS §6); envelope is nil when
// there is none. It bounds the record to 4 KiB.
func SplitCredential(credential string) (session string, envelope []byte, err error) {
	session, encoded, ok := strings.Cut(credential, "~")
	if !ok {
		return session, nil, nil
	}
	const maxRecord = 4 << 10
	if base64.RawURLEncoding.DecodedLen(len(encoded)) > maxRecord {
		return session, nil, fmt.Errorf("%w: the record in the token is larger than %d bytes", ErrRequest, maxRecord)
	}
	envelope, err = base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(envelope) == 0 || strings.ContainsAny(encoded, "\r\n") { // Strict lets line breaks pass
		return session, nil, fmt.Errorf("%w: the record in the token is not base64url", ErrRequest)
	}
	return session, envelope, nil
}

// ErrNoRecord: a change through cargo came without the record that signs it.
var ErrNoRecord = errors.New("this registry takes only signed changes: cargo must use aln-registry as credential provider; type `aln-registry login URL` in the project's folder, which sets it up")

// sessionCache remembers tokens whose signature has been verified, minted by any
// replica: they have one key.
type sessionCache struct {
	mu     sync.Mutex
	tokens map[string]session
	counts Stats
}

// mostCached bounds the cache; when it is full it is emptied, which costs each
// live session one verification.
const mostCached = 16 << 10

func newSessionCache() *sessionCache {
	return &sessionCache{tokens: map[string]session{}}
}

func (c *sessionCache) get(token string) (session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tokens[token]
	if ok {
		c.counts.CacheHits++
	} else {
		c.counts.CacheMisses++
	}
	return t, ok
}

func (c *sessionCache) put(token string, t session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) >= mostCached {
		c.counts.CacheEvictions += uint64(len(c.tokens))
		clear(c.tokens)
	}
	c.tokens[token] = t
}

func (c *sessionCache) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.CacheEntries, s.CacheMost = len(c.tokens), mostCached
	return s
}

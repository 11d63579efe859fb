package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	sessionPath = "/v1/session"
	grantType   = "urn:ietf:params:oauth:grant-type:jwt-bearer" // RFC 7523 §2.1

	// sessionMargin is the life that a cached session must have left to be used
	// again: cargo itself drops a token a minute before its end.
	sessionMargin = 2 * time.Minute
	// maxTokenLength bounds a session token as the registry hands it out.
	maxTokenLength = policy.MaxToken
)

// Session is a short-lived credential.
type Session struct {
	Token string
	// Expires is by this computer's clock.
	Expires time.Time
}

// String does not show the token.
func (s Session) String() string { return "session until " + s.Expires.UTC().Format(time.RFC3339) }

// GoString is String.
func (s Session) GoString() string { return s.String() }

// sessionJSON is a cached read session.
type sessionJSON struct {
	Origin did.DID `json:"origin"`
	DID    did.DID `json:"did"`
	// Grant is the EnvGrant that it names, "" for none.
	Grant   string `json:"grant,omitzero"`
	Token   string `json:"token"`
	Expires int64  `json:"expires"` // Unix seconds
}

// Session returns a session for scope (one or several, separated by a space), which
// names the EnvGrant that the client was made with. rec binds it to one record, ""
// to none; lifetime 0 is the registry's default. A read session is kept in the
// home, apart for each grant, and handed out again while it has time left; others
// are new each time. Errors: ErrNoIdentity, ErrClock, *APIError (403 for who is not
// a member, and for a grant that is not theirs or was revoked).
func (r *Registry) Session(ctx context.Context, scope string, rec record.ID, lifetime time.Duration) (Session, error) {
	if r.identity == nil {
		return Session{}, r.nobody()
	}
	if scope != particle.ScopeRead || rec != "" {
		return r.mint(ctx, scope, rec, lifetime)
	}
	name := r.sessionName()
	if s, ok := r.cached(name); ok {
		return s, nil
	}
	// One process mints, the others of the same cargo run find what it wrote.
	unlock, err := r.client.home.lock(ctx, folderSessions, name)
	if err != nil {
		return Session{}, err
	}
	defer unlock()
	if s, ok := r.cached(name); ok {
		return s, nil
	}
	s, err := r.mint(ctx, scope, "", lifetime)
	if err != nil {
		return Session{}, err
	}
	return s, r.store(name, s)
}

// NewSession is Session, but of every scope a fresh one that is kept nowhere:
// for somebody else to use.
func (r *Registry) NewSession(ctx context.Context, scope string, lifetime time.Duration) (Session, error) {
	if r.identity == nil {
		return Session{}, r.nobody()
	}
	return r.mint(ctx, scope, "", lifetime)
}

// nobody says that there is no identity to ask as.
func (r *Registry) nobody() error {
	return fmt.Errorf("%w: %q is not in %s; type `aln-registry login %s`", ErrNoIdentity, orDefault(r.pin.Identity), r.client.home.path, r.pin.URL)
}

func (r *Registry) sessionName() string {
	if r.grant == "" {
		return r.sessionStem()
	}
	return r.sessionStem() + grantMark + fileID(r.grant)
}

// grantMark stands in a session's file name before what stands for its grant.
const grantMark = "-"

// sessionStem is how the names of our sessions begin, whatever grants they name.
func (r *Registry) sessionStem() string {
	// By key, not by DID: a session is refused once its key is replaced.
	return fileID(r.pin.IndexURL, string(r.pin.Origin), r.identity.KeyID().String())
}

// Bare is r asked with sessions that name no grant: for what does not hang on one,
// and to ask what is wrong with one.
func (r *Registry) Bare() *Registry { return r.Under(storage.CID{}) }

// Under is r asked with sessions that name that EnvGrant; the zero CID: none.
func (r *Registry) Under(grant storage.CID) *Registry {
	other := *r
	other.grant = ""
	if !grant.IsZero() {
		other.grant = grant.String()
	}
	return &other
}

func (r *Registry) sessionFile(name string) string {
	return r.client.home.file(folderSessions, name+".json")
}

// cached returns the read session on disk if it is for us, there, and not
// near its end. Whatever is wrong with the file, a new session replaces it.
func (r *Registry) cached(name string) (Session, bool) {
	data, err := readFile(r.sessionFile(name), maxHomeFile)
	if err != nil {
		return Session{}, false
	}
	var j sessionJSON
	if err := json.Unmarshal(data, &j, json.RejectUnknownMembers(true)); err != nil {
		return Session{}, false
	}
	s := Session{Token: j.Token, Expires: time.Unix(j.Expires, 0)}
	left := s.Expires.Sub(r.web.now())
	ok := j.Origin == r.pin.Origin && j.DID == r.identity.DID() && j.Grant == r.grant && validToken(s.Token) &&
		left > sessionMargin && left <= policy.MaxSession
	return s, ok
}

func (r *Registry) store(name string, s Session) error {
	data, err := json.Marshal(sessionJSON{Origin: r.pin.Origin, DID: r.identity.DID(), Grant: r.grant, Token: s.Token, Expires: s.Expires.Unix()})
	if err != nil {
		return fmt.Errorf("keep session: %w", err)
	}
	return durable.WriteFile(r.sessionFile(name), data, fileMode)
}

// DropSession forgets the cached read sessions, of whatever grants; found says
// whether there was one.
func (r *Registry) DropSession(ctx context.Context) (found bool, err error) {
	if r.identity == nil {
		return false, nil
	}
	stem := r.sessionStem()
	kept, err := r.client.home.names(folderSessions, ".json")
	if err != nil {
		return false, err
	}
	for _, name := range kept {
		if name != stem && !strings.HasPrefix(name, stem+grantMark) {
			continue
		}
		one, err := r.dropOne(ctx, name)
		if err != nil {
			return found, err
		}
		found = found || one
	}
	return found, nil
}

func (r *Registry) dropOne(ctx context.Context, name string) (found bool, err error) {
	unlock, err := r.client.home.lock(ctx, folderSessions, name)
	if err != nil {
		return false, err
	}
	defer unlock()
	err = os.Remove(r.sessionFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// mint asks for a session. If it was refused and the answer showed that our
// clock is off, it asks once more by the registry's clock.
func (r *Registry) mint(ctx context.Context, scope string, rec record.ID, lifetime time.Duration) (Session, error) {
	before := r.web.offset.Load()
	var s Session
	err := r.web.untilReady(ctx, func() (err error) { // each time with an assertion of its own, which is good for one use
		s, err = r.mintOnce(ctx, scope, rec, lifetime)
		return err
	})
	var refused *APIError
	if errors.As(err, &refused) && (time.Duration(r.web.offset.Load()-before)).Abs() > clockTolerance {
		return r.mintOnce(ctx, scope, rec, lifetime)
	}
	return s, err
}

func (r *Registry) mintOnce(ctx context.Context, scope string, rec record.ID, lifetime time.Duration) (Session, error) {
	assertion, err := r.assertion(scope, rec, lifetime)
	if err != nil {
		return Session{}, err
	}
	form := url.Values{"grant_type": {grantType}, "assertion": {assertion}}
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	asked := r.web.now()
	err = r.web.json(ctx, call{method: http.MethodPost, path: sessionPath, contentType: "application/x-www-form-urlencoded", body: []byte(form.Encode())}, maxAnswer, &answer)
	if err != nil {
		return Session{}, fmt.Errorf("session at %s: %w", r.pin.URL, err)
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	if answer.TokenType != "Bearer" || !validToken(answer.AccessToken) || answer.ExpiresIn <= 0 || answer.ExpiresIn > int64(policy.MaxSession/time.Second) {
		return Session{}, fmt.Errorf("%w: not a session of at most %s", ErrAnswer, policy.MaxSession)
	}
	return Session{Token: answer.AccessToken, Expires: asked.Add(life)}, nil
}

// assertion signs a request for a session (RFC 7523 §3).
func (r *Registry) assertion(scope string, rec record.ID, lifetime time.Duration) (string, error) {
	at, err := r.web.registryTime()
	if err != nil {
		return "", err
	}
	id := make([]byte, 16)
	if _, err := io.ReadFull(r.client.rand, id); err != nil {
		return "", fmt.Errorf("sign assertion: %w", err)
	}
	return policy.SignAssertion(policy.Assertion{
		Issuer: r.identity.DID(), Subject: r.identity.DID(), Audience: r.pin.URL + sessionPath,
		IssuedAt: at.Unix(), Expiry: at.Add(policy.MaxAssertion).Unix(), ID: hex.EncodeToString(id),
		Lifetime: int64(lifetime / time.Second), Scope: scope, Grant: r.grant, Rec: string(rec),
	}, r.identity.Algorithm(), r.identity.Signer())
}

// validToken reports whether s may stand in an Authorization header, in front of a "~".
func validToken(s string) bool {
	if s == "" || len(s) > maxTokenLength {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

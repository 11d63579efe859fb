package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// Login is the outcome of meeting a registry.
type Login struct {
	Pin Pin
	// New: the registry was not known before; it was trusted on first use.
	New bool
	// Notes are sentences for the user about what was done otherwise than asked.
	Notes []string
	// log is what was judged against the notes past, for the pin.
	log  shown
	past [][]byte
}

// Terms are how a registry is to be met.
type Terms struct {
	// Identity is the name of the identity to ask as there; "" for the one that
	// is pinned, or the default.
	Identity string
	// CA holds the certificates (PEM) of a private authority that the registry's
	// certificate comes from; nil for the pinned ones. ForgetCA: none is trusted any
	// more but what this computer trusts.
	CA       []byte
	ForgetCA bool
	// Origin is the DID that the registry must have, "" for any: with it not
	// even the first meeting is a matter of trust.
	Origin did.DID
}

// notJudged is said where the registry shows us nothing to judge its log by.
const notJudged = "the registry shows the records that its log's keys follow from to members only, so nothing of its log was judged; " +
	"the first command that you give as a member does"

// Login is LoginOn with nothing but an identity.
func (c *Client) Login(ctx context.Context, url, identity string) (Login, error) {
	return c.LoginOn(ctx, url, Terms{Identity: identity})
}

// LoginOn is Meet, and pins what was met: for who need not be told whether they are
// a member, and by which other URLs the registry goes (Enter).
func (c *Client) LoginOn(ctx context.Context, url string, terms Terms) (Login, error) {
	login, err := c.Meet(ctx, url, terms)
	if err != nil {
		return Login{}, err
	}
	login.Pin, err = c.pin(ctx, login.log, login.Pin, login.past, c.home.SavePin)
	return login, err
}

// Meet asks the registry at url who it is, and checks that what it says of itself
// holds together (FORMATS §4). Of a known registry, also one that was known by
// another URL, it checks that it is the same one and that its log extends what was
// pinned. Where that is shown to members only and we are none, the pin has no
// checkpoint, and a note says so. Nothing is pinned. Errors: ErrURL, ErrCA,
// ErrUnreachable, ErrNotRegistry, ErrOrigin, ErrChanged, ErrUntrusted; ErrNotFresh, and
// translog's ErrRollback and ErrConsistency for a log that lost or rewrote its past (*Unproved).
func (c *Client) Meet(ctx context.Context, url string, terms Terms) (Login, error) {
	base, err := ParseURL(url)
	if err != nil {
		return Login{}, err
	}
	if terms, err = c.complete(base, terms); err != nil {
		return Login{}, err
	}
	for lag := c.web.patience(); ; {
		login, err := c.meetOnce(ctx, base, terms, lag)
		if !lags(err) || !lag.pause(ctx) {
			return login, err
		}
	}
}

func (c *Client) meetOnce(ctx context.Context, base string, terms Terms, lag *patience) (Login, error) {
	met, err := c.meet(ctx, base, terms, lag)
	if err != nil {
		return Login{}, err
	}
	past, keys, err := c.compare(ctx, base, met)
	if err != nil && !errors.Is(err, ErrWithheld) {
		return Login{}, err
	}
	login := Login{New: len(past) == 0}
	there, failed := c.declared(ctx, base, met, terms, lag)
	if failed != nil {
		return Login{}, failed
	}
	if declared := there.as.pin.URL; declared != base { // its log is the one to go by
		login.Notes = append(login.Notes, fmt.Sprintf("the registry calls itself %s; that URL is used", declared))
		past, keys, err = c.compare(ctx, declared, there)
	}
	login.Pin, login.log = there.as.pin, there.shown
	for _, pin := range past {
		login.past = append(login.past, pin.Checkpoint)
	}
	switch {
	case err == nil:
		login.Pin.Checkpoint, login.Pin.Keys = there.note, keys
	case errors.Is(err, ErrWithheld):
		login.Notes = append(login.Notes, notJudged)
	default:
		return Login{}, err
	}
	return login, nil
}

// complete fills in what is pinned of the registry at base, and checks the certificates.
func (c *Client) complete(base string, terms Terms) (Terms, error) {
	if terms.ForgetCA {
		terms.CA = nil
		return terms, nil
	}
	pin, err := c.home.PinOf(base)
	switch {
	case errors.Is(err, ErrNotPinned):
	case err != nil:
		return terms, err
	case terms.CA == nil:
		terms.CA = pin.CA
		return terms, nil
	}
	if terms.CA != nil {
		terms.CA, err = ParseCA(terms.CA)
		return terms, err
	}
	return terms, nil
}

// usualIdentity is the one that pin's registry is asked as, by whatever name it is known.
func (c *Client) usualIdentity(pin Pin) string {
	pins, err := c.home.Pins()
	if err != nil {
		return DefaultIdentity
	}
	for _, known := range pins {
		if known.sameRegistry(pin) {
			return known.Identity
		}
	}
	return DefaultIdentity
}

// met is a registry whose first record has been checked; its checkpoint is for
// compare to judge.
type met struct {
	shown
	origin   did.DID
	entry0   tlog.Hash
	settings *record.Registry
	// challenge is the WWW-Authenticate header of a refusal to nobody.
	challenge func(ctx context.Context) (string, error)
}

// meet fetches the checkpoint, entry 0 and its record from base and checks that
// the origin signed that record.
func (c *Client) meet(ctx context.Context, base string, terms Terms, lag *patience) (met, error) {
	w, err := c.webOf(base, terms.CA)
	if err != nil {
		return met{}, err
	}
	m := met{challenge: w.challenge}
	m.shown, err = w.show(ctx, lag)
	var refused *APIError
	switch {
	case errors.As(err, &refused) && refused.Code == "" && refused.Status < http.StatusInternalServerError && refused.Status != http.StatusTooManyRequests:
		return met{}, fmt.Errorf("%w: %s answers %d %s when asked for a log", ErrNotRegistry, base, refused.Status, http.StatusText(refused.Status))
	case errors.Is(err, translog.ErrCheckpoint):
		return met{}, fmt.Errorf("%w: %s answers with something else than a log's checkpoint (%w)", ErrNotRegistry, base, err)
	case err != nil:
		return met{}, err
	}
	if m.origin, err = did.Parse(m.checkpoint.Origin); err != nil {
		return met{}, fmt.Errorf("%w: the origin of its log: %w", ErrUntrusted, err)
	}
	if terms.Origin != "" && terms.Origin != m.origin {
		return met{}, fmt.Errorf("%w: at %s is %s, not %s", ErrOrigin, base, m.origin, terms.Origin)
	}
	line, err := m.reader.ReadEntry(0)
	if err != nil {
		return met{}, fmt.Errorf("%w: entry 0: %w", ErrUntrusted, err)
	}
	m.entry0 = translog.LeafHash(line)
	if m.settings, err = w.genesis(ctx, m.origin, line); err != nil {
		return met{}, fmt.Errorf("%w: entry 0: %w", ErrUntrusted, err)
	}
	pin := Pin{IndexURL: IndexURL(base), URL: base, Origin: m.origin, Entry0: m.entry0, Identity: terms.Identity, CA: terms.CA}
	if pin.Identity == "" {
		pin.Identity = c.usualIdentity(pin)
	}
	m.as, err = c.Registry(pin)
	return m, err
}

// genesis fetches the record of entry 0 and checks that the origin signed it.
func (w web) genesis(ctx context.Context, origin did.DID, line []byte) (*record.Registry, error) {
	entry, err := translog.ParseEntry(line)
	if err != nil {
		return nil, err
	}
	rec, index, err := w.record(ctx, entry.Record.String())
	if err != nil {
		return nil, err
	}
	settings, ok := rec.Body().(*record.Registry)
	h := rec.Header()
	if !ok || index != 0 || h.Prev != "" || h.By != "" || h.Key != "" {
		return nil, errors.New("its record is not the first registry record")
	}
	if settings.DID != origin || h.Registry != origin || h.Signer.DID != origin {
		return nil, fmt.Errorf("its record is about %s, signed by %s, in the log of %s", settings.DID, h.Signer.DID, origin)
	}
	document, err := w.originDocument(ctx, entry, settings)
	if err != nil {
		return nil, err
	}
	key, err := did.ResolveKey(h.Signer, rec.Type().Relationship(), document)
	if err != nil {
		return nil, err
	}
	return settings, rec.Verify(key)
}

// originDocument fetches the DID document of a did:web registry as of entry 0; nil for a did:key.
func (w web) originDocument(ctx context.Context, entry translog.Entry, settings *record.Registry) (*did.Document, error) {
	if settings.DIDDocument == nil {
		if !entry.DIDDocument.IsZero() {
			return nil, errors.New("it names a DID document, its record does not")
		}
		return nil, nil
	}
	if entry.DIDDocument != *settings.DIDDocument {
		return nil, errors.New("it names another DID document than its record")
	}
	data, err := w.attachment(ctx, entry.Record.String(), entry.DIDDocument)
	if err != nil {
		return nil, err
	}
	return did.ParseDocument(data)
}

// record fetches a record that needs no session: entry 0's.
func (w web) record(ctx context.Context, id string) (*record.Record, int64, error) {
	data, header, err := w.bytes(ctx, call{method: http.MethodGet, path: recordPath(id)}, record.MaxEnvelope)
	if err != nil {
		return nil, 0, err
	}
	return parseRecord(id, data, header)
}

// attachment fetches a blob of such a record.
func (w web) attachment(ctx context.Context, id string, cid storage.CID) ([]byte, error) {
	data, _, err := w.bytes(ctx, call{method: http.MethodGet, path: attachmentPath(id, cid)}, maxAttachment)
	if err != nil {
		return nil, err
	}
	return data, checkCID(data, cid)
}

// declared returns the registry at the URL to use: m, met at base, if the registry
// goes by that, otherwise where it goes by, if the same registry answers there. What
// it goes by today it says itself: only members may read whether its settings name
// that URL (Enter). An older server says nothing; then entry 0 counts.
func (c *Client) declared(ctx context.Context, base string, m met, terms Terms, lag *patience) (met, error) {
	declared, err := m.goesBy(ctx)
	if err != nil {
		return met{}, err
	}
	if declared == base || declared == "" && slices.Contains(m.settings.IndexURLs, IndexURL(base)) {
		return m, nil
	}
	if declared == "" {
		declared, err = ParseURL(m.settings.IndexURLs[0])
		if err != nil || IndexURL(declared) != m.settings.IndexURLs[0] {
			return met{}, fmt.Errorf("%w: it calls itself %.200q", ErrUntrusted, m.settings.IndexURLs[0])
		}
	}
	other, err := c.meet(ctx, declared, terms, lag)
	if err != nil {
		return met{}, fmt.Errorf("the registry at %s calls itself %s, and there: %w; its operator sets the URL with --public-url", base, declared, err)
	}
	if other.origin != m.origin || other.entry0 != m.entry0 {
		return met{}, fmt.Errorf("%w: it calls itself %s, but another registry answers there", ErrUntrusted, declared)
	}
	return other, nil
}

// goesBy is the base URL that the registry names, as it does to cargo, when it
// refuses its index to nobody; "" where it names none.
func (m met) goesBy(ctx context.Context) (string, error) {
	header, err := m.challenge(ctx)
	if err != nil {
		return "", err
	}
	_, text, ok := strings.Cut(header, `login_url="`)
	text, _, closed := strings.Cut(text, `"`)
	text, isMe := strings.CutSuffix(text, "/me")
	if !ok || !closed || !isMe {
		return "", nil
	}
	base, err := ParseURL(text)
	if err != nil {
		return "", fmt.Errorf("%w: it calls itself %.200q: %w", ErrUntrusted, text, err)
	}
	return base, nil
}

// compare checks that what was met at base is what is pinned there, if anything
// is, and judges its checkpoint: against those pinned of the same registry, there
// and under other URLs, or by itself where there are none: past is those pins. keys is the record that
// put the log's keys in force.
func (c *Client) compare(ctx context.Context, base string, m met) (past []Pin, keys record.ID, err error) {
	old, err := c.home.PinOf(base)
	switch {
	case errors.Is(err, ErrNotPinned):
	case err != nil:
		return nil, "", err
	case old.Origin != m.origin || old.Entry0 != m.entry0:
		return nil, "", c.home.changed(old, m.origin, m.entry0)
	}
	first := Pin{URL: base, Origin: m.origin, Entry0: m.entry0}
	if past, err = c.home.namesOf(first); err != nil {
		return nil, "", err
	}
	against := past
	if len(past) == 0 {
		against = []Pin{first}
	}
	for _, pin := range against {
		proof, err := m.relation(ctx, pin.Checkpoint)
		if err != nil {
			return past, "", err
		}
		_, verdict, err := c.judge(ctx, m.shown, pin, proof)
		if err == nil {
			err = unproved(base, verdict)
		}
		if err != nil {
			return past, "", err
		}
		keys = verdict.Keys
	}
	return past, keys, nil
}

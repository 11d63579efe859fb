package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

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
}

// Login meets the registry at url, checks that what it says of itself holds
// together (FORMATS §4), and pins it with the identity of that name. Of a known
// registry it checks that it is the same one and that its log extends what was
// pinned. Errors: ErrURL, ErrUnreachable, ErrNotRegistry, ErrChanged, ErrUntrusted,
// and translog's ErrRollback and ErrConsistency for a log that lost or rewrote its past.
func (c *Client) Login(ctx context.Context, url, identity string) (Login, error) {
	base, err := ParseURL(url)
	if err != nil {
		return Login{}, err
	}
	met, err := c.meet(ctx, base)
	if err != nil {
		return Login{}, err
	}
	known, err := c.compare(ctx, base, met)
	if err != nil {
		return Login{}, err
	}
	login := Login{New: !known}
	declared, err := c.declared(ctx, base, met)
	if err != nil {
		return Login{}, err
	}
	if declared != base {
		login.Notes = append(login.Notes, fmt.Sprintf("the registry calls itself %s; that URL is used", declared))
		if known, err = c.compare(ctx, declared, met); err != nil {
			return Login{}, err
		}
		login.New = login.New && !known
	}
	login.Pin, err = c.home.SavePin(ctx, Pin{
		IndexURL: IndexURL(declared), URL: declared, Origin: met.origin, Entry0: met.entry0,
		Identity: orDefault(identity), Checkpoint: met.note,
	})
	return login, err
}

// met is a registry whose statement about itself has been checked.
type met struct {
	origin     did.DID
	entry0     tlog.Hash
	settings   *record.Registry
	note       []byte
	checkpoint translog.Checkpoint
	fetch      translog.Source
}

// meet fetches the checkpoint, entry 0 and its record from base and checks them
// against each other.
func (c *Client) meet(ctx context.Context, base string) (met, error) {
	w := c.web.of(base)
	note, err := w.checkpoint(ctx)
	var refused *APIError
	if errors.As(err, &refused) && refused.Code == "" && refused.Status < http.StatusInternalServerError && refused.Status != http.StatusTooManyRequests {
		return met{}, fmt.Errorf("%w: %s answers %d %s when asked for a log", ErrNotRegistry, base, refused.Status, http.StatusText(refused.Status))
	}
	if err != nil {
		return met{}, err
	}
	m := met{note: note, fetch: w.tile}
	if m.checkpoint, err = noteCheckpoint(note); err != nil {
		return met{}, fmt.Errorf("%w: %s answers with something else than a log's checkpoint (%w)", ErrNotRegistry, base, err)
	}
	if m.origin, err = did.Parse(m.checkpoint.Origin); err != nil {
		return met{}, fmt.Errorf("%w: the origin of its log: %w", ErrUntrusted, err)
	}
	line, err := translog.ReadEntry(ctx, m.checkpoint, 0, m.fetch)
	if err != nil {
		return met{}, fmt.Errorf("%w: entry 0: %w", ErrUntrusted, err)
	}
	m.entry0 = translog.LeafHash(line)
	if m.settings, err = w.genesis(ctx, m.origin, line); err != nil {
		return met{}, fmt.Errorf("%w: entry 0: %w", ErrUntrusted, err)
	}
	keys, err := logKeys(m.settings)
	if err != nil {
		return met{}, fmt.Errorf("%w: entry 0: %w", ErrUntrusted, err)
	}
	if _, err := translog.Open(note, string(m.origin), keys); err != nil {
		return met{}, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return m, nil
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

func logKeys(settings *record.Registry) ([]translog.VerifierKey, error) {
	var keys []translog.VerifierKey
	for _, multikey := range settings.LogKeys {
		key, err := did.ParseMultikey(multikey)
		if err != nil {
			return nil, err
		}
		raw, ok := key.Ed25519()
		if !ok {
			return nil, fmt.Errorf("the log key %s is not an Ed25519 key", multikey)
		}
		keys = append(keys, raw)
	}
	return keys, nil
}

// declared returns the base URL to use: the one asked if the registry goes by
// it, otherwise the one that it declares, if the same registry answers there.
func (c *Client) declared(ctx context.Context, base string, m met) (string, error) {
	if slices.Contains(m.settings.IndexURLs, IndexURL(base)) {
		return base, nil
	}
	declared, err := ParseURL(m.settings.IndexURLs[0])
	if err != nil || IndexURL(declared) != m.settings.IndexURLs[0] {
		return "", fmt.Errorf("%w: it calls itself %.200q", ErrUntrusted, m.settings.IndexURLs[0])
	}
	other, err := c.meet(ctx, declared)
	if err != nil {
		return "", fmt.Errorf("the registry at %s calls itself %s, and there: %w; its operator sets the URL with --public-url", base, declared, err)
	}
	if other.origin != m.origin || other.entry0 != m.entry0 {
		return "", fmt.Errorf("%w: it calls itself %s, but another registry answers there", ErrUntrusted, declared)
	}
	return declared, nil
}

// compare checks that what was met at base is what is pinned there, if anything
// is, and that its log extends the pinned checkpoint.
func (c *Client) compare(ctx context.Context, base string, m met) (known bool, err error) {
	old, err := c.home.PinOf(base)
	if errors.Is(err, ErrNotPinned) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if old.Origin != m.origin || old.Entry0 != m.entry0 {
		return true, c.home.changed(old, m.origin, m.entry0)
	}
	pinned, err := noteCheckpoint(old.Checkpoint)
	if err != nil {
		return true, nil // a pin without a checkpoint has nothing to extend
	}
	var proof tlog.TreeProof
	if pinned.Size <= m.checkpoint.Size {
		reader := translog.NewTileReader(ctx, m.checkpoint, m.fetch)
		if proof, err = translog.ConsistencyProof(pinned.Size, m.checkpoint.Size, reader); err != nil {
			return true, err
		}
	}
	return true, translog.CheckConsistency(proof, pinned, m.checkpoint)
}

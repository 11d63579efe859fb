package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

const (
	// maxRequestLine bounds one line of cargo's, in bytes.
	maxRequestLine = 64 << 10
	// changeLifetime is the life of a session that carries one change.
	changeLifetime = 5 * time.Minute
	// maxHeaderRecord bounds a record that travels in the Authorization header,
	// maxHeader the whole header (FORMATS §6), both in bytes.
	maxHeaderRecord = 4 << 10
	maxHeader       = 8<<10 - 1
)

// The error kinds of cargo's credential provider protocol.
const (
	kindURLNotSupported       = "url-not-supported"
	kindNotFound              = "not-found"
	kindOperationNotSupported = "operation-not-supported"
	kindOther                 = "other"
)

// cargoRequest is one request of the protocol (Cargo reference, "Credential
// Provider Protocol", version 1). Cargo may say more than this.
type cargoRequest struct {
	Version  int `json:"v"`
	Registry struct {
		IndexURL string   `json:"index-url"`
		Name     string   `json:"name"`
		Headers  []string `json:"headers"`
	} `json:"registry"`
	Kind      string `json:"kind"`
	Operation string `json:"operation"`
	Name      string `json:"name"`
	Vers      string `json:"vers"`
	Cksum     string `json:"cksum"`
}

// cargoAnswer is the answer: one of the two is set.
type cargoAnswer struct {
	OK  *cargoOK  `json:"Ok,omitzero"`
	Err *cargoErr `json:"Err,omitzero"`
}

type cargoOK struct {
	Kind  string `json:"kind"`
	Token string `json:"token,omitzero"`
	Cache string `json:"cache,omitzero"`
	// Expiration is in Unix seconds.
	Expiration           int64 `json:"expiration,omitzero"`
	OperationIndependent *bool `json:"operation_independent,omitzero"`
}

type cargoErr struct {
	Kind     string   `json:"kind"`
	Message  string   `json:"message,omitzero"`
	CausedBy []string `json:"caused-by,omitzero"`
}

// Provide speaks cargo's credential provider protocol until in ends: what cargo
// asks is read from in, and nothing but the protocol is written to out. Every
// refusal is an answer to cargo; the error is only of in and out themselves,
// since cargo shows no answer of a provider that failed.
func (c *Client) Provide(ctx context.Context, in io.Reader, out io.Writer) error {
	if _, err := io.WriteString(out, `{"v":[1]}`+"\n"); err != nil {
		return fmt.Errorf("credential provider: %w", err)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4<<10), maxRequestLine)
	for lines.Scan() {
		answer, err := json.Marshal(c.answer(ctx, lines.Bytes()))
		if err != nil {
			return fmt.Errorf("credential provider: %w", err)
		}
		if _, err := out.Write(append(answer, '\n')); err != nil {
			return fmt.Errorf("credential provider: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("credential provider: read request: %w", err)
	}
	return nil
}

func (c *Client) answer(ctx context.Context, line []byte) cargoAnswer {
	var req cargoRequest
	if err := json.Unmarshal(bytes.TrimSpace(line), &req); err != nil {
		return refuseCargo(kindOther, "aln-registry cannot read what cargo asked; it speaks version 1 of cargo's credential provider protocol")
	}
	if req.Version != 1 {
		return refuseCargo(kindOther, fmt.Sprintf("aln-registry speaks version 1 of cargo's credential provider protocol, not %d", req.Version))
	}
	pin, err := c.home.PinOf(req.Registry.IndexURL)
	if errors.Is(err, ErrNotPinned) || errors.Is(err, ErrURL) {
		base, ok := behind(req.Registry.IndexURL)
		if !ok {
			return c.explainUnknown(ctx, req, req.Registry.IndexURL)
		}
		if pin, err = c.home.PinOf(base); errors.Is(err, ErrNotPinned) || errors.Is(err, ErrURL) {
			return c.explainUnknown(ctx, req, base)
		}
		if req.Kind == "get" && req.Operation != "read" {
			return refuseCargo(kindOther, "what is in the place of another registry is only read; publish to the registry itself, with --registry NAME")
		}
	}
	if err != nil {
		return refuseCargo(kindOther, err.Error())
	}
	r, err := c.Registry(pin)
	if err != nil {
		return refuseCargo(kindOther, err.Error())
	}
	ok, err := r.answer(ctx, req)
	var refused *cargoErr
	switch {
	case errors.As(err, &refused):
		return cargoAnswer{Err: refused}
	case err != nil:
		return refuseCargo(kindOther, err.Error())
	}
	return cargoAnswer{OK: ok}
}

// Error implements error, so that an answer can be returned as one.
func (e *cargoErr) Error() string { return e.Kind + " " + e.Message }

// refuseCargo says message, tamed, since cargo prints it as it is.
func refuseCargo(kind, message string) cargoAnswer {
	return cargoAnswer{Err: &cargoErr{Kind: kind, Message: printable(message), CausedBy: []string{}}}
}

// answer does one request about r.
func (r *Registry) answer(ctx context.Context, req cargoRequest) (*cargoOK, error) {
	switch req.Kind {
	case "get":
		if r.identity == nil {
			return nil, r.nobody()
		}
		return r.answerGet(ctx, req)
	case "login":
		return nil, fmt.Errorf("this registry takes no tokens that last; type `aln-registry login %s`", r.pin.URL)
	case "logout":
		found, err := r.DropSession(ctx)
		if err == nil && !found {
			return nil, &cargoErr{Kind: kindNotFound}
		}
		return &cargoOK{Kind: "logout"}, err
	}
	return nil, &cargoErr{Kind: kindOperationNotSupported}
}

func (r *Registry) answerGet(ctx context.Context, req cargoRequest) (*cargoOK, error) {
	switch req.Operation {
	case "read":
		s, err := r.Session(ctx, particle.ScopeRead, "", 0)
		if err != nil {
			return nil, err
		}
		return &cargoOK{Kind: "get", Token: s.Token, Cache: "expires", Expiration: s.Expires.Unix(), OperationIndependent: new(bool)}, nil
	case "publish", "yank", "unyank":
		d, err := draftOf(req)
		if err != nil {
			return nil, err
		}
		rec, err := r.Sign(ctx, d, recordValidity)
		if err != nil {
			return nil, err
		}
		return r.carry(ctx, rec)
	case "owners":
		return r.answerOwners(ctx, req.Name)
	}
	return nil, &cargoErr{Kind: kindOperationNotSupported}
}

// draftOf turns cargo's request into the record that it takes.
func draftOf(req cargoRequest) (Draft, error) {
	subject, err := record.VersionSubject(record.KindCrate, req.Name, req.Vers)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{Subject: subject}
	switch req.Operation {
	case "publish":
		digest, err := hex.DecodeString(req.Cksum)
		if err != nil || len(digest) != len(d.Digest) {
			return Draft{}, errors.New("cargo gave no SHA-256 checksum of the crate; update cargo")
		}
		copy(d.Digest[:], digest)
		d.Body = &record.Publish{}
	case "yank":
		d.Body = &record.Yank{Yanked: true}
	case "unyank":
		d.Body = &record.Yank{Yanked: false}
	}
	return d, nil
}

// answerOwners signs an own-intent where we are entitled to change owners. Who
// is not gets a plain session: cargo asks the same to list owners.
func (r *Registry) answerOwners(ctx context.Context, name string) (*cargoOK, error) {
	subject, err := record.ArtifactSubject(record.KindCrate, name)
	if err != nil {
		return nil, err
	}
	h, err := r.Heads(ctx, subject)
	var refused *APIError
	if err != nil && !(errors.As(err, &refused) && refused.Status == 404) {
		return nil, err
	}
	if err != nil || h.By == "" || h.Prev == "" {
		s, err := r.Session(ctx, particle.ScopePublish, "", changeLifetime)
		if err != nil {
			return nil, err
		}
		return uncached(s.Token), nil
	}
	intent, err := r.sign(h, Draft{Subject: subject, Body: &record.OwnIntent{}}, intentValidity)
	if err != nil {
		return nil, err
	}
	return r.carry(ctx, intent)
}

// carry is cargo's answer with a token that carries rec.
func (r *Registry) carry(ctx context.Context, rec *record.Record) (*cargoOK, error) {
	token, err := r.carried(ctx, rec)
	if err != nil {
		return nil, err
	}
	return uncached(token), nil
}

// carried mints a session for rec alone and puts both into one token (FORMATS §5).
func (r *Registry) carried(ctx context.Context, rec *record.Record) (string, error) {
	if len(rec.Envelope()) > maxHeaderRecord {
		return "", fmt.Errorf("the record has %d bytes, a request can carry %d; name less evidence, or one manifest that lists it", len(rec.Envelope()), maxHeaderRecord)
	}
	s, err := r.Session(ctx, particle.ScopePublish, rec.ID(), changeLifetime)
	if err != nil {
		return "", err
	}
	token := s.Token + "~" + base64.RawURLEncoding.EncodeToString(rec.Envelope())
	if len(token) > maxHeader {
		return "", fmt.Errorf("session and record have %d bytes, a request can carry %d", len(token), maxHeader)
	}
	return token, nil
}

func uncached(token string) *cargoOK {
	return &cargoOK{Kind: "get", Token: token, Cache: "never", OperationIndependent: new(bool)}
}

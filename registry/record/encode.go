package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"phoenix-lab.org/aln-registry/did"
)

const (
	statementType = "https://in-toto.io/Statement/v1"
	payloadType   = "application/vnd.in-toto+json"
	timeForm      = "2006-01-02T15:04:05Z"
)

// statement is the in-toto Statement v1 on the wire.
type statement struct {
	Type          string          `json:"_type"`
	Subject       []statementItem `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     jsontext.Value  `json:"predicate"`
}

type statementItem struct {
	Name   string       `json:"name"`
	Digest sha256Digest `json:"digest"`
}

type sha256Digest struct {
	SHA256 string `json:"sha256"`
}

// headerJSON is Header on the wire; the body's members follow in the same object.
type headerJSON struct {
	Registry did.DID `json:"registry"`
	Signer   string  `json:"signer"`
	IssuedAt string  `json:"issued_at"`
	Expires  string  `json:"expires"`
	Prev     ID      `json:"prev"`
	By       ID      `json:"by"`
	Key      ID      `json:"key"`
}

// preAuthEncoding is DSSE's PAE (secure-systems-lab/dsse protocol.md): what is signed.
func preAuthEncoding(payload []byte) []byte {
	head := fmt.Sprintf("DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append([]byte(head), payload...)
}

// Sign encodes d, signs it with s and returns the record, which it has parsed
// back: what Sign returns, Parse accepts. d.Header.Signer is taken from s.
func Sign(d Draft, s did.Signer) (*Record, error) {
	d.Header.Signer = s.KeyID()
	payload, err := encodePayload(d)
	if err != nil {
		return nil, err
	}
	signature, err := s.Sign(preAuthEncoding(payload))
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", d.Subject, err)
	}
	return Parse(encodeEnvelope(payload, d.Header.Signer.String(), signature))
}

// encodePayload writes d as Parse would accept it, keys in the order of FORMATS §2.
func encodePayload(d Draft) ([]byte, error) {
	if d.Body == nil {
		return nil, malformed("a record needs a body, which says its type")
	}
	digest := d.Digest
	if digest == ([sha256.Size]byte{}) {
		if t := d.Body.recordType(); t.ofBytes() {
			return nil, malformed("a record of type %s needs the digest of the bytes that it is about", t)
		}
		digest = d.Subject.digest()
	}
	head, err := json.Marshal(headerJSON{
		Registry: d.Header.Registry, Signer: d.Header.Signer.String(),
		IssuedAt: formatTime(d.Header.IssuedAt), Expires: formatTime(d.Header.Expires),
		Prev: d.Header.Prev, By: d.Header.By, Key: d.Header.Key,
	})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	body, err := json.Marshal(d.Body)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	payload, err := json.Marshal(statement{
		Type:          statementType,
		Subject:       []statementItem{{Name: d.Subject.String(), Digest: sha256Digest{hex.EncodeToString(digest[:])}}},
		PredicateType: d.Body.recordType().PredicateType(),
		Predicate:     joinObjects(head, body),
	})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return payload, nil
}

// joinObjects puts the members of two JSON objects written by us into one.
func joinObjects(a, b []byte) []byte {
	if string(b) == "{}" {
		return a
	}
	joined := append(bytes.Clone(a[:len(a)-1]), ',')
	return append(joined, b[1:]...)
}

// encodeEnvelope writes the one spelling of a DSSE envelope. keyid is a DID URL,
// whose characters need no JSON escaping.
func encodeEnvelope(payload []byte, keyid string, signature []byte) []byte {
	b64 := base64.StdEncoding
	return []byte(`{"payload":"` + b64.EncodeToString(payload) + `","payloadType":"` + payloadType +
		`","signatures":[{"keyid":"` + keyid + `","sig":"` + b64.EncodeToString(signature) + `"}]}`)
}

func formatTime(t time.Time) string { return t.UTC().Format(timeForm) }

func parseTime(name, s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	if err != nil || t.Format(timeForm) != s {
		return time.Time{}, malformed("%s %q is not YYYY-MM-DDThh:mm:ssZ", name, clip(s))
	}
	return t, nil
}

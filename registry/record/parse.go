package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// envelopeJSON is the DSSE envelope on the wire.
type envelopeJSON struct {
	Payload     string          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// Parse reads an envelope. It accepts exactly the bytes that encodeEnvelope
// writes around a payload of the form of FORMATS §1 and §2, and checks all that
// can be said without other records: not the signature, and not who may sign.
func Parse(envelope []byte) (*Record, error) {
	if len(envelope) > MaxEnvelope {
		return nil, malformed("envelope of %d bytes; at most %d", len(envelope), MaxEnvelope)
	}
	var e envelopeJSON
	if err := decodeStrict(envelope, &e); err != nil {
		return nil, malformed("envelope: %v", err)
	}
	if e.PayloadType != payloadType {
		return nil, malformed("payloadType %q", clip(e.PayloadType))
	}
	if len(e.Signatures) != 1 {
		return nil, malformed("%d signatures, not one", len(e.Signatures))
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return nil, malformed("payload is not padded standard base64")
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return nil, malformed("sig is not padded standard base64")
	}
	r, err := parsePayload(payload)
	if err != nil {
		return nil, err
	}
	if e.Signatures[0].KeyID != r.header.Signer.String() {
		return nil, malformed("keyid is not the predicate's signer")
	}
	if !bytes.Equal(envelope, encodeEnvelope(payload, e.Signatures[0].KeyID, signature)) {
		return nil, malformed("envelope is not in its one spelling (key order, no white space)")
	}
	r.signature, r.envelope = signature, bytes.Clone(envelope)
	return r, nil
}

func parsePayload(payload []byte) (*Record, error) {
	var st statement
	if err := decodeStrict(payload, &st); err != nil {
		return nil, malformed("payload: %v", err)
	}
	if st.Type != statementType || len(st.Subject) != 1 {
		return nil, malformed("payload is not an in-toto Statement v1 with one subject")
	}
	kind, err := parsePredicateType(st.PredicateType)
	if err != nil {
		return nil, err
	}
	subject, err := ParseSubject(st.Subject[0].Name)
	if err != nil {
		return nil, err
	}
	if !subject.fits(kind) {
		return nil, malformed("a record of type %s cannot be about %q", kind, subject)
	}
	digest, err := parseDigest(kind, subject, st.Subject[0].Digest.SHA256)
	if err != nil {
		return nil, err
	}
	header, body, err := parsePredicate(kind, st.Predicate)
	if err != nil {
		return nil, err
	}
	if err := body.check(subject); err != nil {
		return nil, err
	}
	r := &Record{id: IDOf(payload), subject: subject, digest: digest, header: header, body: body, payload: payload}
	return r, r.checkComplete()
}

func parseDigest(t Type, s Subject, text string) ([sha256.Size]byte, error) {
	var digest [sha256.Size]byte
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(digest) || hex.EncodeToString(raw) != text {
		return digest, malformed("digest is not a lower-case hex sha256")
	}
	copy(digest[:], raw)
	if !t.ofBytes() && digest != s.digest() {
		return digest, malformed("digest of a %s record is the sha256 of its subject's name, of a grant's the shard's", t)
	}
	return digest, nil
}

// parsePredicate reads the header's and the body's members out of one object.
// The decoder refuses duplicates; members that belong to neither are refused
// since each half is decoded with exactly the other half's members taken away.
func parsePredicate(t Type, predicate jsontext.Value) (Header, Body, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(predicate, &members); err != nil {
		return Header{}, nil, malformed("predicate: %v", err)
	}
	headMembers := map[string]jsontext.Value{}
	for _, name := range [...]string{"registry", "signer", "issued_at", "expires", "prev", "by", "key"} {
		if value, ok := members[name]; ok {
			headMembers[name] = value
			delete(members, name)
		}
	}
	var h headerJSON
	if err := decodeMembers(headMembers, &h); err != nil {
		return Header{}, nil, malformed("predicate: %v", err)
	}
	body := newBody(t)
	if err := decodeMembers(members, body); err != nil {
		return Header{}, nil, malformed("predicate: %v", err)
	}
	header, err := parseHeader(h)
	return header, body, err
}

func decodeMembers(members map[string]jsontext.Value, into any) error {
	object, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return err
	}
	return decodeStrict(object, into)
}

func parseHeader(h headerJSON) (Header, error) {
	registry, err := did.Parse(string(h.Registry))
	if err != nil {
		return Header{}, malformed("registry: %v", err)
	}
	signer, err := did.ParseURL(h.Signer)
	if err != nil {
		return Header{}, malformed("signer: %v", err)
	}
	issued, err := parseTime("issued_at", h.IssuedAt)
	if err != nil {
		return Header{}, err
	}
	expires, err := parseTime("expires", h.Expires)
	if err != nil {
		return Header{}, err
	}
	return Header{Registry: registry, Signer: signer, IssuedAt: issued, Expires: expires, Prev: h.Prev, By: h.By, Key: h.Key}, nil
}

// checkComplete compares the payload with what Sign would have written, as JSON
// values: a missing member, a null where a list belongs or a number in another
// spelling shows here, whatever the decoder let pass. Order, white space and JSON's
// escapes in strings do not.
func (r *Record) checkComplete() error {
	ours, err := encodePayload(Draft{Subject: r.subject, Digest: r.digest, Header: r.header, Body: r.body})
	if err != nil {
		return malformed("%v", err)
	}
	same, err := particle.SameJSON(ours, r.payload)
	if err != nil {
		return malformed("%v", err)
	}
	if !same {
		return malformed("a %s record's payload lacks a member or spells a value in another way than FORMATS §1 and §2 say", r.Type())
	}
	return nil
}

func decodeStrict(data []byte, into any) error {
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("not strict JSON of this form: %.300s", err.Error()) // which quotes what it was given
	}
	return nil
}

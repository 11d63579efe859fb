package registry

import (
	"bytes"
	"errors"
	"io"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// namedBy lists the blobs that must stay as long as the entry e with the record rec
// is in the log, each once: the record's, and whatever is named by its CID in it, in
// its entry, or in what it attaches (a grant's list and shards, an intent's document).
// It asks for the spelling, not for the meaning, so that a type of record made
// tomorrow is not forgotten here; and the digest of every subject is taken for a
// blob's, which it is for bytes and shards, and for the others is a name of nothing.
func namedBy(e translog.Entry, rec *record.Record, attachments state.Attachments) ([]storage.CID, error) {
	n := names{seen: map[storage.CID]bool{}}
	n.add(rec.CID())
	n.add(e.Record)
	n.add(e.DIDDocument)
	if err := n.record(rec); err != nil {
		return nil, err
	}
	for id, raw := range attachments {
		n.add(id)
		if id == rec.Snapshot() {
			continue // another registry's words, which keep nothing here
		}
		if intent, err := record.Parse(raw); err == nil {
			if err := n.record(intent); err != nil {
				return nil, err
			}
		} else if err := n.json(raw); err != nil {
			return nil, err
		}
	}
	return n.ids, nil
}

// names are CIDs that were come across.
type names struct {
	seen map[storage.CID]bool
	ids  []storage.CID
}

func (n *names) add(id storage.CID) {
	if !id.IsZero() && !n.seen[id] {
		n.seen[id], n.ids = true, append(n.ids, id)
	}
}

func (n *names) record(rec *record.Record) error {
	n.add(storage.CIDFromDigest(rec.Digest()))
	return n.json(rec.Payload())
}

// cidForm finds what may be a CID in a text, also behind a scheme or a path.
var cidForm = regexp.MustCompile(`bafkrei[a-z2-7]{52}`)

// json adds every CID in the strings and names of members of a JSON text.
func (n *names) json(raw []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if token.Kind() != '"' {
			continue
		}
		for _, text := range cidForm.FindAllString(token.String(), -1) {
			if id, err := storage.ParseCID(text); err == nil {
				n.add(id)
			}
		}
	}
}

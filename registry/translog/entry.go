package translog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/storage"
)

const (
	// MaxEntryBytes bounds a marshalled entry; today's are at most 182 bytes.
	MaxEntryBytes = 512
	// BundleWidth is the number of entries in a full bundle, and of hashes in a full tile.
	BundleWidth = 1 << tileHeight
	// MaxBundleBytes bounds an entry bundle.
	MaxBundleBytes = BundleWidth * (2 + MaxEntryBytes)

	timeLayout = "2006-01-02T15:04:05Z"
	maxTime    = 253402300799 // 9999-12-31T23:59:59Z, the last one timeLayout can write
)

// Entry is one line of the log (FORMATS §4). It holds no names: what it says
// stands in the record.
type Entry struct {
	Time        time.Time   // whole seconds, UTC
	Record      storage.CID // the record's envelope
	DIDDocument storage.CID // the signer's DID document; zero (null) for did:key
}

// Marshal returns the entry's one form,
// {"v":1,"time":"…Z","record":"<cid>","did_document":"<cid>"|null}.
// A time with a fraction or before 1970, or a missing record, is ErrEntry:
// rounding would make two entries of one.
func (e Entry) Marshal() ([]byte, error) {
	if e.Record.IsZero() {
		return nil, fmt.Errorf("%w: no record", ErrEntry)
	}
	if err := checkTime(e.Time); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrEntry, err)
	}
	document := "null"
	if !e.DIDDocument.IsZero() {
		document = `"` + e.DIDDocument.String() + `"`
	}
	return fmt.Appendf(nil, `{"v":1,"time":"%s","record":"%s","did_document":%s}`,
		e.Time.UTC().Format(timeLayout), e.Record, document), nil
}

func checkTime(t time.Time) error {
	if t.Nanosecond() != 0 || t.Unix() < 0 || t.Unix() > maxTime {
		return fmt.Errorf("time %s is not in whole seconds between 1970 and 9999", t.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// ParseEntry accepts exactly what Marshal produces; anything else, also an
// entry of a later version of the format, is ErrEntry.
func ParseEntry(data []byte) (Entry, error) {
	if len(data) > MaxEntryBytes {
		return Entry{}, fmt.Errorf("%w: %d bytes, at most %d", ErrEntry, len(data), MaxEntryBytes)
	}
	e, err := parseEntry(string(data))
	if err != nil {
		return Entry{}, err
	}
	again, err := e.Marshal()
	if err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(again, data) {
		return Entry{}, fmt.Errorf("%w: %q is not in the form version 1 prescribes", ErrEntry, data)
	}
	return e, nil
}

// parseEntry reads the fields between the fixed parts; ParseEntry compares the rest.
func parseEntry(s string) (Entry, error) {
	rest, found := strings.CutPrefix(s, `{"v":1,"time":"`)
	at, rest, found2 := strings.Cut(rest, `","record":"`)
	record, rest, found3 := strings.Cut(rest, `","did_document":`)
	document, found4 := strings.CutSuffix(rest, `}`)
	if !found || !found2 || !found3 || !found4 {
		return Entry{}, fmt.Errorf("%w: %q is not of version 1; a newer log needs a newer aln-registry", ErrEntry, s)
	}
	var e Entry
	var err error
	if e.Time, err = time.Parse(timeLayout, at); err != nil {
		return Entry{}, fmt.Errorf("%w: time %q", ErrEntry, at)
	}
	if e.Record, err = storage.ParseCID(record); err != nil {
		return Entry{}, fmt.Errorf("%w: record: %w", ErrEntry, err)
	}
	if document == "null" {
		return e, nil
	}
	if e.DIDDocument, err = storage.ParseCID(strings.Trim(document, `"`)); err != nil {
		return Entry{}, fmt.Errorf("%w: did_document: %w", ErrEntry, err)
	}
	return e, nil
}

// LeafHash is the RFC 6962 leaf hash of a marshalled entry: SHA-256(0x00 || entry).
func LeafHash(entry []byte) tlog.Hash { return tlog.RecordHash(entry) }

// AppendBundle appends entry to a bundle (tlog-tiles): its length in two
// big-endian bytes, then the bytes. An empty entry or one above MaxEntryBytes is ErrBundle.
func AppendBundle(dst, entry []byte) ([]byte, error) {
	if len(entry) == 0 || len(entry) > MaxEntryBytes {
		return nil, fmt.Errorf("%w: entry of %d bytes, expected 1 to %d", ErrBundle, len(entry), MaxEntryBytes)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(entry)))
	return append(dst, entry...), nil
}

// ParseBundle returns the entries of a bundle, between 1 and BundleWidth of
// them, as slices of data. It does not look into them.
func ParseBundle(data []byte) ([][]byte, error) {
	if len(data) > MaxBundleBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBundle, len(data), MaxBundleBytes)
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(entries) == BundleWidth {
			return nil, fmt.Errorf("%w: more than %d entries", ErrBundle, BundleWidth)
		}
		if len(data) < 2 {
			return nil, fmt.Errorf("%w: ends inside the length of entry %d", ErrBundle, len(entries))
		}
		length := int(binary.BigEndian.Uint16(data))
		data = data[2:]
		if length == 0 || length > MaxEntryBytes || length > len(data) {
			return nil, fmt.Errorf("%w: entry %d of %d bytes, %d follow", ErrBundle, len(entries), length, len(data))
		}
		entries = append(entries, data[:length:length])
		data = data[length:]
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrBundle)
	}
	return entries, nil
}

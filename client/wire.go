package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/record"
)

// maxBundleRecords bounds the records of one bundle.
const maxBundleRecords = 10_000

// BundleRecord is a record with the blobs that it names, at a place in the log;
// nothing of it is verified.
type BundleRecord struct {
	Index       int64
	Envelope    []byte
	Attachments [][]byte
}

type bundleJSON struct {
	Records []struct {
		Index       int64    `json:"index"`
		Envelope    string   `json:"envelope"`
		Attachments []string `json:"attachments"`
	} `json:"records"`
}

type submissionJSON struct {
	Record      string   `json:"record"`
	Attachments []string `json:"attachments"`
}

func encodeSubmission(envelope []byte, attachments [][]byte) ([]byte, error) {
	s := submissionJSON{Record: base64.StdEncoding.EncodeToString(envelope)}
	for _, a := range attachments {
		s.Attachments = append(s.Attachments, base64.StdEncoding.EncodeToString(a))
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode submission: %w", err)
	}
	return body, nil
}

// Bundle fetches the records about the name of s and those that entitle their
// signers, sorted by log index.
func (r *Registry) Bundle(ctx context.Context, s record.Subject) ([]BundleRecord, error) {
	var j bundleJSON
	path := artifactPath(s) + "/bundle"
	if err := r.readJSON(ctx, path, maxBundle, &j); err != nil {
		return nil, err
	}
	return j.records(r.web.base, path)
}

// logKeys fetches the records that the log's keys follow from, sorted by log
// index, with a session or ("") as nobody.
func (w web) logKeys(ctx context.Context, token string) ([]BundleRecord, error) {
	var j bundleJSON
	const path = "/log/keys"
	if err := w.json(ctx, call{method: http.MethodGet, path: path, token: token}, maxBundle, &j); err != nil {
		return nil, err
	}
	return j.records(w.base, path)
}

// records decodes what was fetched at path.
func (j bundleJSON) records(base, path string) ([]BundleRecord, error) {
	records, err := j.decode()
	if err != nil {
		return nil, fmt.Errorf("%w: %s%s: %w", ErrAnswer, base, path, err)
	}
	return records, nil
}

func (j bundleJSON) decode() ([]BundleRecord, error) {
	if len(j.Records) > maxBundleRecords {
		return nil, fmt.Errorf("%d records; at most %d", len(j.Records), maxBundleRecords)
	}
	b64 := base64.StdEncoding.Strict()
	records := make([]BundleRecord, len(j.Records))
	for i, in := range j.Records {
		if i > 0 && in.Index <= j.Records[i-1].Index || in.Index < 0 {
			return nil, fmt.Errorf("record %d at index %d is out of order", i, in.Index)
		}
		envelope, err := b64.DecodeString(in.Envelope)
		if err != nil {
			return nil, fmt.Errorf("record at index %d: not base64", in.Index)
		}
		records[i] = BundleRecord{Index: in.Index, Envelope: envelope}
		for _, a := range in.Attachments {
			blob, err := b64.DecodeString(a)
			if err != nil {
				return nil, fmt.Errorf("attachment of the record at index %d: not base64", in.Index)
			}
			records[i].Attachments = append(records[i].Attachments, blob)
		}
	}
	return records, nil
}

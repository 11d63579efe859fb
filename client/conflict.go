package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// maxConflicts bounds the files that are kept about one log: who lies without end
// must not fill a disk, and the first of them say enough.
const maxConflicts = 32

// Conflict is a file in ALN_HOME: two notes signed by one log that contradict each
// other, byte for byte, with what others need to check it.
type Conflict struct {
	// Kind is verify.CheckFork or CheckRollback.
	Kind string `json:"kind"`
	// Proven: it is the log's misbehaviour. Otherwise the offered note may be an
	// older one of the same past, which who has the whole log can tell.
	Proven bool      `json:"proven"`
	Found  time.Time `json:"found"`
	// URL is where the registry is asked; it is known by Origin and Entry0, the
	// leaf hash of its entry 0.
	URL    string    `json:"url"`
	Origin did.DID   `json:"origin"`
	Entry0 tlog.Hash `json:"entry0"`
	// Keys is the registry record from which the log's keys followed; "" for entry 0.
	Keys    record.ID      `json:"keys"`
	Pinned  string         `json:"pinned"`
	Offered string         `json:"offered"`
	Proof   tlog.TreeProof `json:"proof"`
	// Path is the file's own.
	Path string `json:"-"`
}

// keepConflict writes the two notes of a verdict that found a contradiction to a
// file of their own, which it names in the verdict, with what to do. The pin stays
// as it is: it is one half of the evidence. A file that cannot be written does not
// hide the contradiction, it is said beside it.
func (c *Client) keepConflict(ctx context.Context, pin Pin, verdict *verify.Verdict) {
	found := verdict.Conflict
	if found == nil {
		return
	}
	if len(found.Proof) > 0 { // it was computed from verified tiles (shown.relation): there is no other
		found.Proven = true
	}
	path, err := c.home.saveConflict(ctx, Conflict{
		Kind: found.Kind, Proven: found.Proven, Found: c.web.now().UTC().Truncate(time.Second),
		URL: pin.URL, Origin: pin.Origin, Entry0: pin.Entry0, Keys: verdict.Keys,
		Pinned: string(found.Pinned), Offered: string(found.Offered), Proof: found.Proof,
	})
	what := ": they are in " + path + ". Do not log in again, and send that file to the registry's auditors and to other labs"
	if err != nil {
		what = fmt.Sprintf(", which could not be done here (%v): `aln-registry log check --json` prints them", err)
	}
	found.File = path
	for i, check := range verdict.Checks {
		if check.Name == found.Kind && !check.OK {
			verdict.Checks[i].Detail += what
		}
	}
}

// conflictFolder holds what is kept about one log, whatever URLs it goes by.
func conflictFolder(origin did.DID, entry0 tlog.Hash) string {
	return filepath.Join(folderConflicts, fileID(string(origin), string(entry0[:])))
}

// name is the file's: the same contradiction, met again or cosigned anew, has the
// same one. A proven one is another than the suspicion.
func (k Conflict) name() string {
	digest := sha256.New()
	for _, note := range []string{k.Pinned, k.Offered} {
		if cp, err := translog.Peek([]byte(note)); err == nil {
			digest.Write(cp.Body())
		}
	}
	kind := k.Kind
	if !k.Proven {
		kind = "suspected-" + kind
	}
	return kind + "-" + hex.EncodeToString(digest.Sum(nil)[:8]) + pinSuffix
}

// saveConflict writes k unless it is there already, and returns its path.
func (h Home) saveConflict(ctx context.Context, k Conflict) (path string, err error) {
	folder := conflictFolder(k.Origin, k.Entry0)
	unlock, err := h.lock(ctx, folder, "conflicts")
	if err != nil {
		return "", err
	}
	defer unlock()
	names, err := h.names(folder, pinSuffix)
	if err != nil {
		return "", err
	}
	path = h.file(folder, k.name())
	data, err := json.Marshal(k, jsontext.WithIndent("  "))
	if err != nil {
		return "", err
	}
	if len(names) >= maxConflicts {
		if _, err := readFile(path, maxConflictFile); err == nil {
			return path, nil
		}
		return "", fmt.Errorf("%d of them are in %s, and no more are kept", len(names), filepath.Join(h.path, folder))
	}
	err = durable.CreateFile(path, append(data, '\n'), fileMode)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return "", err
	}
	return path, nil
}

// maxConflictFile bounds such a file, in bytes: two notes, escaped, and a proof.
const maxConflictFile = 256 << 10

// Conflicts returns what was kept about pin's registry, sorted by file name.
func (h Home) Conflicts(pin Pin) ([]Conflict, error) {
	folder := conflictFolder(pin.Origin, pin.Entry0)
	names, err := h.names(folder, pinSuffix)
	if err != nil {
		return nil, err
	}
	var all []Conflict
	for _, name := range names[:min(len(names), maxConflicts)] {
		path := h.file(folder, name+pinSuffix)
		data, err := readFile(path, maxConflictFile)
		if err != nil {
			return nil, err
		}
		k := Conflict{Path: path}
		if err := json.Unmarshal(data, &k, json.RejectUnknownMembers(true)); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, k)
	}
	return all, nil
}

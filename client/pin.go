package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
)

const pinSuffix = ".json"

// Pin is what we remember of a registry from the first login on (FORMATS §4).
type Pin struct {
	// IndexURL is the name by which cargo calls it: sparse+URL/index/.
	IndexURL string
	// URL is the base URL to ask, without a slash at the end: that of IndexURL,
	// or where a registry that was called so has moved to.
	URL string
	// Origin is the DID of entry 0, Entry0 the leaf hash of that entry.
	Origin did.DID
	Entry0 tlog.Hash
	// Identity is the name of the identity that we use there.
	Identity string
	// Checkpoint is the largest signed checkpoint that was verified.
	Checkpoint []byte
	// Keys is the registry record that was seen to put the log's keys in force; ""
	// for those of entry 0.
	Keys record.ID
	// CA holds the certificates (PEM) that are trusted there beside the
	// computer's own ones; nil for none.
	CA []byte
}

// pinJSON is a Pin in its file.
type pinJSON struct {
	IndexURL   string    `json:"index_url"`
	URL        string    `json:"url"`
	Origin     did.DID   `json:"origin"`
	Entry0     string    `json:"entry0"`
	Identity   string    `json:"identity"`
	Checkpoint string    `json:"checkpoint"`
	Keys       record.ID `json:"keys,omitzero"`
	CA         string    `json:"ca,omitzero"`
}

// sameRegistry reports whether both are of one registry, whatever it is called.
func (p Pin) sameRegistry(other Pin) bool {
	return p.Origin == other.Origin && p.Entry0 == other.Entry0
}

// Size returns the size of the pinned checkpoint, 0 when there is none.
func (p Pin) Size() int64 {
	cp, err := translog.Peek(p.Checkpoint)
	if err != nil {
		return 0
	}
	return cp.Size
}

// Pins returns all pins, in no order that matters.
func (h Home) Pins() ([]Pin, error) {
	names, err := h.names(folderRegistries, pinSuffix)
	if err != nil {
		return nil, err
	}
	var pins []Pin
	for _, name := range names {
		pin, err := h.readPin(name)
		if err != nil {
			return nil, err
		}
		pins = append(pins, pin)
	}
	return pins, nil
}

// PinOf returns the pin for a URL or index URL. ErrNotPinned, ErrURL.
func (h Home) PinOf(which string) (Pin, error) {
	base, err := ParseURL(which)
	if err != nil {
		return Pin{}, err
	}
	pin, err := h.readPin(fileID(IndexURL(base)))
	if errors.Is(err, fs.ErrNotExist) {
		return Pin{}, fmt.Errorf("%w: %s; type `aln-registry login %s`", ErrNotPinned, base, base)
	}
	return pin, err
}

// SelectPin is PinOf, and for "" the only pin there is. ErrNotPinned, ErrSeveralPins.
func (h Home) SelectPin(which string) (Pin, error) {
	if which != "" {
		return h.PinOf(which)
	}
	pins, err := h.Pins()
	if err != nil {
		return Pin{}, err
	}
	pins = today(pins)
	switch len(pins) {
	case 0:
		return Pin{}, fmt.Errorf("%w: no registry is known yet; type `aln-registry login URL`", ErrNotPinned)
	case 1:
		return pins[0], nil
	}
	var urls []string
	for _, pin := range pins {
		urls = append(urls, pin.URL)
	}
	return Pin{}, fmt.Errorf("%w: name one with --registry or ALN_REGISTRY: %s", ErrSeveralPins, strings.Join(urls, ", "))
}

// CurrentPins returns all pins but the older names of registries that have moved.
func (h Home) CurrentPins() ([]Pin, error) {
	pins, err := h.Pins()
	return today(pins), err
}

// today leaves out the older names of registries that have moved.
func today(pins []Pin) []Pin {
	var current []Pin
	for _, p := range pins {
		isHere := func(other Pin) bool { return other.IndexURL == IndexURL(p.URL) }
		if p.IndexURL == IndexURL(p.URL) || !slices.ContainsFunc(pins, isHere) {
			current = append(current, p)
		}
	}
	return current
}

func (h Home) readPin(name string) (Pin, error) {
	path := h.file(folderRegistries, name+pinSuffix)
	data, err := readFile(path, maxHomeFile)
	if err != nil {
		return Pin{}, err
	}
	var j pinJSON
	if err := json.Unmarshal(data, &j, json.RejectUnknownMembers(true)); err != nil {
		return Pin{}, fmt.Errorf("read pin %s: %w", path, err)
	}
	pin := Pin{IndexURL: j.IndexURL, URL: j.URL, Origin: j.Origin, Identity: j.Identity, Checkpoint: []byte(j.Checkpoint), Keys: j.Keys}
	leaf, err := base64.StdEncoding.Strict().DecodeString(j.Entry0)
	base, urlErr := ParseURL(j.URL)
	if err != nil || len(leaf) != tlog.HashSize || urlErr != nil || base != j.URL || j.Origin == "" || name != fileID(j.IndexURL) {
		return Pin{}, fmt.Errorf("read pin %s: it was altered by hand or copied; if you know why, remove it and log in again", path)
	}
	pin.Entry0 = tlog.Hash(leaf)
	if len(pin.Checkpoint) == 0 {
		pin.Checkpoint = nil
	}
	if j.CA != "" {
		pin.CA = []byte(j.CA)
	}
	return pin, nil
}

func (h Home) writePin(p Pin) error {
	data, err := json.Marshal(pinJSON{
		IndexURL: p.IndexURL, URL: p.URL, Origin: p.Origin, Entry0: base64.StdEncoding.EncodeToString(p.Entry0[:]),
		Identity: p.Identity, Checkpoint: string(p.Checkpoint), Keys: p.Keys, CA: string(p.CA),
	}, jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write pin: %w", err)
	}
	return durable.WriteFile(h.file(folderRegistries, fileID(p.IndexURL)+pinSuffix), append(data, '\n'), fileMode)
}

// SavePin writes p, whose checkpoint was judged good against each of the notes
// judged. Where another process pinned the same registry meanwhile at a tree that is
// none of those, nothing is written, and what is pinned is returned: ErrMeanwhile. Of
// a larger one that is among them the checkpoint and its keys stay. If it pinned
// another registry there, nothing is written: ErrChanged. It returns what is pinned now.
func (h Home) SavePin(ctx context.Context, p Pin, judged ...[]byte) (Pin, error) {
	return h.updatePin(ctx, p.IndexURL, func(old Pin, err error) (Pin, error) {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return p, nil
		case err != nil:
			return Pin{}, err
		case !old.sameRegistry(p):
			return Pin{}, h.changed(old, p.Origin, p.Entry0)
		}
		return p.after(old, judged)
	})
}

// advancePin is SavePin for the checkpoint and its keys alone: all else of the pin
// stays as it is now, and one that is gone or of another registry by now is left so.
func (h Home) advancePin(ctx context.Context, p Pin, judged ...[]byte) (Pin, error) {
	return h.updatePin(ctx, p.IndexURL, func(old Pin, err error) (Pin, error) {
		if err != nil || !old.sameRegistry(p) {
			return Pin{}, err
		}
		next, err := p.after(old, judged)
		old.Checkpoint, old.Keys = next.Checkpoint, next.Keys
		return old, err
	})
}

// after is p as it may replace old, which is of the same registry. ErrMeanwhile.
func (p Pin) after(old Pin, judged [][]byte) (Pin, error) {
	before, pinned := treeOf(old.Checkpoint)
	next, shown := treeOf(p.Checkpoint)
	switch {
	case !pinned:
	case !shown:
		p.Checkpoint, p.Keys = old.Checkpoint, old.Keys
	case before == next:
		if p.Keys == "" {
			p.Keys = old.Keys // of one tree they are the same; p is from before they were seen
		}
	case !slices.ContainsFunc(judged, func(note []byte) bool { tree, ok := treeOf(note); return ok && tree == before }):
		return old, fmt.Errorf("%w: %s", ErrMeanwhile, old.URL)
	case before.Size > next.Size:
		p.Checkpoint, p.Keys = old.Checkpoint, old.Keys
	}
	return p, nil
}

// treeOf returns what a note is about; false where there is none.
func treeOf(note []byte) (translog.Checkpoint, bool) {
	cp, err := translog.Peek(note)
	return cp, err == nil && cp.Size > 0
}

// updatePin writes what change makes, under the lock, of the pin on disk, or of the
// error of reading it. Where that is an error, or no pin, nothing is written.
func (h Home) updatePin(ctx context.Context, indexURL string, change func(Pin, error) (Pin, error)) (Pin, error) {
	name := fileID(indexURL)
	unlock, err := h.lock(ctx, folderRegistries, name)
	if err != nil {
		return Pin{}, err
	}
	defer unlock()
	p, err := change(h.readPin(name))
	if err != nil || p.IndexURL == "" {
		return p, err
	}
	return p, h.writePin(p)
}

// namesOf returns the pins of p's registry, by whatever name, in the order of their files.
func (h Home) namesOf(p Pin) ([]Pin, error) {
	pins, err := h.Pins()
	return slices.DeleteFunc(pins, func(other Pin) bool { return !other.sameRegistry(p) }), err
}

// seen is p with the largest checkpoint, and its keys, that was seen of its registry
// by any of its names: what was seen by one of them is not unseen by another.
func (h Home) seen(p Pin) (Pin, error) {
	pins, err := h.namesOf(p)
	for _, other := range pins {
		if other.Size() > p.Size() {
			p.Checkpoint, p.Keys = other.Checkpoint, other.Keys
		}
	}
	return p, err
}

// changed says that a pinned URL answers as another registry, and what that may mean.
func (h Home) changed(pin Pin, origin did.DID, entry0 tlog.Hash) error {
	what := fmt.Sprintf("its origin was %s and is now %s", pin.Origin, origin)
	if pin.Origin == origin {
		what = fmt.Sprintf("its entry 0 was %s and is now %s", pin.Entry0, entry0)
	}
	return fmt.Errorf("%w: %s: %s. Either somebody stands between you and the registry, or it lost its data and was started anew. "+
		"Ask its operator by another way; only if they confirm it, remove %s and log in again", ErrChanged, pin.URL, what, h.file(folderRegistries, fileID(pin.IndexURL)+pinSuffix))
}

// RemovePin forgets a registry.
func (h Home) RemovePin(ctx context.Context, p Pin) error {
	name := fileID(p.IndexURL)
	unlock, err := h.lock(ctx, folderRegistries, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(h.file(folderRegistries, name+pinSuffix)); err != nil {
		return fmt.Errorf("forget %s: %w", p.URL, err)
	}
	return nil
}

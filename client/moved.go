package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/verify"
)

// mostNames bounds the index URLs of one registry that are pinned.
const mostNames = 16

// names are what the settings in force make of the index URLs by which r's registry
// is known: those that they name are adopted, so that what cargo calls so is asked
// for at r's own URL, also where it was pinned before the registry moved; those that
// they do not name any more are to be forgotten, lest sessions go where the registry
// has left. Nothing is changed yet. ErrUntrusted when the settings do not name r's own
// URL; ErrChanged when they name what is pinned as another registry's.
func (r *Registry) names(in verify.InForce) (adopted, forgotten []Pin, err error) {
	urls := in.Settings.IndexURLs
	if !slices.Contains(urls, r.pin.IndexURL) {
		return nil, nil, fmt.Errorf("%w: its settings name %.300s, not %s; an admin has to add that, where the registry is reached by one that they name: `aln-registry settings set --add-index-url %s`",
			ErrUntrusted, strings.Join(urls, ", "), r.pin.IndexURL, r.pin.IndexURL)
	}
	for _, name := range urls[:min(len(urls), mostNames)] {
		base, err := ParseURL(name)
		if err != nil || IndexURL(base) != name || name == r.pin.IndexURL {
			continue // not a URL that this client would use
		}
		pin := r.pin
		pin.IndexURL = name
		old, err := r.client.home.PinOf(name)
		switch {
		case err == nil && !old.sameRegistry(pin):
			return nil, nil, r.client.home.changed(old, pin.Origin, pin.Entry0)
		case err == nil && old.URL == pin.URL:
			continue
		case err != nil && !errors.Is(err, ErrNotPinned):
			return nil, nil, err
		}
		adopted = append(adopted, pin)
	}
	pins, err := r.client.home.Pins()
	for _, p := range pins {
		if p.sameRegistry(r.pin) && !slices.Contains(urls, p.IndexURL) {
			forgotten = append(forgotten, p)
		}
	}
	return adopted, forgotten, err
}

// alike makes what is asked for at p's URL under other names be asked for as by p:
// with its certificates, as its identity.
func (h Home) alike(ctx context.Context, p Pin) error {
	pins, err := h.namesOf(p)
	if err != nil {
		return err
	}
	for _, other := range pins {
		if other.URL != p.URL || bytes.Equal(other.CA, p.CA) && other.Identity == p.Identity {
			continue
		}
		_, err := h.updatePin(ctx, other.IndexURL, func(now Pin, err error) (Pin, error) {
			if err != nil || !now.sameRegistry(p) {
				return Pin{}, err
			}
			now.CA, now.Identity = p.CA, p.Identity
			return now, nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// OtherNames lists the index URLs that are pinned as older or other names of pin's registry.
func (h Home) OtherNames(pin Pin) ([]string, error) {
	pins, err := h.Pins()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range pins {
		if p.sameRegistry(pin) && p.URL == pin.URL && p.IndexURL != pin.IndexURL {
			names = append(names, p.IndexURL)
		}
	}
	return names, nil
}

// KnownElsewhere returns the URL at which pin's registry is asked under another
// of its names, "" where that is pin's own or there is no such name.
func (h Home) KnownElsewhere(pin Pin) (string, error) {
	pins, err := h.Pins()
	if err != nil {
		return "", err
	}
	for _, p := range pins {
		if p.sameRegistry(pin) && p.URL != pin.URL {
			return p.URL, nil
		}
	}
	return "", nil
}

package client

import (
	"context"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// mostNames bounds the index URLs of one registry that are pinned.
const mostNames = 16

// Adopt makes every index URL that the registry's settings name a name of this
// registry: what cargo calls so is asked for at r's own URL from now on, also
// where it was pinned before the registry moved. It returns the pins that were
// made or changed. The settings are read as a member and proved to be in the log.
// Nothing is changed, and ErrUntrusted returned, when they do not name r's own
// URL; ErrChanged when a name is pinned as another registry's.
func (r *Registry) Adopt(ctx context.Context) ([]Pin, error) {
	settings, err := r.settings(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(settings.IndexURLs, r.pin.IndexURL) {
		return nil, fmt.Errorf("%w: its settings name %.300q, not %s; an admin has to add that URL to them", ErrUntrusted, settings.IndexURLs, r.pin.IndexURL)
	}
	var adopted []Pin
	for _, name := range settings.IndexURLs[:min(len(settings.IndexURLs), mostNames)] {
		base, err := ParseURL(name)
		if err != nil || IndexURL(base) != name || name == r.pin.IndexURL {
			continue // not a URL that this client would use
		}
		pin := r.pin
		pin.IndexURL = name
		old, err := r.client.home.PinOf(name)
		if err == nil && old.URL == pin.URL && old.sameRegistry(pin) {
			continue
		}
		if pin, err = r.client.home.SavePin(ctx, pin); err != nil {
			return adopted, err
		}
		adopted = append(adopted, pin)
	}
	return adopted, nil
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

// settings fetches the `registry` record in force, proved by the tiles of the
// verified checkpoint to be in the log.
func (r *Registry) settings(ctx context.Context) (*record.Registry, error) {
	view, err := r.View(ctx)
	if err != nil {
		return nil, err
	}
	_, verdict, err := view.Check(ctx)
	if err == nil {
		err = unproved(r.pin.URL, verdict)
	}
	if err != nil {
		return nil, err
	}
	in, err := r.Settings(ctx)
	if err != nil {
		return nil, err
	}
	rec, index, err := r.Record(ctx, string(in.Record))
	if err != nil {
		return nil, err
	}
	settings, ok := rec.Body().(*record.Registry)
	if !ok {
		return nil, fmt.Errorf("%w: what it calls its settings is a %s record", ErrUntrusted, rec.Type())
	}
	return settings, view.holds(rec, index)
}

// holds checks that the log's entry at index is rec.
func (v *View) holds(rec *record.Record, index int64) error {
	line, err := v.Entry(index)
	if err != nil {
		return err
	}
	entry, err := translog.ParseEntry(line)
	if err != nil {
		return err
	}
	if entry.Record != rec.CID() {
		return fmt.Errorf("%w: entry %d of its log is not the record %s", ErrUntrusted, index, rec.ID())
	}
	return nil
}

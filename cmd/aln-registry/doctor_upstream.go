package main

import (
	"context"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// throughRegistry is a registry of the project's that comes through the one at URL, which calls it
// Upstream; Check is how it was told of.
type throughRegistry struct{ Check, URL, Upstream string }

// checkUpstreams tells what of other registries cannot be had through r now.
func (d *doctor) checkUpstreams(ctx context.Context, r *client.Registry) {
	url := r.Pin().URL
	check := "upstreams of " + url
	all, offline, err := r.Upstreams(ctx)
	if err != nil {
		d.warn(check, "", "%v", err)
		return
	}
	now, err := cargoconfig.Replacement(d.folder, d.cargoHome) // checkCratesIO tells of the error
	if err == nil && now.Text() == client.CratesIOURL(url) && !hasUpstream(all, particle.SourceCratesIO) {
		d.fail(check, "aln-registry login "+url+" --restore-crates-io, or ask its operator to take crates.io", "%s takes the crates of crates.io through this registry, which does not take them", now.Path)
	}
	for _, t := range d.through {
		if t.URL == url && !hasUpstream(all, t.Upstream) {
			d.fail(check, "ask its operator, or take "+t.Check+" and what needs it out of the project", "%s comes through this registry, which takes crates from no upstream of the name %s", t.Check, t.Upstream)
		}
	}
	if offline && len(all) > 0 {
		d.warn(check, "ask its operator (serve --offline) where more is needed", "the registry is offline: of other registries only what is held is there")
		return
	}
	for _, u := range all {
		var says string
		switch {
		case u.Down:
			says = "did not answer when it was last asked"
		case u.Trouble != "":
			says = "has given nothing since this"
		default:
			continue
		}
		d.warn(check, "ask its operator to look at the server's log, and at --upstream (ca=, proxy=, token_file=) of "+u.Name+"; what is held is there meanwhile", "%s (%s) %s%s", u.Name, u.Upstream, says, troubleOf(u))
	}
}

// throughKnown tells of an index that is another registry's, taken through one that is known
// here; false where it is none.
func (d *doctor) throughKnown(check, index string) bool {
	pins, err := d.client.Home().Pins()
	if err != nil {
		return false
	}
	for _, pin := range pins {
		base := baseOf(pin.IndexURL)
		place := client.PlaceOf(index, []string{base})
		if place.Kind != client.PlaceProxied && place.Kind != client.PlaceUpstream {
			continue
		}
		if base != pin.URL {
			d.warn(check, "write "+client.UpstreamURL(pin.URL, upstreamNamed(place))+" in its place", "%s comes through a registry that has moved to %s", index, pin.URL)
		} else {
			d.ok(check, "%s, which comes through %s", index, pin.URL)
			d.through = append(d.through, throughRegistry{check, pin.URL, upstreamNamed(place)})
		}
		return true
	}
	return false
}

// upstreamNamed is the upstream's name at the registry that place is reached through.
func upstreamNamed(place client.Place) string {
	if place.Kind == client.PlaceProxied {
		return particle.SourceCratesIO
	}
	return place.Upstream
}

package main

import (
	"context"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/registry/particle"
)

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
	if offline && len(all) > 0 {
		d.warn(check, "ask its operator (serve --offline) where more is needed", "the registry is offline: of other registries only what is held is there")
		return
	}
	for _, u := range all {
		if u.Down {
			d.warn(check, "ask its operator to look at the server's log; what is held is there meanwhile", "%s (%s) did not answer when it was last asked", u.Name, u.Upstream)
		}
	}
}

package main

import "phoenix-lab.org/aln-registry/web"

// forPages is what the pages show of the upstreams.
func (u *upstreams) forPages() web.UpstreamsNow {
	now := web.UpstreamsNow{Offline: u.offline, CacheLimit: u.limit}
	down := map[string]bool{}
	for _, name := range u.proxy.Figures().Dead {
		down[name] = true
	}
	for _, one := range u.proxy.Upstreams() {
		shown := web.Upstream{Name: one.Name(), Source: one.Source(), Index: one.Setting().Index, Down: down[one.Name()]}
		if last, ok := one.LastTrouble(); ok {
			shown.Trouble, shown.TroubleAt = last.What, last.At
		}
		now.All = append(now.All, shown)
	}
	return now
}

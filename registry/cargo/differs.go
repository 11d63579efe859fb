package cargo

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// mostDiffering bounds how many of a kind Differs names; each is cut by quote.
const mostDiffering = 6

// Differs says in words what later resolves to that l does not, and the other way round: which
// dependencies, features or links were added or removed. It is "" where cargo reads the same from
// both. What stands in the lines is quoted and cut, and long lists are too: it can be shown.
func (l UpstreamLine) Differs(later UpstreamLine) string {
	if l.Resolves == later.Resolves {
		return ""
	}
	var was, is resolution
	if json.Unmarshal(l.Raw, &was) != nil || json.Unmarshal(later.Raw, &is) != nil {
		return "" // they were read before
	}
	var all []string
	wasDeps, wasRead := was.deps()
	isDeps, isRead := is.deps()
	if wasRead && isRead {
		all = append(all, addedRemoved("dependencies", wasDeps, isDeps)...)
	}
	wasFeatures, isFeatures := was.enabled(), is.enabled()
	all = append(all, addedRemoved("features", keysOf(wasFeatures), keysOf(isFeatures))...)
	for _, name := range slices.Sorted(maps.Keys(wasFeatures)) {
		if _, still := isFeatures[name]; still {
			all = append(all, enables(name, wasFeatures[name], isFeatures[name])...)
		}
	}
	if len(all) > mostDiffering {
		all = append(all[:mostDiffering:mostDiffering], fmt.Sprintf("and %d features more", len(all)-mostDiffering))
	}
	if before, after := linksOf(was), linksOf(is); before != after {
		all = append(all, "links was "+before+" and is "+after)
	}
	if len(all) == 0 {
		return "it is nothing that has a name: compare the lines"
	}
	return strings.Join(all, "; ")
}

// deps are the dependencies as people write them; ok is false where they have another form.
func (r *resolution) deps() (all map[string]bool, ok bool) {
	var read []resolvedDep
	if len(r.Deps) > 0 && json.Unmarshal(r.Deps, &read) != nil {
		return nil, false
	}
	all = make(map[string]bool, len(read))
	for i := range read {
		all[read[i].words()] = true
	}
	return all, true
}

// words are d as people write it, with what is not the rule behind it.
func (d *resolvedDep) words() string {
	says := d.Name + " " + d.Req
	add := func(is bool, what string) {
		if is {
			says += ", " + what
		}
	}
	add(d.Package != "" && d.Package != d.Name, "package "+d.Package)
	add(d.Kind == KindDev || d.Kind == KindBuild, d.Kind)
	add(d.Optional, "optional")
	add(d.DefaultFeatures != nil && !*d.DefaultFeatures, "no default features")
	if d.Target != nil {
		add(true, "on "+*d.Target)
	}
	if d.Registry != nil {
		add(true, "from "+*d.Registry)
	}
	slices.Sort(d.Features)
	add(len(d.Features) > 0, "with "+strings.Join(slices.Compact(d.Features), " "))
	add(d.Artifact != nil, "artifact "+strings.Join(d.Artifact, " "))
	return says
}

// enabled are what each feature enables.
func (r *resolution) enabled() map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, of := range []map[string][]string{r.Features.value, r.Features2.value} {
		for name, list := range of {
			if all[name] == nil {
				all[name] = map[string]bool{}
			}
			for _, one := range list {
				all[name][one] = true
			}
		}
	}
	return all
}

func keysOf(all map[string]map[string]bool) map[string]bool {
	keys := make(map[string]bool, len(all))
	for name := range all {
		keys[name] = true
	}
	return keys
}

// enables says what a feature enables now, or no longer.
func enables(name string, was, is map[string]bool) (all []string) {
	if added := without(is, was); len(added) > 0 {
		all = append(all, "feature "+quote(name)+" also enables "+listed(added))
	}
	if removed := without(was, is); len(removed) > 0 {
		all = append(all, "feature "+quote(name)+" no longer enables "+listed(removed))
	}
	return all
}

func addedRemoved(what string, was, is map[string]bool) (all []string) {
	if added := without(is, was); len(added) > 0 {
		all = append(all, what+" added: "+listed(added))
	}
	if removed := without(was, is); len(removed) > 0 {
		all = append(all, what+" removed: "+listed(removed))
	}
	return all
}

// without are those of all that are not in others, sorted.
func without(all, others map[string]bool) (rest []string) {
	for one := range all {
		if !others[one] {
			rest = append(rest, one)
		}
	}
	slices.Sort(rest)
	return rest
}

// listed are the first of all, quoted, and how many more there are.
func listed(all []string) string {
	var first []string
	for _, one := range all[:min(len(all), mostDiffering)] {
		first = append(first, quote(one))
	}
	says := strings.Join(first, ", ")
	if more := len(all) - len(first); more > 0 {
		says += fmt.Sprintf(" and %d more", more)
	}
	return says
}

// linksOf are the links of r as they are shown.
func linksOf(r resolution) string {
	switch {
	case r.Links.odd != nil:
		return "of another form"
	case r.Links.value == nil:
		return "none"
	}
	return quote(*r.Links.value)
}

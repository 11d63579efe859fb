package cratesioproxy

import (
	"context"
	"errors"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// Has reports whether upstream has a crate of that name, however spelled: by what is known of
// it, or else by asking for it in the usual spellings. It returns ErrUnavailable, ErrRefused or
// ErrBroken where upstream did not tell, and ErrOffline where it is not asked: what is not known
// may be there all the same. A name that is never asked of an upstream is none of its.
func (u *Upstream) Has(ctx context.Context, name string) (bool, error) {
	canonical := cargo.CanonicalName(name)
	if cargo.ValidateName(name) != nil || u.proxy.Evidence.PrivateName(canonical) {
		return false, nil
	}
	known, ok, err := u.proxy.Evidence.Known(ctx, u.setting.Name, canonical)
	if err != nil {
		return false, err
	}
	if ok && known.Snapshot != storage.CIDOf(nil) {
		return true, nil
	}
	if u.proxy.Offline {
		return false, u.say(ErrOffline)
	}
	for _, spelled := range spellings(name) {
		switch err := u.Refresh(ctx, spelled); {
		case err == nil:
			return true, nil
		case !errors.Is(err, ErrNotFound):
			return false, err
		}
	}
	return false, nil
}

// mostSeparators is how many of a name are tried in either spelling, each of which doubles the
// questions: nearly no crate has more.
const mostSeparators = 3

// spellings are those of a crate's name in lower case: all of them, or of a name of many words
// the usual ones.
func spellings(name string) []string {
	lower := strings.ToLower(name)
	all := []string{lower}
	if n := strings.Count(cargo.CanonicalName(name), "_"); n > mostSeparators {
		all = append(all, cargo.CanonicalName(name), strings.ReplaceAll(lower, "_", "-"))
	} else {
		all = respelled(cargo.CanonicalName(name))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// respelled are all names that are canonical where every - of them is a _.
func respelled(canonical string) []string {
	before, after, found := strings.Cut(canonical, "_")
	if !found {
		return []string{canonical}
	}
	var all []string
	for _, rest := range respelled(after) {
		all = append(all, before+"_"+rest, before+"-"+rest)
	}
	return all
}

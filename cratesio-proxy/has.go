package cratesioproxy

import (
	"context"
	"errors"

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
	for _, spelled := range cargo.Spellings(name) {
		switch err := u.Refresh(ctx, spelled); {
		case err == nil:
			return true, nil
		case !errors.Is(err, ErrNotFound):
			return false, err
		}
	}
	return false, nil
}

package registry

import (
	"context"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Pin keeps crates of other registries from being evicted, under the name of a lock, beside
// what that pins already; durable when it returns. A *policy.Denial where asker may not.
func (r *Registry) Pin(ctx context.Context, asker policy.Asker, lock string, ids []storage.CID) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.PinUpstream(ctx, lock, string(asker.DID), ids, r.Clock())
}

// Unpin takes back what lock pinned, or was noted to lack, last before before (zero: all of it),
// and says how many crates that were. A *policy.Denial where asker may not.
func (r *Registry) Unpin(ctx context.Context, asker policy.Asker, lock string, before time.Time) (int64, error) {
	if denial := policy.Keep(asker); denial != nil {
		return 0, denial
	}
	return r.Catalog.UnpinUpstream(ctx, lock, before)
}

// Lock is a name under which crates are kept.
type Lock struct {
	catalog.UpstreamLock
	// Denied is how many of those that are held would not be served now to who asks, as far as
	// they may know of that, of the first mostJudged.
	Denied int64
}

const (
	// judgedAtOnce is of how many crates of a lock it is decided at once.
	judgedAtOnce = 500
	// mostJudged bounds those of one lock; judgedPage is with how many, held or not, a page of locks ends.
	mostJudged = 20_000
	judgedPage = 4_000
)

// Locks lists the locks behind the name after, by name, at most limit, and fewer where they are
// large; more: there may be others. asker may read what the registry goes by.
func (r *Registry) Locks(ctx context.Context, asker policy.Asker, after string, limit int) (found []Lock, more bool, err error) {
	locks, err := r.Catalog.UpstreamLocks(ctx, after, limit)
	if err != nil {
		return nil, false, err
	}
	judged := int64(0)
	for i, l := range locks {
		one := Lock{UpstreamLock: l}
		if err := r.deniedOf(ctx, asker, l.Lock, func(Lack) bool { one.Denied++; return true }); err != nil {
			return nil, false, err
		}
		found = append(found, one)
		if judged += l.Pins; judged >= judgedPage && i+1 < len(locks) {
			return found, true, nil
		}
	}
	return found, len(locks) == limit, nil
}

// DeniedNow lists what lock keeps, and is held, and would not be served now to asker, by CID, the first
// limit of it, without private names: what was kept before a rule, or a grant, said so. Why is the
// rule that decides.
func (r *Registry) DeniedNow(ctx context.Context, asker policy.Asker, lock string, limit int) (denied []Lack, err error) {
	err = r.deniedOf(ctx, asker, lock, func(l Lack) bool {
		if !r.PrivateName(l.Name) {
			denied = append(denied, l)
		}
		return len(denied) < limit
	})
	return denied, err
}

// deniedOf calls each, until that returns false, for what of lock is held and denied to asker
// whatever upstream it is asked of. What nobody has looked into since a rule asks for that is not
// denied: it is looked into when somebody asks for it.
func (r *Registry) deniedOf(ctx context.Context, asker policy.Asker, lock string, each func(Lack) bool) error {
	if asker.Anonymous() || hides(&asker) || !r.MayRead(asker).Allow {
		return nil
	}
	last := storage.CID{}
	for range mostJudged / judgedAtOnce {
		pins, err := r.Catalog.UpstreamPins(ctx, lock, last, judgedAtOnce)
		if err != nil || len(pins) == 0 {
			return err
		}
		ids := make([]storage.CID, len(pins))
		for i, p := range pins {
			ids[i] = p.CID
		}
		last = ids[len(ids)-1]
		denied, err := r.deniedAmong(ctx, asker, ids)
		if err != nil {
			return err
		}
		for _, l := range denied {
			if !each(l) {
				return nil
			}
		}
	}
	return nil
}

// deniedAmong are those of ids that are held and denied.
func (r *Registry) deniedAmong(ctx context.Context, asker policy.Asker, ids []storage.CID) (denied []Lack, err error) {
	served, err := r.Catalog.UpstreamServed(ctx, ids)
	if err != nil {
		return nil, err
	}
	asked := make([]Asked, len(served))
	for i, s := range served {
		asked[i] = Asked{s.Name, s.Version, s.CID.Digest(), particle.UpstreamSource(s.Upstream)}
	}
	told, err := r.Decisions(ctx, asker, "", asked)
	if err != nil {
		return nil, err
	}
	allowed := map[storage.CID]bool{}
	for i, j := range told {
		allowed[served[i].CID] = allowed[served[i].CID] || j.Allow || j.Unscanned
	}
	for i, s := range served {
		if !allowed[s.CID] && (i == 0 || served[i-1].CID != s.CID) {
			why := strings.TrimSpace(string(told[i].Rule) + " " + told[i].RuleID)
			denied = append(denied, Lack{Upstream: s.Upstream, Name: s.Name, Version: s.Version, CID: s.CID, Why: why})
		}
	}
	return denied, nil
}

// Lack is a crate that a lock names and that is not kept for it, since it is not to be had.
type Lack struct {
	// Upstream, Name and Version are as the lock has them; Version is "" where all versions lack.
	Upstream, Name, Version string
	// CID is of the bytes that the lock names, zero where it names none.
	CID storage.CID
	// Why is in a word why it was not to be had, "" where it was not asked for yet.
	Why string
}

// Lack notes that lock lacks crates, but for those that it pins. A *policy.Denial where asker may not.
func (r *Registry) Lack(ctx context.Context, asker policy.Asker, lock string, lacks []Lack) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.LackUpstream(ctx, rowsOfLacks(lock, string(asker.DID), r.Clock(), lacks))
}

// LackAnew is Lack in place of all that lock lacked of upstream, of which all lacks are. Cut in the
// middle, lock lacks both.
func (r *Registry) LackAnew(ctx context.Context, asker policy.Asker, lock, upstream string, lacks []Lack) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.LackUpstreamAnew(ctx, lock, upstream, rowsOfLacks(lock, string(asker.DID), r.Clock(), lacks))
}

// Have notes that lock lacks no more what it names by lacks. A *policy.Denial where asker may not.
func (r *Registry) Have(ctx context.Context, asker policy.Asker, lock string, lacks []Lack) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.HaveUpstream(ctx, rowsOfLacks(lock, string(asker.DID), r.Clock(), lacks))
}

func rowsOfLacks(lock, who string, at time.Time, lacks []Lack) []catalog.UpstreamLack {
	rows := make([]catalog.UpstreamLack, len(lacks))
	for i, l := range lacks {
		rows[i] = catalog.UpstreamLack{Lock: lock, Upstream: l.Upstream, Name: l.Name, Version: l.Version, CID: l.CID, Why: l.Why, DID: who, Since: at}
	}
	return rows
}

// Lacks lists what lock lacks, by upstream, name and version, as far as asker may know of it, of
// the first limit: nothing to whom a grant hides crates, and no private name.
func (r *Registry) Lacks(ctx context.Context, asker policy.Asker, lock string, limit int) ([]Lack, error) {
	if asker.Anonymous() || hides(&asker) || !r.MayRead(asker).Allow {
		return nil, nil
	}
	rows, err := r.Catalog.UpstreamLacks(ctx, catalog.UpstreamLack{Lock: lock}, limit)
	if err != nil {
		return nil, err
	}
	var lacks []Lack
	for _, row := range rows {
		if !r.PrivateName(row.Name) {
			lacks = append(lacks, Lack{Upstream: row.Upstream, Name: row.Name, Version: row.Version, CID: row.CID, Why: row.Why})
		}
	}
	return lacks, nil
}

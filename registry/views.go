package registry

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// A view of an index file is what somebody sees of it: a line is absent where its
// version is not to be known of, and says `yanked` where no resolver may pick it;
// everything else is the file's, byte for byte. Where that changes nothing the
// view is the file itself.

// indexView is kept for all who read under the same.
type indexView struct {
	// generation, epoch: what it was made of, by index in the log, and so alike in all
	// replicas. Of others it says nothing.
	generation, epoch int64
	// until is when it is to be made anew, zero for never.
	until time.Time
	// file is nil where it is the whole file, or where none is to be known of (hidden).
	file   *IndexFile
	hidden *Hidden
}

// sameness notes that nothing changes in a file for those who read under no grant.
type sameness struct {
	epoch int64
	until time.Time
}

// holds reports whether v still says what is seen of file.
func (v *indexView) holds(file *IndexFile, t *terms, now time.Time) bool {
	return v.generation == file.of.generation && v.epoch == t.epoch && (v.until.IsZero() || now.Before(v.until))
}

// of is what v shows of file.
func (v *indexView) of(file *IndexFile) (*IndexFile, error) {
	switch {
	case v.hidden != nil:
		return nil, v.hidden
	case v.file != nil:
		return v.file, nil
	}
	return file, nil
}

// scanRetry is how long a version whose bytes could not be looked at stays denied
// in a view before that is tried again.
const scanRetry = 10 * time.Second

// IndexFile returns the index file of the crate whose name, in lower case, is
// lowerName, as asker may see it. ErrNotFound when there is none that asker may
// know of, also for other spellings with - and _; ErrUnauthenticated or a
// *policy.Denial when asker may not read at all.
func (r *Registry) IndexFile(ctx context.Context, asker policy.Asker, lowerName string) (*IndexFile, error) {
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return nil, err
	}
	canonical := cargo.CanonicalName(lowerName)
	file, err := r.indexFile(ctx, canonical)
	if err != nil {
		return nil, err
	}
	if file == nil || file.name != lowerName {
		return nil, ErrNotFound
	}
	who := under(&asker)
	if s := file.sameFor(who); s != nil {
		if seen := s.Load(); seen != nil && seen.epoch == t.epoch && (seen.until.IsZero() || r.Clock().Before(seen.until)) {
			return file, nil
		}
	}
	of := thing{family: viewFamily, name: canonical, under: who}
	if v, ok := r.cache.peek(of).(*indexView); ok && v.holds(file, t, r.Clock()) {
		return v.of(file)
	}
	return r.viewOf(ctx, asker, t, of, file)
}

// sameFor is where it is noted that who sees the file as it is, nil for grants.
func (f *IndexFile) sameFor(who string) *atomic.Pointer[sameness] {
	switch who {
	case underNothing:
		return &f.same[0]
	case underAudit:
		return &f.same[1]
	}
	return nil
}

// viewOf returns what asker sees of file, made once for all who read under the same.
func (r *Registry) viewOf(ctx context.Context, asker policy.Asker, t *terms, of thing, file *IndexFile) (*IndexFile, error) {
	// What a view says holds for others' sessions too.
	asker.Until, asker.GrantUntil = time.Time{}, time.Time{}
	now := r.Clock()
	fresh := func(value any) bool {
		v, ok := value.(*indexView)
		return ok && v.holds(file, t, now)
	}
	load := func(ctx context.Context, _ int64) (found, error) {
		v, err := r.makeView(ctx, &asker, t, file, now)
		if err != nil {
			return found{}, err
		}
		held := int64(headerBytes)
		if v.file != nil {
			held = v.file.bytes()
		}
		return found{v, held}, nil
	}
	value, err := r.cache.getIf(ctx, of, fresh, r.Size, load)
	if err == nil && !fresh(value) { // made for others, as of another time
		var own found
		own, err = load(ctx, 0)
		value = own.value
	}
	if err != nil {
		return nil, err
	}
	v := value.(*indexView)
	if s := file.sameFor(of.under); s != nil && v.file == nil && v.hidden == nil {
		s.Store(&sameness{v.epoch, v.until})
	}
	return v.of(file)
}

// makeView decides about every version of file.
func (r *Registry) makeView(ctx context.Context, asker *policy.Asker, t *terms, file *IndexFile, now time.Time) (*indexView, error) {
	decisions, err := r.decideAll(ctx, asker, t, file.of, now)
	if err != nil {
		return nil, err
	}
	v := &indexView{generation: file.of.generation, epoch: t.epoch}
	for _, d := range decisions {
		v.until = earlier(v.until, d.ValidUntil)
		if d.Unscanned {
			v.until = earlier(v.until, now.Add(scanRetry))
		}
	}
	text := file.seenBy(decisions)
	switch {
	case text == nil:
		return v, nil
	case len(text) == 0:
		v.hidden = &Hidden{What: "crate/" + file.name, Decision: decisions[0], err: ErrNotFound}
		return v, nil
	}
	packed, err := pack(text)
	if err != nil {
		return nil, err
	}
	v.file = &IndexFile{name: file.name}
	v.file.Plain, v.file.Packed = Represent(text, packed)
	return v, nil
}

// seenBy is the file's text under decisions about its versions; nil: as it is.
func (f *IndexFile) seenBy(decisions []policy.Decision) []byte {
	plain := f.Plain.Bytes
	changes := func(l indexLine) bool {
		d := &decisions[l.version]
		return !d.Known || !d.Listed && l.yanked > 0
	}
	if !slices.ContainsFunc(f.lines, changes) {
		return nil
	}
	text := bytes.NewBuffer(make([]byte, 0, len(plain)))
	start := 0
	for _, l := range f.lines {
		switch d := &decisions[l.version]; {
		case !d.Known:
		case !d.Listed && l.yanked > 0:
			text.Write(plain[start:l.yanked])
			text.WriteString("true")
			text.Write(plain[l.yanked+len("false") : l.end])
		default:
			text.Write(plain[start:l.end])
		}
		start = l.end
	}
	return text.Bytes()
}

// earlier is the earlier of two ends; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

package registry

import (
	"bytes"
	"context"
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
	// looks is how many looks had found something where more may change it, else -1.
	looks int64
	// held are the lines that it was narrowed to, a byte for each, "" for all.
	held string
	// file is nil where it is the whole file, or where none is to be known of (hidden).
	file   *IndexFile
	hidden *Hidden
}

// sameness notes that nothing changes in a file for those who read under no grant.
type sameness struct {
	epoch, looks int64
	until        time.Time
}

// holds reports whether v still says what is seen of those lines of file.
func (r *Registry) holds(v *indexView, file *IndexFile, held string, t *terms, now time.Time) bool {
	return v.generation == file.of.generation && v.held == held && r.valid(sameness{v.epoch, v.looks, v.until}, t, now)
}

// valid reports whether what was decided holds on.
func (r *Registry) valid(s sameness, t *terms, now time.Time) bool {
	return s.epoch == t.epoch && (s.looks < 0 || s.looks == r.scans.hits.Load()) && (s.until.IsZero() || now.Before(s.until))
}

// of is what v shows of file.
func (v *indexView) of(file *IndexFile) (*IndexFile, error) {
	switch {
	case v.hidden != nil && v.hidden.Decision.Rule == "": // by no rule
		return nil, ErrNotFound
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
	return r.seenAs(ctx, asker, t, thing{family: viewFamily, name: canonical}, file, "")
}

// seenAs is what asker sees of those lines of file ("": of all), from memory where it can
// be; of names the file.
func (r *Registry) seenAs(ctx context.Context, asker policy.Asker, t *terms, of thing, file *IndexFile, held string) (*IndexFile, error) {
	of.under = under(&asker)
	if s := file.sameFor(of.under); s != nil && held == "" {
		if seen := s.Load(); seen != nil && r.valid(*seen, t, r.Clock()) {
			return file, nil
		}
	}
	if v, ok := r.cache.peek(of).(*indexView); ok && r.holds(v, file, held, t, r.Clock()) {
		return v.of(file)
	}
	return r.viewOf(ctx, asker, t, of, file, held)
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
func (r *Registry) viewOf(ctx context.Context, asker policy.Asker, t *terms, of thing, file *IndexFile, held string) (*IndexFile, error) {
	// What a view says holds for others' sessions too.
	asker.Until, asker.GrantUntil = time.Time{}, time.Time{}
	now := r.Clock()
	fresh := func(value any) bool {
		v, ok := value.(*indexView)
		return ok && r.holds(v, file, held, t, now)
	}
	load := func(ctx context.Context, _ int64) (found, error) {
		v, err := r.makeView(ctx, &asker, t, file, held, now)
		if err != nil {
			return found{}, err
		}
		size := int64(headerBytes + len(held))
		if v.file != nil {
			size += v.file.bytes()
		}
		return found{v, size}, nil
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
	if s := file.sameFor(of.under); s != nil && held == "" && v.file == nil && v.hidden == nil {
		s.Store(&sameness{v.epoch, v.looks, v.until})
	}
	return v.of(file)
}

// makeView decides about every version of file, and leaves out the lines that are not held.
func (r *Registry) makeView(ctx context.Context, asker *policy.Asker, t *terms, file *IndexFile, held string, now time.Time) (*indexView, error) {
	looks := r.scans.hits.Load() // before they are looked up
	decisions, err := r.decideAll(ctx, asker, t, file.of, now)
	if err != nil {
		return nil, err
	}
	v := &indexView{generation: file.of.generation, epoch: t.epoch, looks: -1, held: held}
	for _, d := range decisions {
		v.until = earlier(v.until, d.ValidUntil)
		if d.Unscanned {
			v.looks = looks
			if file.of.upstream == "" {
				v.until = earlier(v.until, now.Add(scanRetry))
			}
		}
	}
	turn := turn{of: r.large}
	defer turn.end()
	if err := turn.wait(ctx, int64(len(file.Plain.Bytes))); err != nil {
		return nil, err
	}
	text := file.seenBy(decisions, held)
	switch {
	case text == nil:
		return v, nil
	case len(text) == 0:
		v.hidden = file.hidden(decisions)
		return v, nil
	}
	packed, err := pack(text)
	if err != nil {
		return nil, err
	}
	v.file = &IndexFile{name: file.name, what: file.what}
	v.file.Plain, v.file.Packed = Represent(text, packed)
	return v, nil
}

// hidden is what the audit trail hears of a file of which nothing is seen under decisions.
func (f *IndexFile) hidden(decisions []policy.Decision) *Hidden {
	h := &Hidden{What: f.what, Decision: decisions[0], err: ErrNotFound}
	if h.Decision.Known { // not policy hides it: it is not held
		h.Decision = policy.Decision{}
	}
	return h
}

// sayYanked is put where a line does not say whether it is yanked.
const sayYanked = `,"yanked":true`

// seenBy is the file's text under decisions about its versions, without the lines that
// are not held (""; all are); nil: as it is.
func (f *IndexFile) seenBy(decisions []policy.Decision, held string) []byte {
	plain := f.Plain.Bytes
	shown := func(i int) bool { return decisions[f.lines[i].version].Known && (held == "" || held[i] == lineHeld) }
	yanks := func(i int) bool { return f.lines[i].yanked > 0 && !decisions[f.lines[i].version].Listed }
	same := true
	for i := range f.lines {
		same = same && shown(i) && !yanks(i)
	}
	if same {
		return nil
	}
	text := bytes.NewBuffer(make([]byte, 0, len(plain)+len(sayYanked)*len(f.lines)))
	start := 0
	for i, l := range f.lines {
		switch {
		case !shown(i):
		case yanks(i):
			text.Write(plain[start:l.yanked])
			if l.rest > l.yanked {
				text.WriteString("true")
			} else {
				text.WriteString(sayYanked)
			}
			text.Write(plain[l.rest:l.end])
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

package registry

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// AuditEntry is a row of the audit trail.
type AuditEntry = catalog.AuditEntry

// Bounds on the audit trail.
const (
	// DefaultAuditEntries is how many rows are kept where Config says nothing.
	DefaultAuditEntries = 100_000
	// auditDelay is how long an event waits to be written.
	auditDelay = time.Second
	// auditWindow is how long equal events are counted before the count is written.
	auditWindow = time.Minute
	// mostOpen is how many different events are told apart in a window, mostOpenEach
	// how many of one asker: who makes more of them fills the trail no faster.
	mostOpen     = 4096
	mostOpenEach = 32
	// mostWaiting is how many entries wait for a catalog that takes none.
	mostWaiting = 4096
	// mostDeniedRules bounds the rules that denials are counted by.
	mostDeniedRules = 64
	// auditWrite bounds one write, auditClose the last one.
	auditWrite = 30 * time.Second
	auditClose = 5 * time.Second
)

// auditOthers stands for what an entry is about that counts events beyond the bounds.
const auditOthers = "others"

// trail writes events into the catalog, off the path of those who cause them: the
// first of its kind within about a second, equal ones that follow counted, in one
// entry a minute. What is beyond the bounds is counted by rule alone. Nothing
// that notes an event waits for the catalog.
type trail struct {
	catalog *catalog.DB
	clock   func() time.Time
	log     *slog.Logger
	keep    int64

	mu sync.Mutex
	// fresh are the entries to be written next.
	fresh []AuditEntry
	// open are the kinds of events of this window.
	open map[Event]*tally
	// each is how many kinds are open in a room.
	each    map[room]int
	denied  map[string]uint64
	written uint64
	counted uint64
	failing bool

	writing sync.Mutex // held while a batch is being written
	closing chan struct{}
	closed  chan struct{}
}

// tally counts the events of a kind that no entry tells of yet.
type tally struct {
	since, last time.Time
	request     string
	count       int64
	// room is whose room it takes; others: nobody's.
	room   room
	others bool
}

func newTrail(c Config) *trail {
	keep := c.AuditEntries
	if keep <= 0 {
		keep = DefaultAuditEntries
	}
	return &trail{
		catalog: c.Catalog, clock: c.Clock, log: c.Log, keep: keep, open: map[Event]*tally{}, each: map[room]int{},
		denied: noneDenied(), closing: make(chan struct{}), closed: make(chan struct{}),
	}
}

// note takes an event; it never waits.
func (t *trail) note(e Event) {
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Outcome == OutcomeDenied {
		t.countDenied(e.Rule)
	}
	request := e.Request
	e.Request = ""
	y, ok := t.open[e]
	if !ok {
		if t.hasRoom(e) {
			t.begin(e, now)
			t.fresh = append(t.fresh, entryOf(e, now, request, 1))
			return
		}
		t.counted++
		y = t.others(e, now)
	}
	y.count++
	y.last, y.request = now, request
}

// noneDenied: who watches the figures sees a rule's before it denied anything.
func noneDenied() map[string]uint64 {
	none := map[string]uint64{}
	for _, rule := range []policy.Rule{policy.RuleQuarantine, policy.RuleAllowed, policy.RuleGrant, policy.RuleTier, policy.RuleCooldown} {
		none[string(rule)] = 0
	}
	return none
}

func (t *trail) countDenied(rule string) {
	if _, ok := t.denied[rule]; !ok && len(t.denied) >= mostDeniedRules {
		rule = auditOthers
	}
	t.denied[rule]++
}

// room is what mostOpenEach bounds: an asker, all strangers being one. What was
// accepted has one of its own, so that nobody acts unseen behind a flood of
// denials, which cost nothing.
type room struct {
	asker    did.DID
	accepted bool
}

func (e Event) room() room {
	of := room{e.Asker, e.Outcome == OutcomeAccepted}
	if e.Stranger {
		of.asker = ""
	}
	return of
}

func (t *trail) hasRoom(e Event) bool {
	return len(t.open) < mostOpen && t.each[e.room()] < mostOpenEach && len(t.fresh) < mostWaiting
}

func (t *trail) begin(e Event, now time.Time) *tally {
	y := &tally{since: now, room: e.room()}
	t.open[e] = y
	t.each[y.room]++
	return y
}

// others is the tally of what has no room: of one asker and rule, or where there
// are too many of those too, of the rule.
func (t *trail) others(e Event, now time.Time) *tally {
	of := Event{Asker: e.room().asker, What: auditOthers, Rule: e.Rule, Outcome: e.Outcome}
	if _, ok := t.open[of]; !ok && len(t.open) >= mostOpen {
		of.Asker = ""
	}
	y, ok := t.open[of]
	if !ok {
		y = &tally{since: now, others: true}
		t.open[of] = y
	}
	return y
}

func entryOf(e Event, at time.Time, request string, count int64) AuditEntry {
	return AuditEntry{
		Time: at, Asker: string(e.Asker), What: e.What, Rule: e.Rule, RuleID: e.RuleID, Outcome: e.Outcome, Request: request, Count: count,
	}
}

// take returns what is to be written now: with all, also the counts of windows
// that are not over.
func (t *trail) take(all bool) []AuditEntry {
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	batch := t.fresh
	t.fresh = nil
	for e, y := range t.open {
		if age := now.Sub(y.since); !all && age >= 0 && age < auditWindow {
			continue
		}
		if y.count > 0 {
			batch = append(batch, entryOf(e, y.last, y.request, y.count))
			y.since, y.count = now, 0
			continue
		}
		delete(t.open, e)
		if y.others {
			continue
		}
		if t.each[y.room]--; t.each[y.room] == 0 {
			delete(t.each, y.room)
		}
	}
	slices.SortStableFunc(batch, func(a, b AuditEntry) int { return a.Time.Compare(b.Time) })
	return batch
}

// write writes what is to be written; what the catalog does not take waits.
func (t *trail) write(ctx context.Context, all bool) {
	t.writing.Lock()
	defer t.writing.Unlock()
	batch := t.take(all)
	if len(batch) == 0 {
		return
	}
	err := t.catalog.AppendAudit(ctx, batch, t.keep)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.written += uint64(len(batch))
		t.failing = false
		return
	}
	if !t.failing { // once, and no name in it
		t.log.Error("the audit trail cannot be written: its entries wait", "error", err)
	}
	t.failing = true
	t.putBack(batch)
}

// putBack keeps batch for the next time, as far as there is room; the rest is
// counted by rule.
func (t *trail) putBack(batch []AuditEntry) {
	room := max(mostWaiting-len(t.fresh), 0)
	kept := batch[:min(room, len(batch))]
	for _, e := range batch[len(kept):] {
		y := t.others(Event{Rule: e.Rule, Outcome: e.Outcome}, e.Time)
		y.count += e.Count
		y.last, y.request = e.Time, e.Request
		t.counted++
	}
	t.fresh = append(slices.Clone(kept), t.fresh...)
}

// run writes until close.
func (t *trail) run(ctx context.Context) {
	defer close(t.closed)
	tick := time.NewTicker(auditDelay)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.writeWithin(ctx, auditWrite, false)
		case <-t.closing:
			t.writeWithin(ctx, auditClose, true)
			return
		}
	}
}

func (t *trail) writeWithin(ctx context.Context, most time.Duration, all bool) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	t.write(ctx, all)
}

// close writes what there is and ends run.
func (t *trail) close() {
	close(t.closing)
	<-t.closed
}

// Note enters an event into the audit trail. It never waits: the entry is written
// within seconds, and lost if the process is killed before that.
func (r *Registry) Note(e Event) {
	if r.trail != nil {
		r.trail.note(e)
	}
}

// Audit returns the audit trail as of now, newest first: at most limit entries
// with an id below before (0: from the newest), and the before of the next page, 0
// at the end. Who may read it policy.ReadAudit says.
func (r *Registry) Audit(ctx context.Context, before int64, limit int) (entries []AuditEntry, next int64, err error) {
	return r.AuditOf(ctx, "", before, limit)
}

// AuditOf is Audit of the entries with a rule alone, all where that is "".
func (r *Registry) AuditOf(ctx context.Context, rule string, before int64, limit int) (entries []AuditEntry, next int64, err error) {
	if before <= 0 {
		before = math.MaxInt64
		r.trail.writeWithin(ctx, auditWrite, false)
	}
	if rule == "" {
		entries, err = r.Catalog.Audit(ctx, before, limit+1)
	} else {
		entries, err = r.Catalog.AuditOf(ctx, rule, before, limit+1)
	}
	if err != nil {
		return nil, 0, err
	}
	if len(entries) > limit {
		entries = entries[:limit]
		next = entries[limit-1].ID
	}
	return entries, next, nil
}

// AuditFigures are counts since the start, and levels of this moment.
type AuditFigures struct {
	// Denied are the denials by rule: at most 64 rules, all of this program's own.
	Denied map[string]uint64
	// Written are entries in the catalog, Counted the events that had no room for an
	// entry of their own. Waiting entries are not written yet, of at most WaitingMost.
	Written, Counted     uint64
	Waiting, WaitingMost int
}

func (t *trail) figures() AuditFigures {
	t.mu.Lock()
	defer t.mu.Unlock()
	return AuditFigures{Denied: maps.Clone(t.denied), Written: t.written, Counted: t.counted, Waiting: len(t.fresh), WaitingMost: mostWaiting}
}

// Bearer says for whom a session was minted here, also one that is not good any
// more; "" for what is no session of this registry.
func (r *Registry) Bearer(token string) did.DID {
	t, err := r.verifiedSession(token)
	if err != nil {
		return ""
	}
	return t.Claims.Subject
}

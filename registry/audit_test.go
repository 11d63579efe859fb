package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// trailLab is an audit trail over a real catalog, with a clock of its own, that
// writes only when it is told to.
type trailLab struct {
	*trail
	t    *testing.T
	at   atomic.Int64
	db   *catalog.DB
	file string
	log  *strings.Builder
}

func newTrailLab(t *testing.T, keep int64) *trailLab {
	t.Helper()
	l := &trailLab{t: t, file: filepath.Join(t.TempDir(), "catalog.db"), log: new(strings.Builder)}
	l.at.Store(1_900_000_000)
	l.open(keep)
	return l
}

func (l *trailLab) open(keep int64) {
	db, err := catalog.OpenSQLite(context.Background(), l.file)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { db.Close() })
	l.db = db
	l.trail = newTrail(Config{Catalog: db, AuditEntries: keep, Log: slog.New(slog.NewTextHandler(l.log, nil)), Clock: func() time.Time { return time.Unix(l.at.Load(), 0) }})
}

func (l *trailLab) pass(d time.Duration) { l.at.Add(int64(d / time.Second)) }

// told are the entries of the catalog, the oldest first.
func (l *trailLab) told() []AuditEntry {
	l.t.Helper()
	entries, err := l.db.Audit(context.Background(), math.MaxInt64, 1<<20)
	if err != nil {
		l.t.Fatal(err)
	}
	slices.Reverse(entries)
	return entries
}

func denial(asker, what string) Event {
	return Event{Asker: did.DID(asker), What: what, Rule: "quarantine", RuleID: "blake3", Outcome: OutcomeDenied, Request: "r-" + what}
}

func TestAnEventIsToldAsItHappened(t *testing.T) {
	l := newTrailLab(t, 0)
	l.note(denial("did:key:one", "crate/a@1.0.0"))
	l.pass(time.Second)
	l.note(Event{Asker: "did:key:two", What: "grant grant/x", Rule: "record", RuleID: "ab", Outcome: OutcomeAccepted, Request: "r2"})
	l.write(context.Background(), false)
	want := []AuditEntry{
		{ID: 1, Time: time.Unix(1_900_000_000, 0).UTC(), Asker: "did:key:one", What: "crate/a@1.0.0", Rule: "quarantine", RuleID: "blake3", Outcome: "denied", Request: "r-crate/a@1.0.0", Count: 1},
		{ID: 2, Time: time.Unix(1_900_000_001, 0).UTC(), Asker: "did:key:two", What: "grant grant/x", Rule: "record", RuleID: "ab", Outcome: "accepted", Request: "r2", Count: 1},
	}
	if got := l.told(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	l.write(context.Background(), true)
	if got := l.told(); len(got) != 2 {
		t.Errorf("told twice: %+v", got)
	}
}

func TestAFloodOfEqualDenialsIsOneEntryAMinute(t *testing.T) {
	l := newTrailLab(t, 0)
	const perSecond, minutes = 50, 5
	for range minutes * 60 {
		for range perSecond {
			l.note(denial("did:key:one", "crate/a@1.0.0"))
		}
		l.write(context.Background(), false)
		l.pass(time.Second)
	}
	l.write(context.Background(), true)
	entries, sum := l.told(), int64(0)
	for _, e := range entries {
		sum += e.Count
	}
	if len(entries) > minutes+1 || sum != minutes*60*perSecond {
		t.Errorf("%d entries that count %d", len(entries), sum)
	}
	if first, second := entries[0], entries[1]; first.Count != 1 || second.Time.Sub(first.Time) > 61*time.Second {
		t.Errorf("the first two: %+v, %+v", first, second)
	}
	if l.figures().Denied["quarantine"] != minutes*60*perSecond {
		t.Errorf("figures: %+v", l.figures())
	}
	l.pass(2 * time.Minute)
	l.write(context.Background(), false)
	l.write(context.Background(), false)
	if len(l.openNow()) != 0 || len(l.each) != 0 {
		t.Errorf("what is over is remembered: %d, %d", len(l.openNow()), len(l.each))
	}
}

func (l *trailLab) openNow() map[Event]*tally { return l.trail.open }

// Nobody fills the trail, or memory, with events that differ, whoever they say they are.
func TestAFloodOfDifferentEventsIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		event func(n int) Event
		most  int
	}{
		"one member": {func(n int) Event { return denial("did:key:one", fmt.Sprint("crate/a@0.0.", n)) }, mostOpenEach + 1},
		"strangers": {func(n int) Event {
			e := denial(fmt.Sprint("did:key:stranger-", n), "session")
			e.Stranger = true
			return e
		}, mostOpenEach + 1},
		"many members": {func(n int) Event { return denial(fmt.Sprint("did:key:m", n%1000), fmt.Sprint("crate/a@0.0.", n)) }, mostOpen + 1001},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTrailLab(t, 0)
			const events = 50_000
			for n := range events {
				l.note(c.event(n))
			}
			l.write(context.Background(), true)
			entries, sum := l.told(), int64(0)
			for _, e := range entries {
				if sum += e.Count; e.Count > 1 && e.What != auditOthers {
					t.Errorf("%+v", e)
				}
			}
			if len(entries) > c.most || sum != events {
				t.Errorf("%d entries that count %d", len(entries), sum)
			}
			if f := l.figures(); f.Counted == 0 || f.Denied["quarantine"] != events {
				t.Errorf("figures: %+v", f)
			}
		})
	}
}

// A member who floods takes no room from others.
func TestAFloodDoesNotHideOthers(t *testing.T) {
	l := newTrailLab(t, 0)
	for n := range 10_000 {
		l.note(denial("did:key:loud", fmt.Sprint("crate/a@0.0.", n)))
	}
	l.note(denial("did:key:quiet", "crate/b@1.0.0"))
	l.write(context.Background(), false)
	if !slices.ContainsFunc(l.told(), func(e AuditEntry) bool { return e.Asker == "did:key:quiet" && e.What == "crate/b@1.0.0" }) {
		t.Error("the quiet one's denial is not told")
	}
}

func TestTheTrailIsTrimmed(t *testing.T) {
	l := newTrailLab(t, 10)
	for n := range 35 {
		l.note(denial(fmt.Sprint("did:key:", n), "crate/a@1.0.0"))
		if n%5 == 0 {
			l.write(context.Background(), false)
		}
	}
	l.write(context.Background(), true)
	got := l.told()
	if len(got) != 10 || got[0].ID != 26 || got[9].Asker != "did:key:34" {
		t.Errorf("%d entries, from %+v on", len(got), got[0])
	}
}

// While the catalog takes nothing, entries wait, in a room that ends; then all is
// there, in its order, and the log has said once that something is wrong.
func TestEntriesWaitForACatalogThatTakesNone(t *testing.T) {
	l := newTrailLab(t, 0)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	const events = 3 * mostWaiting
	for n := range events {
		l.note(denial(fmt.Sprint("did:key:", n), "crate/secret@1.0.0"))
		if n%1000 == 0 {
			l.write(gone, false)
			l.pass(2 * time.Minute)
		}
	}
	l.write(gone, false)
	if f := l.figures(); f.Waiting > f.WaitingMost || len(l.openNow()) > mostOpen+mostDeniedRules {
		t.Errorf("%d wait, of %d; %d open", f.Waiting, f.WaitingMost, len(l.openNow()))
	}
	l.write(context.Background(), true)
	sum, last := int64(0), time.Time{}
	for _, e := range l.told() {
		sum += e.Count
		if e.Time.Before(last) {
			t.Errorf("%+v stands after %s", e, last)
		}
		last = e.Time
	}
	if sum != events {
		t.Errorf("%d of %d are told", sum, events)
	}
	if logged := l.log.String(); strings.Count(logged, "audit trail") != 1 || strings.Contains(logged, "secret") || strings.Contains(logged, "did:") {
		t.Errorf("the log says\n%s", logged)
	}
}

// Whoever notes waits for nobody, and whoever closes finds everything written; a
// restart keeps it, and goes on with the ids.
func TestATrailIsWrittenAtShutdownAndKept(t *testing.T) {
	l := newTrailLab(t, 0)
	go l.run(context.Background())
	var all sync.WaitGroup
	for who := range 8 {
		all.Go(func() {
			for n := range 20 {
				l.note(denial(fmt.Sprint("did:key:", who), fmt.Sprint("crate/a@0.0.", n)))
			}
		})
	}
	all.Wait()
	l.close()
	if got := l.told(); len(got) != 160 {
		t.Errorf("%d entries", len(got))
	}
	l.db.Close()
	l.open(0)
	l.note(denial("did:key:later", "crate/b@1.0.0"))
	l.write(context.Background(), false)
	if got := l.told(); len(got) != 161 || got[160].ID != 161 || got[160].Asker != "did:key:later" {
		t.Errorf("after a restart: %d entries", len(got))
	}
}

func TestWhatIsADenial(t *testing.T) {
	asker := policy.Asker{DID: "did:key:one", GrantNamed: "bafkgrant"}
	deny := func(rule policy.Rule) error { return &policy.Denial{Rule: rule, Reason: "no"} }
	for name, c := range map[string]struct {
		err        error
		told       bool
		rule, what string
	}{
		"no error":                     {nil, false, "", ""},
		"another error":                {ErrNotFound, false, "", ""},
		"nobody is asked who they are": {deny(policy.RuleAnonymous), false, "", ""},
		"a session that is over":       {fmt.Errorf("%w: %w", ErrUnauthenticated, deny(policy.RuleLifetime)), false, "", ""},
		"a scope":                      {deny(policy.RuleScope), true, "scope", "GET /x"},
		"a grant":                      {fmt.Errorf("so: %w", deny(policy.RuleGrant)), true, "grant", "GET /x"},
		"something hidden":             {&Hidden{What: "crate/a", Decision: policy.Decision{Rule: policy.RuleAllowed, RuleID: "g"}, err: ErrNotFound}, true, "allowed-crates", "crate/a"},
		"bytes":                        {&Denied{Decision: policy.Decision{Rule: policy.RuleQuarantine, RuleID: "r"}}, true, "quarantine", "/@"},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := DenialOf(c.err, asker, "GET /x", "1")
			if ok != c.told || e.Rule != c.rule || e.What != c.what {
				t.Errorf("%t %+v", ok, e)
			}
			if c.rule == "grant" && e.RuleID != "bafkgrant" {
				t.Errorf("the grant is %q", e.RuleID)
			}
			if h := new(Hidden); errors.As(c.err, &h) && (!errors.Is(c.err, ErrNotFound) || c.err.Error() != ErrNotFound.Error()) {
				t.Errorf("who may not know is told %q", c.err)
			}
		})
	}
}

// Who floods the trail with denials cannot act unseen behind them.
func TestAFloodDoesNotHideTheActsOfWhoFloods(t *testing.T) {
	l := newTrailLab(t, 0)
	act := Event{Asker: "did:key:loud", What: "release rule/blake3", Rule: "record", RuleID: "ab", Outcome: OutcomeAccepted}
	refused := act
	refused.What, refused.Outcome = "grant grant/x", OutcomeRefused
	for n := range 10_000 {
		l.note(denial("did:key:loud", fmt.Sprint("crate/a@0.0.", n)))
		l.note(Event{Asker: "did:key:loud", What: fmt.Sprint("quarantine rule/", n), Rule: "not_entitled", Outcome: OutcomeRefused})
	}
	l.note(act)
	l.write(context.Background(), false)
	if !slices.ContainsFunc(l.told(), func(e AuditEntry) bool { return e.What == act.What && e.RuleID == act.RuleID }) {
		t.Error("the act is not told")
	}
}

package registry

import (
	"context"
	"errors"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// A batch of which nobody knows whether it was committed is looked for under the head's
// lock: what is there gets its receipt, what is not is entered, and what is refused is
// refused for what others did, not for what it did itself.
func TestABatchInDoubtIsLookedFor(t *testing.T) {
	r, adminKey := openTest(t)
	ctx, admin := context.Background(), person{adminKey}
	joining := func(p person) *submission {
		rec := admin.sign(t, r, record.MemberSubject(p.did()), &record.Member{Roles: []string{"publisher"}, Tier: "guest", StakeholderAddrs: []string{}}, nil)
		return &submission{record: rec, attachments: state.Attachments{}, result: make(chan outcome, 1)}
	}
	twice := newPerson(t)
	there, absent, stale := joining(newPerson(t)), joining(newPerson(t)), joining(twice)
	admit(t, r, admin, twice, "reviewer")
	commit := func(doubt bool, waiting ...*submission) {
		t.Helper()
		if err := r.Catalog.Update(ctx, func(tx *catalog.Tx) error { return r.applyBatch(ctx, tx, waiting, doubt) }); err != nil {
			t.Fatal(err)
		}
	}
	commit(false, there) // and the answer is lost
	want := there.receipt
	for _, alone := range []bool{false, true} {
		b := batch{[]*submission{there, absent, stale}, time.Now()}
		commit(true, b.submissions...)
		if there.receipt != want || there.refusal != nil || !there.found {
			t.Errorf("alone %t: what is there is %+v, %v", alone, there.receipt, there.refusal)
		}
		if absent.receipt.Index != want.Index+1 || absent.refusal != nil || absent.found != alone {
			t.Errorf("alone %t: what was not there is %+v, %v, found %t", alone, absent.receipt, absent.refusal, absent.found)
		}
		if !errors.Is(stale.refusal, state.ErrStale) {
			t.Errorf("alone %t: what is stale is %+v, %v", alone, stale.receipt, stale.refusal)
		}
	}
	// What was found is published and acknowledged like all else, and seen.
	if err := r.publish(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*submission{there, absent} {
		if m, ok, err := cachedState(ctx, r, state.MemberKey(s.record.Subject().Member()), state.DecodeMember); err != nil || !ok || !m.Active() {
			t.Errorf("%s is no member: %v", s.record.Subject(), err)
		}
	}
}

// Judged anew without a look, a record would be refused for repeating itself: that is why
// there is one.
func TestARecordEnteredTwiceWouldBeRefused(t *testing.T) {
	r, adminKey := openTest(t)
	ctx, admin := context.Background(), person{adminKey}
	rec := admin.sign(t, r, record.MemberSubject(newPerson(t).did()), &record.Member{Roles: []string{"publisher"}, Tier: "guest", StakeholderAddrs: []string{}}, nil)
	s := &submission{record: rec, attachments: state.Attachments{}}
	for i, want := range []error{nil, state.ErrStale} {
		err := r.Catalog.Update(ctx, func(tx *catalog.Tx) error { return r.applyBatch(ctx, tx, []*submission{s}, false) })
		if err != nil || !errors.Is(s.refusal, want) {
			t.Errorf("time %d: %v, %v", i, err, s.refusal)
		}
	}
}

// What others entered is taken out of memory by what the catalog says that it changed, and
// no more; what this process does not know of is not taken for nothing.
func TestChangesOfOthersAreThoseOfTheCatalog(t *testing.T) {
	r, adminKey := openTest(t)
	ctx, admin, p := context.Background(), person{adminKey}, newPerson(t)
	from := r.Size()
	admit(t, r, admin, p, "publisher")
	r.showing.Lock()
	defer r.showing.Unlock()
	c := r.changedBetween(ctx, from, r.Size()) // of which it has forgotten that they are its own
	if !c.known || !c.authority {
		t.Errorf("%+v", c)
	}
	keys := map[string]bool{}
	for _, thing := range c.things {
		keys[thing.name] = true
	}
	if !keys[state.MemberKey(p.did())] || keys[state.MemberKey(admin.did())] || keys[state.SettingsKey()] {
		t.Errorf("the changed things are %v", keys)
	}
	if c := r.changedBetween(ctx, 0, 1_000_000); !c.known {
		t.Errorf("all there is: %+v", c)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if c := r.changedBetween(ended, from, r.Size()); c.known || !c.authority {
		t.Errorf("what cannot be asked for is taken for %+v", c)
	}
}

func TestWhatIsOfOneArtifactBindsNobodyElse(t *testing.T) {
	for key, want := range map[string]bool{
		state.VersionPrefix(record.KindCrate, "demo") + "1.0.0": true,
		state.ArtifactPrefix(record.KindALNShard) + "demo":      true,
		state.HeadKey("crate/demo"):                             true,
		state.HeadKey("registry"):                               false,
		state.HeadKey("member/did:key:z"):                       false,
		state.SettingsKey():                                     false,
		state.MemberKey("did:key:z"):                            false,
		state.RuleKey("left-pad"):                               false,
		state.HostKey("did:key:z"):                              false,
	} {
		if got := isOfArtifact(key); got != want {
			t.Errorf("%s: %t", key, got)
		}
	}
}

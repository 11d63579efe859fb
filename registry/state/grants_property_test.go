package state

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// TestRandomGrantsAndRules applies random records of grantors, reviewers, admins and
// who is none of these. Of every step: a grant that was superseded or revoked stays
// so and is never judged by itself again; a host's grants are the heads of its
// chains; a rule that denies ends only by as many distinct votes of who holds the
// role then as the settings ask for, the proposer's not among them; and nothing
// but its end makes it deny less. The log alone gives the same state.
func TestRandomGrantsAndRules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		staffed(w)
		w.must(alice, "registry", settings(func(r *record.Registry) { r.ReleaseK = rapid.IntRange(1, 2).Draw(rt, "k") }))
		w.must(rita, leftPad, quarantine())
		r := &randomWorld{world: w, grants: map[storage.CID]Grant{}, rules: map[string]Rule{}}
		for range rapid.IntRange(1, 18).Draw(rt, "steps") {
			r.checkRules(rt) // as they are before
			r.step(rt)
			r.checkGrants(rt)
			r.checkRules(rt)
		}
		w.checkReplay()
	})
}

type randomWorld struct {
	*world
	ids []storage.CID
	// grants and rules are as they were after the step before.
	grants map[storage.CID]Grant
	rules  map[string]Rule
}

// step is mostly by who may do it, so that most logs get somewhere.
func (r *randomWorld) step(rt *rapid.T) {
	if rapid.IntRange(0, 9).Draw(rt, "wait") == 0 {
		r.now = r.now.Add(time.Hour)
	}
	who := []actor{alice, gina, gus, rita, rolf, rosa, pat, mallory, wanda}[rapid.IntRange(0, 8).Draw(rt, "who")]
	text, body := r.body(rt, &who)
	var edits []func(*attempt)
	switch rapid.IntRange(0, 29).Draw(rt, "wrong") {
	case 0:
		edits = append(edits, by(r.anyID(rt)))
	case 1:
		edits = append(edits, prev(r.anyID(rt)))
	case 2:
		edits = append(edits, by(r.settings().Record))
	}
	if err := r.try(who, text, body, edits...); err == nil && slices.Contains(dids(mallory, pat, wanda), who.id()) {
		rt.Fatalf("a record of who holds no role was applied: %s", r.last.Envelope())
	}
}

// entitled puts one of those in the place of who, mostly.
func entitled(rt *rapid.T, who *actor, those ...actor) {
	if i := rapid.IntRange(0, len(those)).Draw(rt, "entitled"); i < len(those) {
		*who = those[i]
	}
}

func (r *randomWorld) body(rt *rapid.T, who *actor) (string, record.Body) {
	rule := []string{leftPad, leftPad, blake3}[rapid.IntRange(0, 2).Draw(rt, "rule")]
	what := rapid.IntRange(0, 11).Draw(rt, "type")
	switch {
	case what < 4:
		entitled(rt, who, gina, gus, alice)
		return grantText(r.randomGrant(rt, *who)), &record.Grant{}
	case what == 4 && len(r.ids) > 0:
		entitled(rt, who, gina, gus, alice)
		return grantText(r.oneID(rt)), &record.Revoke{}
	case what == 5:
		a := []actor{gina, rolf, rosa}[rapid.IntRange(0, 2).Draw(rt, "member")]
		*who = alice
		return member(a), roles([]string{RoleGrantor, RoleReviewer, RoleReviewer, RoleAuditor}[rapid.IntRange(0, 3).Draw(rt, "role")])
	}
	entitled(rt, who, rita, rolf, rosa, alice)
	if what == 6 {
		says := []*record.Quarantine{
			quarantine(), quarantine(reason("another")), quarantine(mode(particle.ModeDryRun)), quarantine(expiring(r.now.Add(time.Minute))), quarantine(waiving),
		}
		return rule, says[rapid.IntRange(0, len(says)-1).Draw(rt, "says")]
	}
	held := r.rule(rule)
	if held.Proposal == "" {
		return rule, &record.Release{}
	}
	vote := approve(held.Proposal)
	switch rapid.IntRange(0, 9).Draw(rt, "vote") {
	case 0:
		vote.Verdict = record.VerdictReject
	case 1:
		vote.Record = r.anyID(rt)
	}
	return rule, vote
}

func (r *randomWorld) oneID(rt *rapid.T) storage.CID {
	return r.ids[rapid.IntRange(0, len(r.ids)-1).Draw(rt, "id")]
}

// randomGrant is one that there was, or a new one, superseding another mostly.
func (r *randomWorld) randomGrant(rt *rapid.T, issuer actor) storage.CID {
	if len(r.ids) > 0 && rapid.IntRange(0, 7).Draw(rt, "again") == 0 {
		return r.oneID(rt)
	}
	edits := []func(*particle.EnvGrant){lasting([]time.Duration{time.Minute, 24 * time.Hour}[rapid.IntRange(0, 1).Draw(rt, "lasting")]), memory(r.next)}
	subject := []actor{pat, pat, pat, gina}[rapid.IntRange(0, 3).Draw(rt, "subject")]
	if len(r.ids) > 0 && rapid.IntRange(0, 2).Draw(rt, "supersedes") > 0 {
		edits = append(edits, superseding(r.oneID(rt)))
	}
	id := r.envGrant(issuer, subject, edits...)
	r.ids = append(r.ids, id)
	return id
}

func (r *randomWorld) checkGrants(rt *rapid.T) {
	for key, value := range r.store {
		if strings.HasPrefix(key, HostKey("")) {
			h, err := DecodeHost(value)
			if err != nil {
				rt.Fatal(err)
			}
			chains := map[storage.CID]bool{}
			for _, head := range h.Grants {
				if !reflect.DeepEqual(head, r.grant(head.CID)) || head.SupersededBy != nil || chains[head.Chain] || head.Subject != h.DID {
					rt.Fatalf("%s: %+v, the grant is %+v", key, head, r.grant(head.CID))
				}
				chains[head.Chain] = true
			}
		}
		if !strings.HasPrefix(key, GrantPrefix()) {
			continue
		}
		now, err := DecodeGrant(value)
		if err != nil || key != GrantKey(now.CID) {
			rt.Fatalf("%s: %+v, %v", key, now, err)
		}
		before, known := r.grants[now.CID]
		if known && (before.Revoked != "" && now.Revoked != before.Revoked || before.SupersededBy != nil && now.SupersededBy == nil ||
			before.Revoked != "" && before.SupersededBy == nil && now.SupersededBy != nil || before.Record != now.Record) {
			rt.Fatalf("%+v became %+v", before, now)
		}
		head, ok := r.hostOf(rt, now.Subject).Head(now)
		switch {
		case ok && now.SupersededBy != nil && head.CID == now.CID:
			rt.Fatalf("a superseded grant is judged by itself: %+v", now)
		case ok && now.SupersededBy == nil && !reflect.DeepEqual(head, now):
			rt.Fatalf("the head %+v is judged by %+v", now, head)
		case !ok && now.SupersededBy == nil && !now.Over(r.now):
			rt.Fatalf("what is not over is nobody's: %+v", now)
		}
		r.grants[now.CID] = now
	}
}

func (r *randomWorld) hostOf(rt *rapid.T, d did.DID) Host {
	h, _, err := HostOf(r.store, d)
	if err != nil {
		rt.Fatal(err)
	}
	return h
}

func (r *randomWorld) checkRules(rt *rapid.T) {
	applied := r.log[len(r.log)-1]
	for _, text := range []string{leftPad, blake3} {
		now := r.rule(text)
		before, known := r.rules[text]
		r.rules[text] = now
		if !known || !before.InForce(applied.entry.Time) {
			continue
		}
		switch {
		case now.Ended != "":
			r.checkEnded(rt, text, applied)
		case weakens(before.Rule, now.Rule) != "":
			rt.Fatalf("%+v became %+v", before, now)
		}
	}
}

// checkEnded counts the votes on the release that the last entry executed, by the
// log and not by what the state keeps of them.
func (r *randomWorld) checkEnded(rt *rapid.T, text string, last logged) {
	vote, ok := last.record.Body().(*record.Approve)
	if !ok || vote.Verdict != record.VerdictApprove {
		rt.Fatalf("%s was ended by a %s record", text, last.record.Type())
	}
	var proposer did.DID
	voters := map[did.DID]bool{}
	for _, l := range r.log {
		signer := l.record.Header().Signer.DID
		if l.record.ID() == vote.Record {
			if l.record.Type() != record.TypeRelease || l.record.Subject().String() != text {
				rt.Fatalf("%s was ended by votes on a %s record about %s", text, l.record.Type(), l.record.Subject())
			}
			proposer = signer
		}
		if body, is := l.record.Body().(*record.Approve); is && body.Record == vote.Record {
			if body.Verdict == record.VerdictReject {
				rt.Fatal("a rejected release was executed")
			}
			voters[signer] = true
		}
	}
	count := 0
	for d := range voters {
		if slices.Contains(r.settings().Admins, d) || r.member(d).Has(RoleReviewer) {
			count++
		}
	}
	if voters[proposer] || count < r.settings().ReleaseK {
		rt.Fatalf("%s ended by %v, proposed by %s, with a release_k of %d", text, voters, proposer, r.settings().ReleaseK)
	}
}

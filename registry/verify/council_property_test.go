package verify

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// plot is a random story of a council: admins who decide together, deputies among
// them whose keys a thief steals, and whom the thief's votes make admins. The test
// knows who held the pen; a verifier only what the log says. All settings keep the
// core (admin, ann, bob, who keep their keys) among the admins, however careless
// with their votes, so that they can always do what the settings in force ask.
type plot struct {
	*chamber
	rt       *rapid.T
	core     []*person
	deputies []*person
	puppet   *person
	bills    []*bill
	// stolen holds, by deputy, the index from which on its signatures are a thief's.
	stolen map[did.DID]int64
	// honest are, by bill, those who signed it and count.
	honest map[*bill][]did.DID
	// believed is the model: the last settings enacted by enough who count.
	believed *record.Registry
	lawful   bool // the settings in force are those
	expected map[string]bool
	asked    []Want
}

func newPlot(t *testing.T, rt *rapid.T) *plot {
	p := &plot{chamber: newChamber(t), rt: rt, stolen: map[did.DID]int64{}, honest: map[*bill][]did.DID{}, expected: map[string]bool{}, lawful: true}
	p.core = []*person{p.admin, p.ann, p.bob}
	p.deputies = []*person{p.deputy("one.example"), p.deputy("two.example")}
	p.puppet = p.person()
	p.admits(p.admin, p.puppet)
	p.believed = p.body
	p.proposes(p.admin, p.rule(rapid.IntRange(1, 3).Draw(rt, "first threshold"), append(p.core, p.deputies...)...))
	return p
}

func (p *plot) everybody() []*person {
	return append(append(slices.Clone(p.core), p.deputies...), p.puppet)
}

func (p *plot) admins() []*person {
	return slices.DeleteFunc(p.everybody(), func(who *person) bool { return !slices.Contains(p.body.Admins, who.did()) })
}

// counts reports whether what who does now is to be believed of an admin.
func (p *plot) counts(who *person) bool {
	_, stolen := p.stolen[who.did()]
	return !stolen && slices.Contains(p.believed.Admins, who.did())
}

func (p *plot) proposes(who *person, body *record.Registry) *bill {
	counts := p.counts(who)
	b := p.propose(who, body)
	p.bills = append(p.bills, b)
	p.signs(b, who, counts)
	return b
}

func (p *plot) votes(who *person, b *bill) {
	counts := p.counts(who)
	p.approve(who, b)
	p.signs(b, who, counts)
}

// signs enters a signature that is logged, and what it enacts.
func (p *plot) signs(b *bill, who *person, counts bool) {
	if counts {
		p.honest[b] = append(p.honest[b], who.did())
	}
	if p.inForce != b.record {
		return
	}
	proposer := b.voters[0]
	if p.lawful = slices.Contains(p.honest[b], proposer) && len(p.honest[b]) >= p.believed.AdminThreshold; p.lawful {
		p.believed = b.body
	}
}

func (p *plot) admitsSomebody(who *person) {
	counts := p.counts(who)
	want := p.newcomer(who)
	p.asked, p.expected[want.Subject.String()] = append(p.asked, want), counts
}

// endsRule lets one make and propose to end a rule, the other approve that if there is another.
func (p *plot) endsRule(one, other *person) {
	subject := p.lab.rule("r" + strconv.FormatInt(p.next(), 10))
	made := p.log(one, subject, quarantineOf("pad"), cite{by: p.inForce})
	release := p.log(one, subject, &record.Release{}, cite{prev: made, by: p.inForce})
	if one != other {
		p.log(other, subject, approving(release), cite{prev: release, by: p.inForce})
	}
}

func (p *plot) steals(who *person) {
	if _, already := p.stolen[who.did()]; !already {
		p.stolen[who.did()] = p.next()
	}
}

// takes lets the thief put a key of its own into a deputy's document, and disown all before.
func (p *plot) takes(by, who *person) {
	since := int64(-1)
	if rapid.Bool().Draw(p.rt, "disowning") {
		since = rapid.SampledFrom([]int64{0, 0, p.next() / 2, p.next()}).Draw(p.rt, "since")
	}
	p.steals(who)
	p.enters(by, who, since)
}

func (p *plot) step() {
	who := oneOf(p.rt, p.admins(), "who")
	outside := p.outside(who)
	deputy := oneOf(p.rt, p.deputies, "deputy")
	open := slices.DeleteFunc(slices.Clone(p.bills), func(b *bill) bool {
		return b.base != p.inForce || b.record == p.inForce || slices.Contains(b.voters, who.did())
	})
	switch what := rapid.IntRange(0, 12).Draw(p.rt, "what"); {
	case what < 5 && len(open) > 0:
		p.votes(who, oneOf(p.rt, open, "bill"))
	case what < 5:
		admins := slices.Clone(p.core)
		for _, other := range append(slices.Clone(p.deputies), p.puppet) {
			if rapid.Bool().Draw(p.rt, "another") {
				admins = append(admins, other)
			}
		}
		p.proposes(who, p.rule(rapid.IntRange(1, 3).Draw(p.rt, "threshold"), admins...))
	case what < 7:
		p.admitsSomebody(outside)
	case what == 7:
		p.steals(deputy)
	case what < 10 && !p.counts(outside): // by a stolen key, or by one who is no admin in truth
		p.takes(outside, deputy)
	case what == 10:
		p.enters(deputy, deputy, -1) // rotated, in whosever hands it is
	case what == 11 && len(p.stolen) > 0 && p.lawful:
		p.tells()
	case what == 12: // the end of a rule is no business of the council's
		p.endsRule(who, outside)
	}
}

// outside is an admin who is not of the core, if there is one: of the core all is believed.
func (p *plot) outside(otherwise *person) *person {
	others := slices.DeleteFunc(p.admins(), func(who *person) bool { return slices.Contains(p.core, who) })
	if len(others) == 0 {
		return otherwise
	}
	return oneOf(p.rt, others, "outside")
}

// oneOf draws an index, so that a failure prints that instead of documents.
func oneOf[T any](rt *rapid.T, list []T, label string) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(rt, label)]
}

// tells has an admin of the core enter whose keys were stolen, and from when on.
func (p *plot) tells() {
	for _, d := range p.deputies {
		if since, stolen := p.stolen[d.did()]; stolen {
			p.enters(p.admin, d, since)
			delete(p.stolen, d.did())
		}
	}
}

// judge holds a verifier to the model.
func (p *plot) judge() {
	p.rt.Helper()
	trail := readTrail(p.items, p.origin.did())
	trail.judge() // once for all, where Artifact would judge for each
	for _, want := range p.asked {
		l, err := trail.find(want.Subject)
		if err != nil {
			p.rt.Fatal(err)
		}
		err = firstError(trail.restsOn(l), func(l *line) error { return errors.Join(l.signature, l.authority) })
		if (err == nil) != p.expected[want.Subject.String()] {
			p.rt.Fatalf("%s: believed %v, want %v: %v", want.Subject, err == nil, err != nil, err)
		}
	}
}

// recovers has the core put settings in force that are believed, in at most two steps.
func (p *plot) recovers() {
	p.rt.Helper()
	for range 2 {
		b := p.proposes(p.core[0], p.rule(3, append(slices.Clone(p.core), p.deputies...)...))
		for _, who := range p.core[1:] {
			if p.inForce != b.record {
				p.votes(who, b)
			}
		}
	}
	if !p.lawful {
		p.rt.Fatal("three admins of the settings believed put none in force that are")
	}
}

// Whatever thieves do with the keys of some: once it is told whose were stolen,
// nothing is believed but what enough admins with keys of their own signed, and
// these can always go on.
func TestCouncilsWithStolenKeys(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := newPlot(t, rt)
		for range rapid.IntRange(3, 16).Draw(rt, "steps") {
			p.step()
		}
		p.tells()
		p.recovers()
		for _, who := range append(slices.Clone(p.core), p.deputies...) {
			p.admitsSomebody(who)
			if want := p.asked[len(p.asked)-1]; !p.expected[want.Subject.String()] {
				rt.Fatalf("%s is no admin again", who.did())
			}
		}
		p.judge() // what was admitted before the council went on, too
		if r, err := p.replay(); err != nil || r.Violated != 0 {
			rt.Fatalf("the log is not in order: %v, %+v", err, r.Violations)
		}
	})
}

//go:build unix

package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// What one replica has acknowledged the other shows within a second, whatever it had in
// memory of it before.
func TestReplicasShowOneAnothersChanges(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	var longest time.Duration
	for i := range 20 {
		u := newUpload(fmt.Sprint("crate", i))
		if g.visible(b.Registry, u) != "" { // and it is remembered that there is none
			t.Fatal("it is there before it is published")
		}
		if _, err := g.publish(a.Registry, u); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		g.shows(b, u, 5*time.Second)
		longest = max(longest, time.Since(begun))
		a, b = b, a
	}
	if longest > time.Second {
		t.Errorf("it took up to %s", longest)
	}
	g.oneLog(nil, a, b)
}

// A replica that is not told of what others publish finds it out.
func TestReplicasFollowWithoutBeingTold(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	b.landing.Store(true) // and so it leaves aside what it is told
	for i := range 3 {
		u := newUpload(fmt.Sprint("crate", i))
		if _, err := g.publish(a.Registry, u); err != nil {
			t.Fatal(err)
		}
		g.shows(b, u, time.Second)
	}
}

// Whoever was answered by one replica is told no less by another: what to sign by, the
// checkpoint, tiles, records, versions.
func TestReplicasBehindOneAddressTellNoLess(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	b.landing.Store(true)
	for i := range 10 {
		u := newUpload(fmt.Sprint("crate", i))
		p, err := g.publish(a.Registry, u)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 5 {
		case 0:
			if heads, err := b.HeadsFor(ctx, policy.Asker{DID: g.admin.Public().DID()}, "crate/"+u.name); err != nil || heads.Prev != p.Record {
				t.Errorf("heads: %+v, %v", heads, err)
			}
		case 1:
			note, err := b.Checkpoint(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if cp, err := b.readCheckpoint(ctx, &b.Catalog.Reader, note); err != nil || cp.Size <= p.Index {
				t.Errorf("the checkpoint: %+v, %v", cp, err)
			}
		case 2:
			if _, err := b.Tile(ctx, fmt.Sprintf("tile/0/000.p/%d", p.Index+1)); err != nil {
				t.Error(err)
			}
		case 3:
			if _, err := b.Record(ctx, person{g.admin}.asker("read"), p.Record); err != nil {
				t.Error(err)
			}
		case 4:
			if _, err := b.Version(ctx, reader, record.KindCrate, u.name, "1.0.0"); err != nil {
				t.Error(err)
			}
		}
	}
}

// Records that are signed by what one replica says are not refused by another that does
// not show it yet.
func TestAReplicaCatchesUpBeforeItRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	b.landing.Store(true)
	a.landing.Store(true)
	u, admin := newUpload("crate"), person{g.admin}
	if _, err := g.publish(a.Registry, u); err != nil {
		t.Fatal(err)
	}
	subject, err := record.VersionSubject(record.KindCrate, u.name, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		rec := admin.sign(t, a.Registry, subject, &record.Yank{Yanked: i%2 == 0}, nil)
		if _, err := b.Submit(ctx, admin.asker("publish"), rec.Envelope(), nil); err != nil {
			t.Errorf("yank %d: %v", i, err)
		}
		a, b = b, a
	}
}

// Acts of authority hold everywhere once they are acknowledged: the very next question to
// another replica is judged by them.
func TestAuthorityHoldsEverywhereOnceAcknowledged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newGroup(t)
	a, b, admin := g.replica("a"), g.replica("b"), person{g.admin}
	u := newUpload("left-pad")
	if _, err := g.publish(a.Registry, u); err != nil {
		t.Fatal(err)
	}
	g.shows(b, u, time.Second)
	for i := range 10 {
		p := newPerson(t)
		g.admit(a, p)
		token := g.session(b, p)
		for _, r := range []*replica{a, b} {
			if _, err := r.Authenticate(ctx, token); err != nil {
				t.Fatalf("round %d, before: %v", i, err)
			}
		}
		if err := g.remove(a, p); err != nil {
			t.Fatal(err)
		}
		if err := refuses(b, token); err != nil {
			t.Errorf("round %d: %v", i, err)
		}

		rule := &record.Quarantine{QuarantineRule: particle.QuarantineRule{
			Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: fmt.Sprint("seen ", i),
			Match: []particle.RuleMatch{{Names: []string{"left-pad"}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
		}}
		rec := admin.sign(t, a.Registry, ruleSubject(t, fmt.Sprint("rule-", i)), rule, nil)
		if _, err := a.Submit(ctx, admin.asker(particle.ScopePublish), rec.Envelope(), nil); err != nil {
			t.Fatal(err)
		}
		if rules, err := b.Rules(ctx); err != nil || !slices.ContainsFunc(rules, func(r state.Rule) bool { return r.ID == fmt.Sprint("rule-", i) }) {
			t.Errorf("round %d: the rule is not there, %v", i, err)
		}
		if v, err := b.Version(ctx, reader, record.KindCrate, u.name, "1.0.0"); err != nil || v.Refusal() == nil {
			t.Errorf("round %d: the rule does not bind: %v", i, err)
		}

		settings := a.Settings().Registry
		settings.MinAgeDays = i + 1
		rec = admin.sign(t, a.Registry, record.RegistrySubject(), &settings, nil)
		if _, err := a.Submit(ctx, admin.asker("admin"), rec.Envelope(), nil); err != nil {
			t.Fatal(err)
		}
		if got := b.Settings().MinAgeDays; got != i+1 {
			t.Errorf("round %d: min_age_days is %d", i, got)
		}
		a, b = b, a
	}
	g.oneLog(nil, a, b)
}

// Replicas under load write one log: no gap, no fork, each receipt right.
func TestReplicasUnderLoadWriteOneLog(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	replicas := []*replica{g.replica("a"), g.replica("b"), g.replica("c")}
	var mu sync.Mutex
	var acknowledged []Receipt
	var all sync.WaitGroup
	for i, r := range replicas {
		for j := range 4 {
			all.Go(func() {
				for _, u := range uploads(fmt.Sprint("crate-", i, "-", j, "-"), 8) {
					p, err := g.publish(r.Registry, u)
					if err != nil {
						t.Errorf("%s: %v", r.Replica, err)
						continue
					}
					if g.visible(r.Registry, u) != p.Record {
						t.Errorf("%s was acknowledged and is not there", u.name)
					}
					mu.Lock()
					acknowledged = append(acknowledged, p.Receipt)
					mu.Unlock()
				}
			})
		}
	}
	all.Go(func() { // and authorities change in between
		for i := range 5 {
			p := newPerson(t)
			g.admit(replicas[i%3], p)
			if err := g.remove(replicas[(i+1)%3], p); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	if len(acknowledged) != 3*4*8 {
		t.Errorf("%d were acknowledged", len(acknowledged))
	}
	g.oneLog(acknowledged, replicas...)
}

// Everybody wants the same version; one gets it, and the others are told so.
func TestOneReplicasPublisherWinsAVersion(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	for i := range 5 {
		u := newUpload(fmt.Sprint("crate", i))
		other := u
		other.crate = newUpload(u.name).crate
		answers, errs := make([]Published, 2), make([]error, 2)
		var both sync.WaitGroup
		for j, r := range []*replica{a, b} {
			both.Go(func() { answers[j], errs[j] = g.publish(r.Registry, u) })
		}
		both.Wait()
		if errs[0] != nil || errs[1] != nil || answers[0].Record != answers[1].Record || answers[0].Repeated == answers[1].Repeated {
			t.Errorf("the same bytes twice: %+v, %v", answers, errs)
		}
	}
	g.oneLog(nil, a, b)
}

// A start while others write finds nothing wrong.
func TestAReplicaStartsWhileOthersWrite(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a := g.replica("a")
	ctx, stop := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	var acknowledged []Receipt
	writing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			p, err := g.publish(a.Registry, newUpload(fmt.Sprint("crate", i)))
			if err != nil {
				t.Error(err)
				return
			}
			acknowledged = append(acknowledged, p.Receipt)
		}
	})
	for i := range 12 {
		r, err := g.openAt(fmt.Sprint("start", i), g.url, nil)
		if err != nil {
			t.Errorf("start %d: %v", i, err)
			continue
		}
		if err := r.Current(); err != nil {
			t.Errorf("start %d: %v", i, err)
		}
		r.Close()
	}
	stop()
	writing.Wait()
	g.oneLog(acknowledged, a)
}

// Who has left is not waited for, and two of one name are two.
func TestReplicasComeAndGo(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("same"), g.replica("same")
	if a.lease.replica == b.lease.replica {
		t.Error("two replicas have one name")
	}
	p := newPerson(t)
	g.admit(a, p)
	b.Close()
	if err := b.Current(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a closed replica answers: %v", err)
	}
	begun := time.Now()
	if err := g.remove(a, p); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("one that has left was waited for: %s", took)
	}
}

// A catalog that others may write wants a name for each of them.
func TestASharedCatalogNeedsANameForTheReplica(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	if _, err := g.openAt("", g.url, nil); err == nil {
		t.Error("a replica without a name was opened")
	}
}

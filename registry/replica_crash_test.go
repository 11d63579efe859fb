//go:build unix

package registry

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// A replica that ends between any two steps of a change, with its answer lost or not,
// leaves nothing undone that it committed: the other, which runs, finishes it, and says no
// less than was acknowledged.
func TestAnotherReplicaFinishesWhatACrashInterrupted(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fault{"killed before": {forGood: true}, "killed after": {done: true, forGood: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGroup(t)
			b := g.replica("survivor")
			var acknowledged []Receipt
			for n, tripped := 0, true; tripped && !t.Failed(); n++ {
				a := g.replica(fmt.Sprint("victim", n))
				all := uploads(fmt.Sprint("crate-", n, "-"), 2)
				a.blobs.arm(n, f)
				answers, errs := g.publishAll(a.Registry, all)
				tripped = a.blobs.disarm()
				a.blobs.arm(0, fault{forGood: true}) // gone for good
				a.db.Close()
				acknowledged = append(acknowledged, receiptsOf(answers, errs)...)
				head, err := b.db.Head(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, 10*time.Second, func() error {
					if b.Size() < head {
						return fmt.Errorf("fault at call %d: %d of %d entries are shown", n, b.Size(), head)
					}
					return nil
				})
				for i, u := range all {
					id := g.visible(b.Registry, u)
					if errs[i] == nil && id != answers[i].Record {
						t.Errorf("%s was acknowledged as %s and is %q", u.name, answers[i].Record, id)
					}
					again, err := g.publish(b.Registry, u)
					if err != nil || id != "" && (!again.Repeated || again.Record != id) {
						t.Errorf("%s (%q), published again: %+v, %v", u.name, id, again, err)
					}
				}
				a.Close()
			}
			g.oneLog(acknowledged, b)
		})
	}
}

// Whatever becomes of the connection over which a commit was sent, each publisher is told
// what is: nobody is refused for what they did themselves, and nothing is entered twice.
func TestReceiptsAreRightWhateverBecomesOfACommit(t *testing.T) {
	t.Parallel()
	for _, harm := range []testbed.Harm{testbed.CutBefore, testbed.CutRequest, testbed.CutResponse} {
		t.Run(harm.String(), func(t *testing.T) {
			t.Parallel()
			g := newGroup(t)
			a, proxy := g.behindProxy("a")
			b := g.replica("b")
			var acknowledged []Receipt
			for i := range 12 {
				all := uploads(fmt.Sprint("crate-", i, "-"), 3)
				proxy.Use(testbed.Plan{Chance: map[testbed.Harm]float64{harm: 0.02}})
				answers, errs := g.publishAll(a.Registry, all)
				proxy.Use(testbed.Plan{})
				for j, u := range all {
					if errs[j] != nil && !errors.Is(errs[j], ErrUnavailable) && !errors.Is(errs[j], catalog.ErrUnavailable) {
						t.Errorf("%s: %v", u.name, errs[j])
					}
					again, err := g.publish(b.Registry, u)
					if err != nil {
						t.Errorf("%s, published again: %v", u.name, err)
					}
					if errs[j] == nil && again.Record != answers[j].Record {
						t.Errorf("%s was acknowledged as %s and is %s", u.name, answers[j].Record, again.Record)
					}
				}
				acknowledged = append(acknowledged, receiptsOf(answers, errs)...)
			}
			if proxy.Did(harm) == 0 {
				t.Error("no connection came to harm")
			}
			g.oneLog(acknowledged, a, b)
		})
	}
}

// A cosignature is never older than one that was published before it, whichever replica
// made that, and by which clock: a later one says that nothing larger is known.
func TestCosignaturesOfReplicasNeverGoBack(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	var later atomic.Int64
	var replicas []*replica
	for i, ahead := range []time.Duration{30 * time.Second, 0, -30 * time.Second} {
		r, err := g.openAt(fmt.Sprint("r", i), g.url, func(c *Config) {
			c.Clock = func() time.Time { return time.Now().Add(ahead + time.Duration(later.Load())) }
		})
		if err != nil {
			t.Fatal(err)
		}
		replicas = append(replicas, r)
	}
	last := &checkpoint{}
	published := func() *checkpoint {
		t.Helper()
		_, note, err := replicas[0].db.Published(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cp, err := replicas[0].readCheckpoint(t.Context(), &replicas[0].Catalog.Reader, note)
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size < last.Size || cp.cosigned.Before(last.cosigned) {
			t.Errorf("%d entries, cosigned at %s, came after %d, cosigned at %s", cp.Size, cp.cosigned, last.Size, last.cosigned)
		}
		last = cp
		return cp
	}
	for i := range 9 {
		if _, err := g.publish(replicas[i%3].Registry, newUpload(fmt.Sprint("crate", i))); err != nil {
			t.Fatal(err)
		}
		published()
	}
	// An hour later one renews; the others, behind or not, take it as it is.
	replicas[2].landing.Store(true)
	if _, err := g.publish(replicas[0].Registry, newUpload("larger")); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(time.Hour + time.Minute))
	before := published()
	for _, r := range []*replica{replicas[2], replicas[1], replicas[0]} {
		if _, err := r.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cp := published(); cp.Size != before.Size || r.published.Load().Size != before.Size {
			t.Errorf("%s vouches for %d entries, %d are published", r.Replica, r.published.Load().Size, before.Size)
		}
	}
	if stored, err := replicas[0].Blobs.Read(t.Context(), translog.CheckpointKey(before.Size)); err != nil || len(stored) == 0 {
		t.Error(err)
	}
}

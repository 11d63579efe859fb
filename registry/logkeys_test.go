package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// addLogKey makes a log key as the operator does; the next start holds it.
func (w *world) addLogKey() (multikey string) {
	w.t.Helper()
	path := filepath.Join(w.folder, "registry.jwk")
	multikey, err := AddLogKey(path, rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.keys, err = OpenKeys(path, "", rand.Reader); err != nil {
		w.t.Fatal(err)
	}
	return multikey
}

// submit signs settings as p and enters them.
func (w *world) submit(r *Registry, p person, body record.Body) error {
	rec := p.sign(w.t, r, record.RegistrySubject(), body, nil)
	_, err := r.Submit(context.Background(), p.asker("admin"), rec.Envelope(), nil)
	return err
}

func (w *world) rotate(r *Registry, multikey string) error {
	settings := r.Settings().Registry
	settings.LogKeys = append([]string{multikey}, settings.LogKeys...)
	return w.submit(r, person{w.admin}, &settings)
}

// signedBy holds the newest checkpoint to be signed by exactly these log keys, the first cosigning.
func signedBy(t *testing.T, r *Registry, multikeys ...string) {
	t.Helper()
	note, err := r.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(note), "\n— "); got != len(multikeys)+1 {
		t.Errorf("%d signatures, want %d and a cosignature:\n%s", got, len(multikeys), note)
	}
	for i, multikey := range multikeys {
		key, err := did.Ed25519Keys([]string{multikey})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := translog.Open(note, string(r.Origin()), key)
		if err != nil || opened.Size != r.Size() || opened.CosignedAt.IsZero() != (i > 0) {
			t.Errorf("by %s: %+v, %v", multikey, opened, err)
		}
	}
}

func TestALogKeyIsRotated(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	old := r.Settings().LogKeys[0]
	if _, err := w.publish(r, newUpload("before")); err != nil {
		t.Fatal(err)
	}
	fresh := w.addLogKey()
	if err := w.rotate(r, fresh); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "log new-key") {
		t.Errorf("a key that the running server does not hold yet: %v", err)
	}
	r.Close()
	w.close()

	r = w.start()
	signedBy(t, r, old)
	if err := w.rotate(r, fresh); err != nil {
		t.Fatal(err)
	}
	signedBy(t, r, fresh, old)
	if _, err := w.publish(r, newUpload("after")); err != nil {
		t.Fatal(err)
	}
	signedBy(t, r, fresh, old)
	w.rebuilds(r)
	r.Close()
	w.close()

	r = w.start() // stored checkpoints are held to the keys of their time
	signedBy(t, r, fresh, old)
	r.Close()
	w.close()

	w.stores()
	w.config.Clock = func() time.Time { return time.Now().Add(state.LogKeyOverlap + time.Hour) }
	r, err := Open(context.Background(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	signedBy(t, r, fresh)
	r.Close()
	w.close()
}

func TestWithoutTheKeyThatSignsNowNothingStartsButARebuild(t *testing.T) {
	w := newWorld(t)
	before := w.keys
	fresh := w.addLogKey()
	r := w.start()
	if err := w.rotate(r, fresh); err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.close()
	w.keys = before // the key file comes from an older backup
	w.stores()
	if _, err := Open(context.Background(), w.config); !errors.Is(err, ErrLogKey) || !strings.Contains(err.Error(), fresh) {
		t.Errorf("opened without the log's key: %v", err)
	}
	again := w.config
	again.Catalog = w.catalog("again.db")
	if done, err := Rebuild(context.Background(), again, func(int64) {}); err != nil || done.Entries != 3 {
		t.Errorf("rebuild: %+v, %v", done, err)
	}
	w.close()
}

func TestSettingsThatBreakTheLogsKeysAreRefused(t *testing.T) {
	w := newWorld(t)
	fresh := w.addLogKey()
	next := w.addLogKey()
	r := w.start()
	old := r.Settings().LogKeys[0]
	if err := w.rotate(r, fresh); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]string{
		"the current key is dropped":    {next, old},
		"the old key before its time":   {fresh},
		"the old key signs again":       {old, fresh},
		"all at once":                   {next},
		"a key that nobody holds first": {newPerson(t).key.Public().Multikey(), fresh, old},
	} {
		settings := r.Settings().Registry
		settings.LogKeys = keys
		if err := w.submit(r, person{w.admin}, &settings); !errors.Is(err, state.ErrInvalid) && !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	signedBy(t, r, fresh, old)
	if err := w.rotate(r, next); err != nil {
		t.Fatal(err)
	}
	signedBy(t, r, next, fresh, old)
	r.Close()
	w.close()
}

func TestALogKeyIsRotatedByVotes(t *testing.T) {
	w := newWorld(t)
	fresh := w.addLogKey()
	r := w.start()
	second := newPerson(t)
	admit(t, r, person{w.admin}, second, "publisher")
	settings := r.Settings().Registry
	settings.Admins, settings.AdminThreshold = append(slices.Clone(settings.Admins), second.did()), 2
	if err := w.submit(r, person{w.admin}, &settings); err != nil {
		t.Fatal(err)
	}
	old := settings.LogKeys[0]
	settings.LogKeys = []string{fresh, old}
	proposal := person{w.admin}.sign(t, r, record.RegistrySubject(), &settings, nil)
	if _, err := r.Submit(context.Background(), person{w.admin}.asker("admin"), proposal.Envelope(), nil); err != nil {
		t.Fatal(err)
	}
	signedBy(t, r, old)
	nobody, member := policy.Asker{}, second.asker("read")
	if proof, err := r.LogKeysProof(context.Background(), nobody); err != nil || len(proof) != 1 {
		t.Errorf("nobody gets %d records, %v", len(proof), err)
	}
	if proof, err := r.LogKeysProof(context.Background(), member); err != nil || len(proof) != 3 {
		t.Errorf("a member gets %d records, %v", len(proof), err)
	}
	if err := w.submit(r, second, &record.Approve{Record: proposal.ID(), Verdict: record.VerdictApprove}); err != nil {
		t.Fatal(err)
	}
	signedBy(t, r, fresh, old)
	// Settings that change no key come after; the proof goes on to them.
	settings = r.Settings().Registry
	settings.PrivateNames = []string{"secret-"}
	if err := w.submit(r, person{w.admin}, &settings); err != nil {
		t.Fatal(err)
	}
	proof, err := r.LogKeysProof(context.Background(), member)
	if err != nil || len(proof) != 5 || proof[4].Index != r.Size()-1 {
		t.Errorf("%d records, %v", len(proof), err)
	}
	if proof, err = r.LogKeysProof(context.Background(), nobody); !errors.Is(err, ErrUnauthenticated) || proof != nil {
		t.Errorf("nobody gets %+v, %v", proof, err)
	}
	r.Close()
	w.close()
	r = w.start()
	signedBy(t, r, fresh, old)
	w.rebuilds(r)
	r.Close()
	w.close()
}

// Wherever a rotation is cut, the next start goes on with the key that is in force.
func TestARotationIsCutAnywhere(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			for call := 0; ; call++ {
				w := newWorld(t)
				fresh := w.addLogKey()
				r := w.start()
				old := r.Settings().LogKeys[0]
				w.blobs.arm(call, f)
				err := w.rotate(r, fresh)
				r.Close()
				tripped := w.blobs.disarm()
				w.close()
				r = w.start()
				if r.Size() == 3 {
					signedBy(t, r, fresh, old)
				} else {
					signedBy(t, r, old)
				}
				if err == nil && r.Size() != 3 {
					t.Errorf("call %d: acknowledged, but not there", call)
				}
				w.rebuilds(r)
				r.Close()
				w.close()
				if !tripped {
					return
				}
			}
		})
	}
}

func TestCosignaturesAreRenewedHourlyAndNeverRunBackwards(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	w.start().Close()
	w.close()
	w.stores()
	ahead := time.Duration(0)
	w.config.Clock = func() time.Time { return time.Now().Add(ahead) }
	r, err := Open(ctx, w.config)
	if err != nil {
		t.Fatal(err)
	}
	cosigned := func() time.Time { return opened(t, r).CosignedAt }
	first := cosigned()
	ahead = renewAfter - time.Minute
	if at := cosigned(); !at.Equal(first) {
		t.Errorf("renewed after less than an hour: %s, then %s", first, at)
	}
	ahead = renewAfter + time.Minute
	renewed := cosigned()
	if age := w.config.Clock().Sub(renewed); age > time.Minute || renewed.Sub(first) < renewAfter {
		t.Errorf("%s, then %s, %s old", first, renewed, age)
	}
	ahead = 0 // the clock is set back; what is larger is never said to be known earlier
	if _, err := w.publish(r, newUpload("demo")); err != nil {
		t.Fatal(err)
	}
	if at := cosigned(); at.Before(renewed) || r.Size() != 3 {
		t.Errorf("size %d was cosigned at %s, the smaller one at %s", r.Size(), at, renewed)
	}
	r.Close()
	w.close()
}

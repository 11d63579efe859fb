package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// enter submits as a, which must work.
func (a actor) enter(subject record.Subject, body record.Body, attachments ...[]byte) Receipt {
	a.t.Helper()
	receipt, err := a.submit(subject, body, attachments...)
	if err != nil {
		a.t.Fatal(err)
	}
	return receipt
}

// wantProvedKeys judges the newest checkpoint by LogKeysProof, as a member who knows entry 0 alone.
func wantProvedKeys(t *testing.T, r *Registry, when string) {
	t.Helper()
	note, pin, list := proofOfKeys(t, r)
	if _, verdict := verify.Checkpoint(note, nil, pin, list[0], list[1:]...); !verdict.OK() {
		failed, _ := verdict.Failure()
		t.Errorf("%s: %s: %s", when, failed.Name, failed.Detail)
	}
}

// proofOfKeys is what LogKeysProof gives a member who knows entry 0 alone.
func proofOfKeys(t *testing.T, r *Registry) (note []byte, pin verify.Pin, list []verify.Item) {
	t.Helper()
	items, err := r.LogKeysProof(t.Context(), policy.Asker{DID: r.Origin(), Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		entries, err := r.LogEntries(t.Context(), i.Index, i.Index+1)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := tlog.ProveRecord(r.Size(), i.Index, storedHashes(t.Context(), &r.Catalog.Reader))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, verify.Item{Index: i.Index, Entry: entries[0], Envelope: i.Envelope, Attachments: i.Attachments, Proof: proof})
	}
	if note, err = r.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	return note, verify.Pin{
		Origin: r.Origin(), Entry0: translog.LeafHash(list[0].Entry),
		Freshness: verify.Freshness{Now: time.Now(), MaxAge: time.Hour},
	}, list
}

func TestTheLogsKeysStayProvedWhateverIsDecidedLater(t *testing.T) {
	admin, host := roommates(t)
	r := admin.r
	settings := r.Settings().Registry
	settings.Admins, settings.AdminThreshold = []did.DID{admin.id.DID, host.id.DID}, 2
	admin.enter(record.RegistrySubject(), &settings)
	decide := func(change func(s *record.Registry)) {
		t.Helper()
		settings := r.Settings().Registry
		change(&settings)
		proposal := admin.enter(record.RegistrySubject(), &settings)
		host.enter(record.RegistrySubject(), &record.Approve{Record: proposal.Record, Verdict: record.VerdictApprove})
	}
	wantProvedKeys(t, r, "before any change")
	spare := newKey(t)
	decide(func(s *record.Registry) { s.LogKeys = append(s.LogKeys, spare.Public().Multikey()) })
	wantProvedKeys(t, r, "after the change of log_keys")
	decide(func(s *record.Registry) { s.MinAgeDays = 1 })
	decide(func(s *record.Registry) { s.MinAgeDays = 2 })
	wantProvedKeys(t, r, "after two later settings")
	next := host
	next.key, next.id.Fragment = newKey(t), "key-2"
	document := next.document(t)
	admin.enter(record.MemberSubject(host.id.DID), &record.DIDChange{DIDDocument: *cidOf(document)}, document)
	wantProvedKeys(t, r, "after a voter's document was replaced")
}

// What the registry takes after a vote was disowned is what a verifier needs to believe again.
func TestACouncilGoesOnAfterAVoteWasDisowned(t *testing.T) {
	admin, host := roommates(t)
	r := admin.r
	other := actor{t, r, newKey(t), did.URL{}}
	other.id = other.key.Public().URL()
	admin.enter(record.MemberSubject(other.id.DID), &record.Member{Roles: []string{"publisher"}, Tier: "guest", StakeholderAddrs: []string{}})
	settings := r.Settings().Registry
	settings.Admins, settings.AdminThreshold = []did.DID{admin.id.DID, host.id.DID, other.id.DID}, 2
	admin.enter(record.RegistrySubject(), &settings)
	decide := func(proposer, voter actor) record.ID {
		t.Helper()
		settings := r.Settings().Registry
		proposal := proposer.enter(record.RegistrySubject(), &settings)
		voter.enter(record.RegistrySubject(), &record.Approve{Record: proposal.Record, Verdict: record.VerdictApprove})
		return proposal.Record
	}
	inForce := func() (verify.InForce, verify.Check) {
		t.Helper()
		note, pin, list := proofOfKeys(t, r)
		in, _, verdict := verify.Settings(note, nil, pin, list[0], list[1:]...)
		failed, _ := verdict.Failure()
		return in, failed
	}
	since := r.Size()
	stolen := decide(admin, host)
	if in, failed := inForce(); in.Record != stolen || failed.Name != "" {
		t.Errorf("before the theft is known: %s, %+v", in.Record, failed)
	}
	next := host
	next.key, next.id.Fragment = newKey(t), "key-2"
	document := next.document(t)
	admin.enter(record.MemberSubject(host.id.DID), &record.DIDChange{DIDDocument: *cidOf(document), CompromisedSince: &since}, document)
	wantProvedKeys(t, r, "after a vote was disowned") // it changed no log key
	if in, failed := inForce(); failed.Name != verify.CheckAuthority {
		t.Errorf("settings by a disowned vote: %s, %+v", in.Record, failed)
	}
	again := decide(other, next)
	if in, failed := inForce(); in.Record != again || failed.Name != "" {
		t.Errorf("after a vote with keys of their own: %s, %+v", in.Record, failed)
	}
}

func TestLogKeysHaveNamesOfTheirOwnAndAnEnd(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.folder, "registry.jwk")
	var err error
	for made := 1; err == nil; made++ {
		if _, err = AddLogKey(path, rand.Reader); err != nil && made != mostLogKeys {
			t.Errorf("key %d: %v", made+1, err)
		}
	}
	if !strings.Contains(err.Error(), "take out of this one") {
		t.Error(err)
	}
	named, err := did.ReadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.DeleteFunc(slices.Clone(named), func(n did.NamedKey) bool { return n.ID == logKeyID || n.ID == logKeyID+"-3" })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := did.WriteKeyFile(path, kept); err != nil {
		t.Fatal(err)
	}
	if _, err := AddLogKey(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	after, err := did.ReadKeyFile(path)
	if err != nil || len(after) != len(kept)+1 {
		t.Fatalf("%d keys, %v", len(after), err)
	}
	if last := after[len(after)-1].ID; slices.ContainsFunc(named, func(n did.NamedKey) bool { return n.ID == last }) {
		t.Errorf("the new key is called %s as another was", last)
	}
}

// logStore has no room, or loses its answers, for objects of the log.
type logStore struct {
	storage.Blobs
	full, mute atomic.Bool
}

func (s *logStore) Create(ctx context.Context, key string, data []byte) error {
	if s.full.Load() {
		return fmt.Errorf("create: %w", storage.ErrFull)
	}
	err := s.Blobs.Create(ctx, key, data)
	if s.mute.Load() && strings.HasPrefix(key, translog.CheckpointPrefix) {
		return errors.New("the answer was lost")
	}
	return err
}

// storesWith is a started world over a logStore, at a clock that can be set ahead.
func storesWith(t *testing.T) (w *world, r *Registry, s *logStore, ahead *atomic.Int64) {
	t.Helper()
	w, ahead = newWorld(t), new(atomic.Int64)
	w.stores()
	if err := w.genesis(); err != nil {
		t.Fatal(err)
	}
	s = &logStore{Blobs: w.config.Blobs}
	w.config.Blobs = s
	w.config.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r, err := Open(context.Background(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	return w, r, s, ahead
}

// awaitSize waits for what is committed to be published at a later tick.
func awaitSize(t *testing.T, r *Registry, size int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * publishRetry); r.Size() < size; time.Sleep(publishRetry / 20) {
		if time.Now().After(deadline) {
			t.Fatalf("size %d, waiting for %d", r.Size(), size)
		}
	}
}

func TestAFullDiskIsNotSaidToHaveChangedNothingOnceTheChangeIsEntered(t *testing.T) {
	w, r, s, _ := storesWith(t)
	before := r.Size()
	s.full.Store(true)
	settings := r.Settings().Registry
	settings.MinAgeDays = 7
	err := w.submit(r, person{w.admin}, &settings)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrUnpublished) || errors.Is(err, storage.ErrFull) {
		t.Errorf("told %v", err)
	}
	if r.Size() != before || r.Settings().MinAgeDays != 0 {
		t.Error("what is not stored is visible")
	}
	s.full.Store(false)
	awaitSize(t, r, before+1)
	if r.Settings().MinAgeDays != 7 {
		t.Error("what was entered is not in force")
	}
	w.closeAll(r)
}

// opened is the newest checkpoint, as its keys prove it.
func opened(t *testing.T, r *Registry) translog.Opened {
	t.Helper()
	note, err := r.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	opened, _, err := r.openNote(context.Background(), note)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// Whoever saw the larger tree first could take an honest log for one that takes
// entries back, if the smaller one were cosigned later.
func TestALargerTreeIsNeverCosignedBeforeASmallerOneThatWasShown(t *testing.T) {
	for name, restart := range map[string]bool{"the same process": false, "the next one": true} {
		t.Run(name, func(t *testing.T) {
			w, r, s, ahead := storesWith(t)
			s.mute.Store(true) // the larger checkpoint is stored, and nobody knows
			settings := r.Settings().Registry
			settings.MinAgeDays = 1
			if err := w.submit(r, person{w.admin}, &settings); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			ahead.Store(int64(2 * time.Hour))
			shown := opened(t, r)
			if !restart {
				s.mute.Store(false)
				awaitSize(t, r, shown.Size+1)
			}
			w.closeAll(r)
			// No more than half an hour later, so that nothing is renewed for its age.
			w.stores()
			w.config.Clock = func() time.Time { return time.Now().Add(2*time.Hour + 30*time.Minute) }
			r, err := Open(context.Background(), w.config)
			if err != nil {
				t.Fatal(err)
			}
			larger := opened(t, r)
			if larger.Size != shown.Size+1 || larger.CosignedAt.Before(shown.CosignedAt) {
				t.Errorf("size %d was cosigned at %s, size %d at %s", shown.Size, shown.CosignedAt, larger.Size, larger.CosignedAt)
			}
			w.closeAll(r)
		})
	}
}

// A clock that ran ahead while somebody looked, and is right again at the next start,
// makes no honest log one that takes entries back; and whoever runs it is told.
func TestARenewedCosignatureOutlivesTheProcess(t *testing.T) {
	w, r, _, ahead := storesWith(t)
	if err := r.Ready(context.Background()); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(70 * time.Minute))
	shown := opened(t, r).CosignedAt
	w.closeAll(r)
	r = w.start()
	if _, err := w.publish(r, newUpload("later")); err != nil {
		t.Fatal(err)
	}
	if larger := opened(t, r).CosignedAt; larger.Before(shown) {
		t.Errorf("the smaller tree was cosigned at %s, the larger at %s", shown, larger)
	}
	if err := r.Ready(context.Background()); err == nil || !strings.Contains(err.Error(), "in the future of this computer's clock") {
		t.Errorf("ready: %v", err)
	}
	w.closeAll(r)
}

// A catalog that takes nothing is not asked to by everybody who looks at the log.
func TestARenewalThatFailsIsNotTriedForEverybodyWhoAsks(t *testing.T) {
	var lines bytes.Buffer
	w, r, _, ahead := storesWith(t)
	r.Log = slog.New(slog.NewTextHandler(&lines, nil))
	before := opened(t, r)
	note, err := r.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w.config.Catalog.Close()
	failures := func() int { return strings.Count(lines.String(), "is not renewed") }
	for minutes, want := range []int{1, 2, 3} {
		ahead.Store(int64(renewAfter + time.Duration(minutes+1)*(renewRetry+time.Second)))
		for range 5 {
			again, err := r.Checkpoint(context.Background())
			if err != nil || !bytes.Equal(again, note) {
				t.Fatalf("not the note of %s: %v", before.CosignedAt, err)
			}
		}
		if failures() != want {
			t.Errorf("after %d minutes it was tried %d times, want %d", minutes+1, failures(), want)
		}
	}
	r.Close()
}

// A document is proposed while the server has one key, and voted on when it has another.
func TestAVoteEnactsNoDocumentWithoutTheServersKey(t *testing.T) {
	w := newWorld(t)
	const lab = did.DID("did:web:lab.example")
	path := filepath.Join(w.folder, "web.jwk")
	var err error
	if w.keys, err = OpenKeys(path, lab, rand.Reader); err != nil {
		t.Fatal(err)
	}
	old := did.DocumentKey{ID: w.keys.id, Key: w.keys.key.Public()}
	next := did.NamedKey{ID: (did.URL{DID: lab, Fragment: "key-2"}).String(), Key: newKey(t)}
	document := func(keys ...did.DocumentKey) []byte {
		t.Helper()
		raw, err := did.NewDocument(lab, keys)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	r := w.start()
	admin := actor{t, r, w.admin, w.admin.Public().URL()}
	second := actor{t, r, newKey(t), did.URL{}}
	second.id = second.key.Public().URL()
	admit(t, r, person{w.admin}, person{second.key}, "publisher")
	both := document(old, did.DocumentKey{ID: did.URL{DID: lab, Fragment: "key-2"}, Key: next.Key.Public()})
	settings := r.Settings().Registry
	settings.Admins, settings.AdminThreshold, settings.DIDDocument = append(slices.Clone(settings.Admins), second.id.DID), 2, cidOf(both)
	admin.enter(record.RegistrySubject(), &settings, both)
	settings = r.Settings().Registry
	only := document(old)
	settings.DIDDocument = cidOf(only)
	proposal := admin.enter(record.RegistrySubject(), &settings, only)
	w.closeAll(r)

	named, err := did.ReadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), did.WriteKeyFile(path, append(named[1:], next))); err != nil {
		t.Fatal(err)
	}
	if w.keys, err = OpenKeys(path, lab, rand.Reader); err != nil {
		t.Fatal(err)
	}
	r = w.start()
	second.r = r
	_, err = second.submit(record.RegistrySubject(), &record.Approve{Record: proposal.Record, Verdict: record.VerdictApprove})
	if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "must hold the key that this registry signs with") {
		t.Errorf("told %v", err)
	}
	w.closeAll(r)
	r = w.start() // which would be refused otherwise
	w.closeAll(r)
}

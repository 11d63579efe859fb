package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// person is a key with the session that its holder would have.
type person struct{ key did.PrivateKey }

func newPerson(t testing.TB) person {
	t.Helper()
	key, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return person{key}
}

func (p person) did() did.DID { return p.key.Public().DID() }

func (p person) asker(scopes ...string) policy.Asker {
	return policy.Asker{DID: p.did(), Scopes: scopes, Tier: particle.TierCoreStakeholder, Until: time.Now().Add(time.Minute)}
}

// reader is somebody whom nothing but the rules keeps from reading.
var reader = policy.Asker{DID: "did:web:reader.example", Tier: particle.TierCoreStakeholder, Scopes: []string{particle.ScopeRead}}

// sign signs a record of p's with what the registry's heads say, changed by change.
func (p person) sign(t testing.TB, r *Registry, subject record.Subject, body record.Body, change func(*record.Draft)) *record.Record {
	t.Helper()
	heads, err := r.HeadsFor(context.Background(), p.asker("read"), subject.Thing())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	d := record.Draft{Subject: subject, Body: body, Header: record.Header{
		Registry: r.Origin(), IssuedAt: now, Expires: now.Add(time.Minute), Prev: heads.Prev, By: heads.By, Key: heads.Key,
	}}
	if change != nil {
		change(&d)
	}
	rec, err := record.Sign(d, p.key.Signer(p.key.Public().URL()))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// admit makes p a member with roles.
func admit(t testing.TB, r *Registry, admin, p person, roles ...string) {
	t.Helper()
	rec := admin.sign(t, r, record.MemberSubject(p.did()), &record.Member{Roles: roles, Tier: "guest", StakeholderAddrs: []string{}}, nil)
	if _, err := r.Submit(context.Background(), admin.asker("admin"), rec.Envelope(), nil); err != nil {
		t.Fatal(err)
	}
}

// files counts what is stored, log objects left out.
func files(t testing.TB, folder string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(folder, "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Who may not change anything leaves nothing behind, whatever they send.
func TestRefusedRecordsAreNotStored(t *testing.T) {
	ctx := context.Background()
	folder := t.TempDir()
	r, admin := openTestIn(t, folder)
	auditor := newPerson(t)
	admit(t, r, person{admin}, auditor, "auditor")
	before := files(t, filepath.Join(folder, "store"))
	subject, err := record.VersionSubject(record.KindCrate, "victim", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	publish := auditor.sign(t, r, subject, &record.Publish{Evidence: []storage.CID{}}, func(d *record.Draft) {
		d.Digest = sha256.Sum256([]byte("bytes"))
		d.Header.By = r.Settings().Record
	})
	body := &countingReader{}
	if _, err := r.PublishCrate(ctx, auditor.asker("publish"), publish.Envelope(), body); !errors.Is(err, state.ErrNotEntitled) {
		t.Errorf("publish by an auditor: %v", err)
	}
	if body.read != 0 {
		t.Errorf("%d bytes of a refused upload were read", body.read)
	}
	own, err := record.ArtifactSubject(record.KindCrate, "victim")
	if err != nil {
		t.Fatal(err)
	}
	rec := auditor.sign(t, r, own, &record.Own{Add: []did.DID{auditor.did()}, Remove: []did.DID{}}, func(d *record.Draft) { d.Header.By = r.Settings().Record })
	if _, err := r.Submit(ctx, auditor.asker("publish"), rec.Envelope(), nil); !errors.Is(err, state.ErrMissing) {
		t.Errorf("own record for nothing: %v", err)
	}
	if after := files(t, filepath.Join(folder, "store")); after != before {
		t.Errorf("%d blobs were left behind", after-before)
	}
}

type countingReader struct{ read int }

func (c *countingReader) Read(p []byte) (int, error) {
	c.read += len(p)
	return len(p), nil
}

// A record whose documents cannot be had is refused alone: the changes of
// others in its batch go through.
func TestNoRecordHoldsUpABatch(t *testing.T) {
	ctx := context.Background()
	r, adminKey := openTest(t)
	admin := person{adminKey}
	mallory := newPerson(t)
	admit(t, r, admin, mallory, "auditor")
	absent := storage.CIDOf([]byte("a document that nobody has"))
	intent := mallory.sign(t, r, record.MemberSubject("did:web:lab.example"), &record.Member{
		DIDDocument: &absent, Roles: []string{"x"}, Tier: "guest", StakeholderAddrs: []string{},
	}, func(d *record.Draft) { d.Header.By = r.Settings().Record })
	own, err := record.ArtifactSubject(record.KindCrate, "x")
	if err != nil {
		t.Fatal(err)
	}
	id := intent.CID()
	poison := mallory.sign(t, r, own, &record.Own{Add: []did.DID{mallory.did()}, Remove: []did.DID{}, Intent: &id}, func(d *record.Draft) { d.Header.By = r.Settings().Record })
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { // past the first check, straight into the sequencer
			s := &submission{record: poison, attachments: state.Attachments{id: intent.Envelope()}}
			if _, err := r.submit(ctx, s); err == nil {
				t.Error("a poisoned record was entered")
			}
		})
		p := newPerson(t)
		rec := admin.sign(t, r, record.MemberSubject(p.did()), &record.Member{Roles: []string{"publisher"}, Tier: "guest", StakeholderAddrs: []string{}}, nil)
		group.Go(func() {
			if _, err := r.Submit(ctx, admin.asker("admin"), rec.Envelope(), nil); err != nil {
				t.Errorf("an honest record was held up: %v", err)
			}
		})
	}
	group.Wait()
}

// A server that meets another log under its own objects stops writing and says so.
func TestAForkEndsTheRegistry(t *testing.T) {
	ctx := context.Background()
	r, adminKey := openTest(t)
	admin := person{adminKey}
	size := r.Size()
	if err := r.Blobs.Create(ctx, translog.EntryKey(size), []byte("another history")); err != nil {
		t.Fatal(err)
	}
	rec := admin.sign(t, r, record.MemberSubject(newPerson(t).did()), &record.Member{Roles: []string{"publisher"}, Tier: "guest", StakeholderAddrs: []string{}}, nil)
	if _, err := r.Submit(ctx, admin.asker("admin"), rec.Envelope(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a change on a forked log: %v", err)
	}
	select {
	case err := <-r.Failed():
		if !errors.Is(err, ErrFork) {
			t.Errorf("failed with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the fork was not reported")
	}
	if r.Size() != size {
		t.Errorf("the log is shown to have %d entries", r.Size())
	}
	if _, err := r.Submit(ctx, admin.asker("admin"), rec.Envelope(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a change after the end: %v", err)
	}
}

// Settings under which this server's checkpoints would not be believed are refused.
func TestForeignLogKeysAreRefused(t *testing.T) {
	ctx := context.Background()
	r, adminKey := openTest(t)
	admin := person{adminKey}
	settings := r.Settings().Registry
	settings.LogKeys = []string{newPerson(t).key.Public().Multikey(), settings.LogKeys[0]}
	rec := admin.sign(t, r, record.RegistrySubject(), &settings, nil)
	if _, err := r.Submit(ctx, admin.asker("admin"), rec.Envelope(), nil); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "log_keys") {
		t.Errorf("settings with another log key: %v", err)
	}
	settings.LogKeys = []string{settings.LogKeys[1]}
	settings.MinAgeDays = 3
	rec = admin.sign(t, r, record.RegistrySubject(), &settings, nil)
	if _, err := r.Submit(ctx, admin.asker("admin"), rec.Envelope(), nil); err != nil || r.Settings().MinAgeDays != 3 {
		t.Errorf("settings with our log key: %v", err)
	}
}

// A stranger's question for a blob that is no record of the log neither reads it nor tells of it.
func TestRecordsByCIDAreThoseOfTheLog(t *testing.T) {
	ctx := context.Background()
	r, adminKey := openTest(t)
	admin := person{adminKey}
	rec := admin.sign(t, r, record.RegistrySubject(), &record.Approve{Record: record.IDOf(nil), Verdict: record.VerdictApprove}, nil)
	if err := r.Blobs.Put(ctx, rec.CID(), int64(len(rec.Envelope())), bytes.NewReader(rec.Envelope())); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RecordByCID(ctx, admin.asker("read"), rec.CID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("a record outside the log: %v", err)
	}
	first, err := r.RecordAt(ctx, policy.Asker{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.RecordByCID(ctx, policy.Asker{}, first.Record.CID()); err != nil || got.Index != 0 {
		t.Errorf("entry 0 by CID: %v", err)
	}
	if _, err := r.RecordAt(ctx, policy.Asker{}, 1); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("entry 1 for nobody: %v", err)
	}
}

// A crate whose index file everybody would have to fetch cannot grow without end.
func TestIndexFilesAreBounded(t *testing.T) {
	r, _ := openTest(t)
	err := r.Catalog.Update(context.Background(), func(tx *catalog.Tx) error {
		for size, want := range map[int]error{maxIndexFile: nil, maxIndexFile + 1: cargo.ErrTooLarge} {
			refusal, err := checkIndexFile(t.Context(), tx, &catalog.CrateLine{NameKey: "x", Line: make([]byte, size)})
			if err != nil || !errors.Is(refusal, want) {
				t.Errorf("%d bytes: %v, %v", size, refusal, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

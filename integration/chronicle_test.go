package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// chronicleScale is how many hundreds of some types of records a chronicle has;
// the others are fewer in proportion.
const chronicleScale = 4

// chronicle is a registry in this process in which everything that can be recorded
// happens, often.
type chronicle struct {
	t     *testing.T
	r     *registry.Registry
	admin scribe
	// made are how many records of each type were entered.
	mu   sync.Mutex
	made map[record.Type]int
}

// scribe is somebody who signs records.
type scribe struct {
	key did.PrivateKey
	id  did.URL
}

func newScribe(t *testing.T) scribe {
	t.Helper()
	key, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return scribe{key, key.Public().URL()}
}

// written is what a chronicle left behind.
type written struct {
	folder, keys string
	digest       [32]byte
	size         int64
	root         string
	made         map[record.Type]int
}

// writeChronicle makes a folder with a store and a catalog of thousands of entries.
func writeChronicle(t *testing.T) written {
	t.Helper()
	folder := t.TempDir()
	w := written{folder: folder, keys: filepath.Join(folder, "keys", "registry.jwk")}
	if err := os.Mkdir(filepath.Dir(w.keys), 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := registry.OpenKeys(w.keys, "", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	store, err := disk.Open(filepath.Join(folder, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	db, err := catalog.OpenSQLite(t.Context(), filepath.Join(folder, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := &chronicle{t: t, admin: newScribe(t), made: map[record.Type]int{}}
	config := registry.Config{
		Catalog: db, Blobs: unsynced{store, filepath.Join(folder, "store")}, Keys: keys, PublicURL: "http://127.0.0.1:8585",
		Limits: cargo.DefaultLimits(), Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Spool: folder,
	}
	if err := registry.Genesis(t.Context(), config, c.admin.key.Signer(c.admin.id)); err != nil {
		t.Fatal(err)
	}
	if c.r, err = registry.Open(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	c.write()
	c.r.Close()
	if w.digest, err = db.StateDigest(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.size, w.root = publishedRoot(t, db)
	w.made = c.made
	return w
}

// submit enters what by signs about subject.
func (c *chronicle) submit(by scribe, subject record.Subject, body record.Body, attachments ...[]byte) record.ID {
	return c.enter(by, record.Draft{Subject: subject, Body: body}, attachments...)
}

// enter is submit for subjects with a digest of their own.
func (c *chronicle) enter(by scribe, d record.Draft, attachments ...[]byte) record.ID {
	rec, ok := c.sign(by, d, time.Hour)
	if !ok {
		return ""
	}
	if _, err := c.r.Submit(context.Background(), c.asker(by, rec.Scope()), rec.Envelope(), attachments); err != nil {
		c.t.Errorf("%s: %v", d.Subject, err)
	}
	c.count(rec.Type())
	return rec.ID()
}

func (c *chronicle) count(kind record.Type) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made[kind]++
}

func (c *chronicle) sign(by scribe, d record.Draft, validity time.Duration) (*record.Record, bool) {
	heads, err := c.r.HeadsFor(context.Background(), c.asker(by, particle.ScopeRead), d.Subject.Thing())
	if err != nil {
		c.t.Errorf("%s: %v", d.Subject, err)
		return nil, false
	}
	now := time.Now().UTC().Truncate(time.Second)
	d.Header = record.Header{Registry: heads.Origin, IssuedAt: now, Expires: now.Add(validity), Prev: heads.Prev, By: heads.By, Key: heads.Key}
	rec, err := record.Sign(d, by.key.Signer(by.id))
	if err != nil {
		c.t.Errorf("%s: %v", d.Subject, err)
		return nil, false
	}
	return rec, true
}

func (c *chronicle) asker(by scribe, scope string) policy.Asker {
	return policy.Asker{DID: by.id.DID, Tier: particle.TierCoreStakeholder, Scopes: []string{scope}, Until: time.Now().Add(time.Hour)}
}

// many does one thing n times, by several at once, so that they share transactions.
func many(n int, one func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				one(i)
			}
		})
	}
	all.Wait()
}

func (c *chronicle) write() {
	people := c.people()
	c.documents()
	c.crates(people)
	c.artifacts(people)
	c.grants(people)
	c.rules(people)
	c.upstreams()
	c.settings()
	many(10*chronicleScale, func(i int) { // some go
		c.submit(c.admin, record.MemberSubject(people[i].id.DID), &record.Member{Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	})
}

// people are admitted, and some of them changed.
func (c *chronicle) people() []scribe {
	people := make([]scribe, 100*chronicleScale)
	for i := range people {
		people[i] = newScribe(c.t)
	}
	many(len(people), func(i int) {
		body := &record.Member{
			Roles: []string{state.RolePublisher, state.RoleGrantor, state.RoleReviewer}, Tier: particle.TierCoreStakeholder,
			StakeholderAddrs: []string{"bostrom1" + strconv.Itoa(i)},
		}
		c.submit(c.admin, record.MemberSubject(people[i].id.DID), body)
		if i%10 == 0 {
			body.Tier = particle.TierCollaborator
			c.submit(c.admin, record.MemberSubject(people[i].id.DID), body)
		}
	})
	return people
}

// documents are those of hosts that are a did:web, replaced by themselves.
func (c *chronicle) documents() {
	many(20*chronicleScale, func(i int) {
		host := newScribe(c.t)
		host.id = did.URL{DID: did.DID(fmt.Sprintf("did:web:host-%d.example", i)), Fragment: "key-1"}
		document := c.document(host)
		id := storage.CIDOf(document)
		c.submit(c.admin, record.MemberSubject(host.id.DID), &record.Member{
			DIDDocument: &id, Roles: []string{state.RolePublisher}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
		}, document)
		next := newScribe(c.t)
		next.id = did.URL{DID: host.id.DID, Fragment: "key-2"}
		document = c.document(next)
		change := &record.DIDChange{DIDDocument: storage.CIDOf(document)}
		by := host
		if i%4 == 0 {
			since := int64(i)
			by, change.CompromisedSince = c.admin, &since
		}
		c.submit(by, record.MemberSubject(host.id.DID), change, document)
	})
}

func (c *chronicle) document(s scribe) []byte {
	raw, err := did.NewDocument(s.id.DID, []did.DocumentKey{{ID: s.id, Key: s.key.Public()}})
	if err != nil {
		c.t.Error(err)
	}
	return raw
}

// crates are published in versions, yanked, and change their owners, by a record of
// an owner's and by an intent that the registry signs for.
func (c *chronicle) crates(people []scribe) {
	many(100*chronicleScale, func(i int) {
		name, owner, other := fmt.Sprintf("crate-%d", i), people[i%len(people)], people[(i+1)%len(people)]
		for v := range 2 {
			c.publishCrate(owner, name, fmt.Sprintf("0.%d.0", v))
		}
		switch i % 4 {
		case 0:
			subject, err := record.VersionSubject(record.KindCrate, name, "0.0.0")
			if err != nil {
				c.t.Error(err)
				return
			}
			c.submit(owner, subject, &record.Yank{Yanked: true})
			if i%8 == 0 {
				c.submit(owner, subject, &record.Yank{})
			}
		case 1:
			subject := c.artifact(record.KindCrate, name)
			c.submit(owner, subject, &record.Own{Add: []did.DID{other.id.DID}, Remove: []did.DID{}})
			c.submit(other, subject, &record.Own{Add: []did.DID{}, Remove: []did.DID{owner.id.DID}})
		case 2:
			intent, ok := c.sign(owner, record.Draft{Subject: c.artifact(record.KindCrate, name), Body: &record.OwnIntent{}}, 2*time.Minute)
			if !ok {
				return
			}
			if _, err := c.r.ChangeOwners(context.Background(), c.asker(owner, particle.ScopePublish), name, intent.Envelope(), []did.DID{other.id.DID}, nil); err != nil {
				c.t.Errorf("%s: %v", name, err)
			}
			c.count(record.TypeOwn)
		}
	})
}

func (c *chronicle) artifact(kind record.Kind, name string) record.Subject {
	subject, err := record.ArtifactSubject(kind, name)
	if err != nil {
		c.t.Error(err)
	}
	return subject
}

func (c *chronicle) publishCrate(by scribe, name, version string) {
	crate := newRelease(mathrand.New(mathrand.NewPCG(7, 8)), 0, name, version, 50)
	subject, err := record.VersionSubject(record.KindCrate, name, version)
	if err != nil {
		c.t.Error(err)
		return
	}
	rec, ok := c.sign(by, record.Draft{Subject: subject, Digest: crate.cid.Digest(), Body: &record.Publish{}}, time.Hour)
	if !ok {
		return
	}
	if _, err := c.r.PublishCrate(context.Background(), c.asker(by, particle.ScopePublish), rec.Envelope(), bytes.NewReader(frameOf(crate))); err != nil {
		c.t.Errorf("%s@%s: %v", name, version, err)
	}
	c.count(rec.Type())
}

// artifacts are of the other kinds, with evidence.
func (c *chronicle) artifacts(people []scribe) {
	kinds := []record.Kind{record.KindALNShard, record.KindEvidenceBundle, record.KindManifest, record.KindQPUDatashard}
	many(20*chronicleScale, func(i int) {
		kind, by := kinds[i%len(kinds)], people[i]
		content := []byte(fmt.Sprintf(`{"number":%d}`, i))
		subject, err := record.VersionSubject(kind, fmt.Sprintf("thing-%d", i), "1.0.0")
		if err != nil {
			c.t.Error(err)
			return
		}
		body := &record.Publish{Evidence: []storage.CID{storage.CIDOf([]byte("evidence"))}, MediaType: "application/json"}
		rec, ok := c.sign(by, record.Draft{Subject: subject, Digest: storage.CIDOf(content).Digest(), Body: body}, time.Hour)
		if !ok {
			return
		}
		if _, err := c.r.Publish(context.Background(), c.asker(by, particle.ScopePublish), rec.Envelope(), subject, bytes.NewReader(content)); err != nil {
			c.t.Errorf("%s: %v", subject, err)
		}
		c.count(rec.Type())
	})
}

// grants are put in force, replaced and revoked.
func (c *chronicle) grants(people []scribe) {
	many(40*chronicleScale, func(i int) {
		grantor, host := people[i], people[i+1]
		first := c.grant(grantor, host, i, nil)
		switch i % 3 {
		case 0:
			c.grant(grantor, host, i, &first)
		case 1:
			c.enter(grantor, record.Draft{Subject: record.GrantSubject(first), Digest: first.Digest(), Body: &record.Revoke{Reason: "it was time"}})
		}
	})
}

func (c *chronicle) grant(by, host scribe, number int, instead *storage.CID) storage.CID {
	now := time.Now()
	raw, err := particle.EnvGrant{
		Registry: c.r.Origin(), Issuer: by.id.DID, Subject: host.id.DID, NotBefore: particle.At(now.Add(-time.Minute)), Expires: particle.At(now.Add(time.Hour)),
		MaxMemMB: 256, MaxDiskMB: int64(number), AllowedCrates: []string{hex.EncodeToString(make([]byte, 32))}, AllowedProtocols: []string{}, AllowedEndpoints: []string{},
		Tier: particle.TierGuest, Supersedes: instead,
	}.Marshal()
	if err != nil {
		c.t.Error(err)
	}
	id := storage.CIDOf(raw)
	c.enter(by, record.Draft{Subject: record.GrantSubject(id), Digest: id.Digest(), Body: &record.Grant{}}, raw)
	return id
}

// rules are made, amended, and released by votes or kept by them.
func (c *chronicle) rules(people []scribe) {
	many(20*chronicleScale, func(i int) {
		subject, err := record.RuleSubject(fmt.Sprintf("rule-%d", i))
		if err != nil {
			c.t.Error(err)
			return
		}
		rule := particle.QuarantineRule{
			Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "a rule of the tests",
			Match: []particle.RuleMatch{{Names: []string{fmt.Sprintf("never-%d-*", i)}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
		}
		c.submit(people[i], subject, &record.Quarantine{QuarantineRule: rule})
		if i%2 == 0 {
			rule.Reason = "said better"
			c.submit(people[i+1], subject, &record.Quarantine{QuarantineRule: rule})
		}
		if i%3 == 0 {
			return
		}
		proposal := c.submit(people[i+1], subject, &record.Release{Reason: "audited"})
		verdict := record.VerdictApprove
		if i%3 == 1 {
			verdict = record.VerdictReject
		}
		c.submit(people[i+2], subject, &record.Approve{Record: proposal, Verdict: verdict, Reason: "looked at"})
		if verdict == record.VerdictApprove {
			c.submit(people[i+3], subject, &record.Approve{Record: proposal, Verdict: verdict, Reason: "looked at"})
		}
	})
}

// settings change one after the other.
func (c *chronicle) settings() {
	for i := range 10 {
		body := c.r.Settings().Registry
		body.PrivateNames = append(slices.Clone(body.PrivateNames), fmt.Sprintf("private-%d-", i))
		c.submit(c.admin, record.RegistrySubject(), &body)
	}
}

// upstreams are seen: crates of two, of which some grow, some lose a version, and of some
// the bytes are said to be others.
func (c *chronicle) upstreams() {
	line := func(name, version, of string) string {
		return fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"cksum":%q,"features":{},"yanked":false,"pubtime":"2024-05-06T07:08:09Z"}`+"\n",
			name, version, storage.CIDOf([]byte(of)).Hex())
	}
	many(40*chronicleScale, func(i int) {
		name, upstream := fmt.Sprintf("There-%d", i), []string{particle.SourceCratesIO, "lab"}[i%2]
		first, second := line(name, "1.0.0", name), line(name, "1.1.0", "more of "+name)
		for _, file := range [][]string{{first}, {first, first + second}, {first + second, first}, {first, line(name, "1.0.0", "another"), first}, {first, ""}}[i%5] {
			if _, err := c.r.Import(context.Background(), upstream, strings.ToLower(name), []byte(file)); err != nil {
				c.t.Errorf("upstream/%s/%s: %v", upstream, name, err)
			}
			c.count(record.TypeImport)
		}
	})
}

// everyType are the types of records that are entries.
var everyType = []record.Type{
	record.TypeRegistry, record.TypeMember, record.TypeDID, record.TypePublish, record.TypeYank, record.TypeOwn, record.TypeApprove,
	record.TypeGrant, record.TypeRevoke, record.TypeQuarantine, record.TypeRelease, record.TypeImport,
}

// whole says what is missing for a chronicle to be one.
func (w written) whole() error {
	for _, kind := range everyType {
		if w.made[kind] == 0 {
			return fmt.Errorf("no %s record was made", kind)
		}
	}
	if w.size < 2000 {
		return errors.New("it has but " + strconv.FormatInt(w.size, 10) + " entries")
	}
	return nil
}

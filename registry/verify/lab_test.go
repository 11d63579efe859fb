package verify

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// person is somebody who signs: a key and the name it signs under.
type person struct {
	key did.PrivateKey
	url did.URL
	// document is a did:web's, nil for did:key; documentRecord put it in force.
	document       []byte
	documentRecord record.ID
}

func (p *person) did() did.DID { return p.url.DID }

func (p *person) documentCID() storage.CID {
	if p.document == nil {
		return storage.CID{}
	}
	return storage.CIDOf(p.document)
}

func (p *person) documentPointer() *storage.CID {
	if p.document == nil {
		return nil
	}
	id := storage.CIDOf(p.document)
	return &id
}

// lab is a registry that logs whatever it is given: it asks nobody.
type lab struct {
	t       testing.TB
	rand    *rand.ChaCha8
	now     time.Time
	origin  *person
	admin   *person
	logKeys []translog.LogKey
	items   []Item // without proofs
	hashes  translog.Memory
	// genesis and member are entries 0 and 1.
	genesis, member *record.Record
	old             []byte // checkpoint note after genesis
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, rand: rand.NewChaCha8([32]byte{1}), now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}
	l.origin, l.admin = l.person(), l.person()
	l.addLogKey()
	l.genesis = l.log(l.origin, record.RegistrySubject(), l.settings(), cite{})
	l.member = l.log(l.admin, record.MemberSubject(l.admin.did()), publisher(l.admin), cite{by: l.genesis})
	l.old = l.note()
	return l
}

func (l *lab) person() *person {
	l.t.Helper()
	key, err := did.GenerateEd25519(l.rand)
	if err != nil {
		l.t.Fatal(err)
	}
	return &person{key: key, url: key.Public().URL()}
}

// webPerson is a did:web whose key is listed in the relationships given.
func (l *lab) webPerson(host string, relationships ...did.Relationship) *person {
	l.t.Helper()
	p := l.person()
	url, err := did.ParseURL("did:web:" + host + "#key-1")
	if err != nil {
		l.t.Fatal(err)
	}
	p.url = url
	p.document = documentFor(p, relationships...)
	return p
}

func documentFor(p *person, relationships ...did.Relationship) []byte {
	var uses strings.Builder
	for _, rel := range relationships {
		fmt.Fprintf(&uses, `,"%s":["%s"]`, rel, p.url)
	}
	return fmt.Appendf(nil, `{"id":"%s","verificationMethod":[{"id":"%s","type":"Multikey","controller":"%s","publicKeyMultibase":"%s"}]%s}`,
		p.did(), p.url, p.did(), p.key.Public().Multikey(), uses.String())
}

func (l *lab) addLogKey() {
	l.t.Helper()
	private, _ := l.person().key.Ed25519()
	key, err := translog.NewLogKey(private)
	if err != nil {
		l.t.Fatal(err)
	}
	l.logKeys = append(l.logKeys, key)
}

func (l *lab) settings() *record.Registry {
	l.t.Helper()
	keys := []string{} // the newest first
	for _, key := range l.logKeys {
		public, err := did.NewEd25519PublicKey(key.Public())
		if err != nil {
			l.t.Fatal(err)
		}
		keys = append([]string{public.Multikey()}, keys...)
	}
	return &record.Registry{
		DID: l.origin.did(), LogKeys: keys, IndexURLs: []string{"sparse+http://127.0.0.1:8585/index/"},
		Admins: []did.DID{l.admin.did()}, AdminThreshold: 1, ReleaseK: 1,
		TierDefault:          record.TierDefault{CoreStakeholder: record.Allow, Collaborator: record.Allow, Guest: record.Deny},
		DependencyRegistries: []string{}, PrivateNames: []string{},
	}
}

func publisher(p *person) *record.Member { return memberOf(p, "publisher") }

func memberOf(p *person, roles ...string) *record.Member {
	if roles == nil {
		roles = []string{}
	}
	return &record.Member{DIDDocument: p.documentPointer(), Roles: roles, Tier: "collaborator", StakeholderAddrs: []string{}}
}

// cite is what a record says of those before it; change alters the draft at last.
type cite struct {
	prev, by *record.Record
	digest   [sha256.Size]byte
	change   func(*record.Draft)
	attach   [][]byte
}

func idOf(r *record.Record) record.ID {
	if r == nil {
		return ""
	}
	return r.ID()
}

// sign makes a record without logging it.
func (l *lab) sign(p *person, subject record.Subject, body record.Body, c cite) *record.Record {
	l.t.Helper()
	draft := record.Draft{
		Subject: subject, Digest: c.digest, Body: body,
		Header: record.Header{
			Registry: l.origin.did(), IssuedAt: l.now, Expires: l.now.Add(time.Hour),
			Prev: idOf(c.prev), By: idOf(c.by), Key: p.documentRecord,
		},
	}
	if c.change != nil {
		c.change(&draft)
	}
	r, err := record.Sign(draft, p.key.Signer(p.url))
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// log signs and logs a record a minute later than the last one.
func (l *lab) log(p *person, subject record.Subject, body record.Body, c cite) *record.Record {
	l.t.Helper()
	r := l.sign(p, subject, body, c)
	l.append(r, p.documentCID(), c.attach...)
	return r
}

func (l *lab) append(r *record.Record, document storage.CID, attachments ...[]byte) {
	l.t.Helper()
	l.appendRaw(r.Envelope(), document, attachments...)
}

func (l *lab) appendRaw(envelope []byte, document storage.CID, attachments ...[]byte) {
	l.t.Helper()
	entry, err := translog.Entry{Time: l.now, Record: storage.CIDOf(envelope), DIDDocument: document}.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.hashes.Append(translog.LeafHash(entry)); err != nil {
		l.t.Fatal(err)
	}
	l.items = append(l.items, Item{Index: int64(len(l.items)), Entry: entry, Envelope: envelope, Attachments: attachments})
	l.now = l.now.Add(time.Minute)
}

// admit logs the admin's member record about p, and p's document with it.
func (l *lab) admit(p *person, body *record.Member, prev *record.Record) *record.Record {
	l.t.Helper()
	c := cite{by: l.genesis, prev: prev}
	if p.document != nil {
		c.attach = [][]byte{p.document}
	}
	r := l.log(l.admin, record.MemberSubject(p.did()), body, c)
	if p.document != nil {
		p.documentRecord = r.ID()
	}
	return r
}

func (l *lab) publish(p *person, name, version string, prev, by *record.Record) *record.Record {
	l.t.Helper()
	return l.log(p, l.version(name, version), &record.Publish{Evidence: []storage.CID{}},
		cite{prev: prev, by: by, digest: sha256.Sum256([]byte(name + version))})
}

func (l *lab) yank(p *person, name, version string, yanked bool, prev, by *record.Record) *record.Record {
	l.t.Helper()
	return l.log(p, l.version(name, version), &record.Yank{Yanked: yanked}, cite{prev: prev, by: by})
}

func (l *lab) own(p *person, name string, add, remove []*person, prev, by *record.Record) *record.Record {
	l.t.Helper()
	return l.log(p, l.name(name), ownBody(add, remove, nil), cite{prev: prev, by: by})
}

func ownBody(add, remove []*person, intent *storage.CID) *record.Own {
	body := &record.Own{Add: []did.DID{}, Remove: []did.DID{}, Intent: intent}
	for _, p := range add {
		body.Add = append(body.Add, p.did())
	}
	for _, p := range remove {
		body.Remove = append(body.Remove, p.did())
	}
	return body
}

// intend signs an own-intent for two minutes, as cargo's credential provider does.
func (l *lab) intend(p *person, name string, prev, by *record.Record) *record.Record {
	l.t.Helper()
	return l.sign(p, l.name(name), &record.OwnIntent{}, cite{prev: prev, by: by, change: func(d *record.Draft) {
		d.Header.Expires = d.Header.IssuedAt.Add(2 * time.Minute)
	}})
}

// ownFor logs an owner change that the registry signs on an intent.
func (l *lab) ownFor(intent *record.Record, name string, add, remove []*person, prev, by *record.Record) *record.Record {
	l.t.Helper()
	id := intent.CID()
	return l.log(l.origin, l.name(name), ownBody(add, remove, &id), cite{prev: prev, by: by, attach: [][]byte{intent.Envelope()}})
}

func (l *lab) version(name, version string) record.Subject {
	l.t.Helper()
	s, err := record.VersionSubject(record.KindCrate, name, version)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) name(name string) record.Subject {
	l.t.Helper()
	s, err := record.ArtifactSubject(record.KindCrate, name)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) want(name, version string) Want {
	l.t.Helper()
	return Want{Subject: l.version(name, version), CID: storage.CIDOf([]byte(name + version))}
}

func (l *lab) checkpoint() translog.Checkpoint {
	l.t.Helper()
	root, err := l.hashes.Root()
	if err != nil {
		l.t.Fatal(err)
	}
	return translog.Checkpoint{Origin: string(l.origin.did()), Size: l.hashes.Size(), Root: root}
}

func (l *lab) note() []byte {
	l.t.Helper()
	note, err := translog.Sign(l.checkpoint(), l.logKeys[len(l.logKeys)-1:], l.now)
	if err != nil {
		l.t.Fatal(err)
	}
	return note
}

// pin is what a client knows who logged in after genesis.
func (l *lab) pin() Pin {
	return Pin{
		Origin: l.origin.did(), Entry0: translog.LeafHash(l.items[0].Entry), Checkpoint: l.old,
		Freshness: Freshness{Now: l.now.Add(time.Hour), MaxAge: 24 * time.Hour},
	}
}

// evidence is the whole log, or the entries at indexes, with honest proofs.
func (l *lab) evidence(indexes ...int64) Evidence {
	l.t.Helper()
	if indexes == nil {
		for i := range l.items {
			indexes = append(indexes, int64(i))
		}
	}
	ev := Evidence{Checkpoint: l.note()}
	var err error
	older, err := translog.Peek(l.old)
	if err != nil {
		l.t.Fatal(err)
	}
	if older.Size < l.hashes.Size() {
		if ev.Consistency, err = translog.ConsistencyProof(older.Size, l.hashes.Size(), &l.hashes); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, i := range indexes {
		item := l.items[i]
		if item.Proof, err = translog.InclusionProof(l.hashes.Size(), i, &l.hashes); err != nil {
			l.t.Fatal(err)
		}
		ev.Items = append(ev.Items, item)
	}
	return ev
}

// replay runs the log through Replay.
func (l *lab) replay() (Replayed, error) {
	return Replay(context.Background(), l.checkpoint(), l.pin(), labLog{l}, nil)
}

// labLog hands a lab's log out.
type labLog struct{ *lab }

func (l labLog) Entry(_ context.Context, index int64) ([]byte, error) {
	return l.items[index].Entry, nil
}

func (l labLog) Record(_ context.Context, index int64, _ translog.Entry) ([]byte, [][]byte, error) {
	return l.items[index].Envelope, l.items[index].Attachments, nil
}

// wantFailure holds a verdict to the first failing check and a part of its detail.
func wantFailure(t *testing.T, v Verdict, check, detail string) {
	t.Helper()
	failed, any := v.Failure()
	if v.OK() || !any {
		t.Fatalf("passed, but %s should have failed: %+v", check, v.Checks)
	}
	if failed.Name != check || !strings.Contains(failed.Detail, detail) {
		t.Fatalf("failed at %s: %q; want %s saying %q", failed.Name, failed.Detail, check, detail)
	}
}

func wantOK(t *testing.T, v Verdict) {
	t.Helper()
	if failed, any := v.Failure(); any || !v.OK() {
		t.Fatalf("failed at %s: %s", failed.Name, failed.Detail)
	}
}

func flipHash(h tlog.Hash) tlog.Hash {
	h[0] ^= 1
	return h
}

// withPredicateType returns the envelope with another type of statement in it;
// its signature does not hold any more.
func withPredicateType(t *testing.T, envelope []byte, from, to string) []byte {
	t.Helper()
	parts := strings.SplitN(string(envelope), `"`, 5) // {"payload":"…
	payload, err := base64.StdEncoding.DecodeString(parts[3])
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(payload), from, to, 1)
	if changed == string(payload) {
		t.Fatalf("no %s in %s", from, payload)
	}
	parts[3] = base64.StdEncoding.EncodeToString([]byte(changed))
	return []byte(strings.Join(parts, `"`))
}

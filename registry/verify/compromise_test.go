package verify

import (
	"fmt"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// documentOf is a document of id with all keys in every relationship, each named by its Multikey.
func documentOf(t *testing.T, id did.DID, keys ...did.PrivateKey) []byte {
	t.Helper()
	var list []did.DocumentKey
	for _, k := range keys {
		list = append(list, did.DocumentKey{ID: did.URL{DID: id, Fragment: k.Public().Multikey()}, Key: k.Public()})
	}
	data, err := did.NewDocument(id, list)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// lodger is a did:web member with keys that come and go.
type lodger struct {
	*scene
	t        *testing.T
	id       did.DID
	document []byte
	inForce  *record.Record
	head     *record.Record // the last about the lodger
	member   *record.Record
}

func newLodger(t *testing.T, keys ...did.PrivateKey) *lodger {
	s := newScene(t)
	l := &lodger{scene: s, t: t, id: "did:web:lab.example"}
	l.document = documentOf(t, l.id, keys...)
	p := l.with(keys[0])
	l.member = s.admit(p, publisher(p), nil)
	l.inForce, l.head = l.member, l.member
	return l
}

// with is the lodger signing with key under the document in force.
func (l *lodger) with(key did.PrivateKey) *person {
	p := &person{key: key, url: did.URL{DID: l.id, Fragment: key.Public().Multikey()}, document: l.document}
	if l.inForce != nil {
		p.documentRecord = l.inForce.ID()
	}
	return p
}

// change replaces the document, signed by who (nil: the admin).
func (l *lodger) change(who *person, since int64, keys ...did.PrivateKey) {
	l.t.Helper()
	next := documentOf(l.t, l.id, keys...)
	c := cite{prev: l.head, by: l.inForce, attach: [][]byte{next}}
	if who == nil {
		who, c.by = l.admin, l.genesis
	}
	body := &record.DIDChange{DIDDocument: *(&person{document: next}).documentPointer()}
	if since >= 0 {
		body.CompromisedSince = &since
	}
	r := l.log(who, record.MemberSubject(l.id), body, c)
	l.document, l.inForce, l.head = next, r, r
}

func (l *lodger) next() int64 { return int64(len(l.items)) }

// verdict judges name@1.0.0: "" when it holds, else the first failure.
func (l *lodger) verdict(name string) string {
	l.t.Helper()
	l.wantClean(l.t)
	failed, _ := Artifact(l.want(name, "1.0.0"), l.evidence(), l.pin()).Failure()
	return failed.Detail
}

func wantVerdict(t *testing.T, got, says string) {
	t.Helper()
	if (got == "") != (says == "") || !strings.Contains(got, says) {
		t.Errorf("%q, want it to say %q", got, says)
	}
}

func TestARotatedKeysPublishesStayProved(t *testing.T) {
	k := newScene(t).keysFor(3)
	l := newLodger(t, k[0])
	l.publish(l.with(k[0]), "first", "1.0.0", nil, l.member)
	l.change(l.with(k[0]), -1, k[0], k[1])
	l.publish(l.with(k[0]), "second", "1.0.0", nil, l.member)
	l.publish(l.with(k[1]), "third", "1.0.0", nil, l.member)
	l.change(l.with(k[1]), -1, k[2])
	l.publish(l.with(k[2]), "fourth", "1.0.0", nil, l.member)
	for _, name := range []string{"first", "second", "third", "fourth"} {
		wantVerdict(t, l.verdict(name), "")
	}
	old := l.with(k[1]) // its key is gone from the document in force
	l.lab.publish(old, "fifth", "1.0.0", nil, l.member)
	failed, _ := Artifact(l.want("fifth", "1.0.0"), l.evidence(), l.pin()).Failure()
	wantVerdict(t, failed.Detail, "key not found")
}

// keysFor makes n keys.
func (s *scene) keysFor(n int) []did.PrivateKey {
	var list []did.PrivateKey
	for range n {
		list = append(list, s.person().key)
	}
	return list
}

func TestAKeyThatStaysIsNoneOfTheCompromised(t *testing.T) {
	k := newScene(t).keysFor(3)
	l := newLodger(t, k[0], k[1])
	since := l.next()
	l.publish(l.with(k[0]), "kept", "1.0.0", nil, l.member)
	l.publish(l.with(k[1]), "lost", "1.0.0", nil, l.member)
	l.change(l.with(k[0]), since, k[0], k[2])
	l.publish(l.with(k[2]), "new", "1.0.0", nil, l.member)
	wantVerdict(t, l.verdict("kept"), "")
	wantVerdict(t, l.verdict("lost"), "compromised from")
	wantVerdict(t, l.verdict("new"), "")
}

func TestWhatAThiefSignedDoesNotCountAgainstTheOwner(t *testing.T) {
	k := newScene(t).keysFor(3) // the owner's, the thief's, the owner's new one
	l := newLodger(t, k[0])
	l.publish(l.with(k[0]), "owners", "1.0.0", nil, l.member)
	before := l.publish(l.with(k[0]), "both", "1.0.0", nil, l.member)
	since := l.next()
	l.publish(l.with(k[0]), "both", "1.1.0", before, before)
	l.publish(l.with(k[0]), "stolen", "1.0.0", nil, l.member)
	l.change(l.with(k[0]), 0, k[1]) // the thief shuts the owner out and disowns all before
	l.publish(l.with(k[1]), "thiefs", "1.0.0", nil, l.member)
	wantVerdict(t, l.verdict("owners"), "compromised from entry 0 on")
	l.change(nil, since, k[2]) // until an admin sets it right
	l.publish(l.with(k[2]), "after", "1.0.0", nil, l.member)
	wantVerdict(t, l.verdict("owners"), "")
	wantVerdict(t, l.verdict("both"), "")
	wantVerdict(t, l.verdict("after"), "")
	for _, name := range []string{"stolen", "thiefs"} {
		wantVerdict(t, l.verdict(name), fmt.Sprintf("compromised from entry %d on", since))
	}
	v := Artifact(l.want("both", "1.1.0"), l.evidence(), l.pin())
	wantFailure(t, v, CheckSignature, "compromised")
}

// says logs a did record about the document in force, signed by who (nil: the admin).
func (l *lodger) says(who *person, since int64) {
	l.t.Helper()
	c := cite{prev: l.head, by: l.inForce, attach: [][]byte{l.document}}
	if who == nil {
		who, c.by = l.admin, l.genesis
	}
	body := &record.DIDChange{DIDDocument: *(&person{document: l.document}).documentPointer(), CompromisedSince: &since}
	l.head = l.log(who, record.MemberSubject(l.id), body, c)
}

// A theft noticed when the key was replaced long ago is declared as if that had
// been said then: the rotation itself, signed by the stolen key, stands.
func TestATheftNoticedAfterTheRotationIsDeclaredLater(t *testing.T) {
	for who, signs := range map[string]func(*lodger, did.PrivateKey) *person{
		"the member": func(l *lodger, k did.PrivateKey) *person { return l.with(k) },
		"an admin":   func(*lodger, did.PrivateKey) *person { return nil },
	} {
		t.Run(who, func(t *testing.T) {
			k := newScene(t).keysFor(3)
			l := newLodger(t, k[0])
			l.publish(l.with(k[0]), "before", "1.0.0", nil, l.member)
			since := l.next()
			l.publish(l.with(k[0]), "stolen", "1.0.0", nil, l.member)
			later := l.next()
			l.publish(l.with(k[0]), "late", "1.0.0", nil, l.member)
			l.change(l.with(k[0]), -1, k[1])
			l.publish(l.with(k[1]), "between", "1.0.0", nil, l.member)
			l.says(signs(l, k[1]), later) // a first guess
			wantVerdict(t, l.verdict("late"), "compromised")
			wantVerdict(t, l.verdict("stolen"), "")
			l.says(signs(l, k[1]), since)
			declared := l.next() - 1
			l.publish(l.with(k[1]), "after", "1.0.0", nil, l.member)
			for _, name := range []string{"before", "between", "after"} {
				wantVerdict(t, l.verdict(name), "")
			}
			wantVerdict(t, l.verdict("stolen"), fmt.Sprintf("compromised from entry %d on, as entry %d says", since, declared))
			l.change(l.with(k[1]), declared+1, k[2]) // and the next key is stolen, too
			l.publish(l.with(k[2]), "last", "1.0.0", nil, l.member)
			for name, says := range map[string]string{"before": "", "stolen": "compromised", "between": "", "after": "compromised", "last": ""} {
				wantVerdict(t, l.verdict(name), says)
			}
		})
	}
}

// Changes of keys that the stolen key signed, and that the word about it rests on, stand.
func TestAWordAboutATheftDoesNotUndoItself(t *testing.T) {
	for name, change := range map[string]func(l *lodger, k []did.PrivateKey, since int64){
		"two keys for a while": func(l *lodger, k []did.PrivateKey, since int64) {
			l.change(l.with(k[0]), -1, k[0], k[1])
			l.publish(l.with(k[0]), "late", "1.0.0", nil, l.member)
			l.change(l.with(k[1]), since, k[1])
		},
		"two keys for a while, said later": func(l *lodger, k []did.PrivateKey, since int64) {
			l.change(l.with(k[0]), -1, k[0], k[1])
			l.publish(l.with(k[0]), "late", "1.0.0", nil, l.member)
			l.change(l.with(k[1]), -1, k[1])
			l.says(l.with(k[1]), since)
		},
		"two keys later": func(l *lodger, k []did.PrivateKey, since int64) {
			l.publish(l.with(k[0]), "late", "1.0.0", nil, l.member)
			l.change(l.with(k[0]), -1, k[2])
			l.change(l.with(k[2]), -1, k[1])
			l.says(nil, since)
		},
		"a key replaced once more": func(l *lodger, k []did.PrivateKey, since int64) {
			l.publish(l.with(k[0]), "late", "1.0.0", nil, l.member)
			l.change(l.with(k[0]), -1, k[2])
			l.change(l.with(k[2]), since, k[1])
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newScene(t).keysFor(3)
			l := newLodger(t, k[0])
			l.publish(l.with(k[0]), "before", "1.0.0", nil, l.member)
			since := l.next()
			l.publish(l.with(k[0]), "stolen", "1.0.0", nil, l.member)
			change(l, k, since)
			l.publish(l.with(k[1]), "after", "1.0.0", nil, l.member)
			for name, says := range map[string]string{"before": "", "stolen": "compromised from", "late": "compromised from", "after": ""} {
				wantVerdict(t, l.verdict(name), says)
			}
		})
	}
}

// What the thief's own change of keys says is not believed, nor the thief's key,
// though the owner's word, by another key, had to be signed under that document.
func TestWhoHasAnotherKeyRecoversAlone(t *testing.T) {
	k := newScene(t).keysFor(3)
	l := newLodger(t, k[0], k[1])
	l.publish(l.with(k[0]), "owners", "1.0.0", nil, l.member)
	since := l.next()
	l.change(l.with(k[0]), 0, k[1], k[2]) // the thief has k[0], and k[2]
	l.publish(l.with(k[2]), "thiefs", "1.0.0", nil, l.member)
	wantVerdict(t, l.verdict("owners"), "compromised from entry 0 on")
	l.change(l.with(k[1]), since, k[1])
	l.publish(l.with(k[1]), "after", "1.0.0", nil, l.member)
	for name, says := range map[string]string{"owners": "", "thiefs": fmt.Sprintf("compromised from entry %d on", since), "after": ""} {
		wantVerdict(t, l.verdict(name), says)
	}
}

// An admin's word for another document vouches for nothing that came before it.
func TestAnAdminsDocumentSparesNoChangeOfAStolenKey(t *testing.T) {
	k := newScene(t).keysFor(3)
	l := newLodger(t, k[0])
	since := l.next()
	l.change(l.with(k[0]), -1, k[1])
	l.publish(l.with(k[1]), "thiefs", "1.0.0", nil, l.member)
	l.change(nil, since, k[1], k[2]) // the admin does not know that k[1] is the thief's
	l.publish(l.with(k[2]), "after", "1.0.0", nil, l.member)
	wantVerdict(t, l.verdict("thiefs"), "compromised from")
	wantVerdict(t, l.verdict("after"), "")
}

// A thief who disowned the owner's past is believed until somebody says since when
// the key was the thief's: the owner's document alone takes nothing back.
func TestWhatAThiefDisownedIsBelievedOnceTheTheftIsDeclared(t *testing.T) {
	k := newScene(t).keysFor(3)
	l := newLodger(t, k[0])
	l.publish(l.with(k[0]), "owners", "1.0.0", nil, l.member)
	since := l.next()
	l.change(l.with(k[0]), 0, k[1])
	l.publish(l.with(k[1]), "thiefs", "1.0.0", nil, l.member)
	l.change(nil, -1, k[2]) // an admin enters the owner's document, and no more
	l.publish(l.with(k[2]), "after", "1.0.0", nil, l.member)
	wantVerdict(t, l.verdict("owners"), "compromised from entry 0 on")
	wantVerdict(t, l.verdict("thiefs"), "")
	l.says(nil, since)
	wantVerdict(t, l.verdict("owners"), "")
	wantVerdict(t, l.verdict("after"), "")
	wantVerdict(t, l.verdict("thiefs"), fmt.Sprintf("compromised from entry %d on", since))
}

// TestSettingsOfACompromisedAdminArePassedOver: what does not rest on them stays proved,
// and who was an admin before can set them right.
func TestSettingsOfACompromisedAdminArePassedOver(t *testing.T) {
	k := newScene(t).keysFor(2)
	l := newLodger(t, k[0])
	settings := l.settings()
	settings.Admins = append(settings.Admins, l.id)
	a := l.log(l.admin, record.RegistrySubject(), settings, cite{prev: l.genesis, by: l.genesis})
	l.log(l.admin, record.MemberSubject(l.stranger.did()), publisher(l.stranger), cite{by: a})
	since := l.next()
	widened := l.settings()
	widened.Admins = append(widened.Admins, l.id, l.stranger.did())
	b := l.log(l.with(k[0]), record.RegistrySubject(), widened, cite{prev: a, by: a})
	carl := l.person()
	m := l.log(l.stranger, record.MemberSubject(carl.did()), publisher(carl), cite{by: b})
	l.publish(carl, "carls", "1.0.0", nil, m)
	next := documentOf(t, l.id, k[1])
	r := l.log(l.admin, record.MemberSubject(l.id), &record.DIDChange{DIDDocument: *(&person{document: next}).documentPointer(), CompromisedSince: &since},
		cite{prev: l.inForce, by: b, attach: [][]byte{next}})
	l.document, l.inForce = next, r
	c := l.log(l.admin, record.RegistrySubject(), settings, cite{prev: b, by: b})
	l.publish(l.with(k[1]), "after", "1.0.0", nil, l.member)
	dora := l.person()
	m = l.log(l.admin, record.MemberSubject(dora.did()), publisher(dora), cite{by: c})
	l.publish(dora, "doras", "1.0.0", nil, m)
	for name, says := range map[string]string{"after": "", "doras": "", "carls": "counts as compromised"} {
		wantVerdict(t, l.verdict(name), says)
	}
	wantOK(t, Artifact(l.want("demo", "0.1.0"), l.evidence(), l.pin()))
}

package client

import (
	"crypto/rand"
	"errors"
	"math"
	"net/http"
	"slices"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// webDocument is webHost's with the keys given.
func webDocument(t *testing.T, keys ...did.PublicKey) []byte {
	t.Helper()
	var list []did.DocumentKey
	for _, k := range keys {
		list = append(list, did.DocumentKey{ID: did.URL{DID: webHost, Fragment: k.Multikey()}, Key: k})
	}
	raw, err := did.NewDocument(webHost, list)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func names(keys ...did.PublicKey) []string {
	list := []string{}
	for _, k := range keys {
		list = append(list, k.Multikey())
	}
	slices.Sort(list)
	return list
}

func TestDisownedAreTheKeysThatCouldSign(t *testing.T) {
	var k [4]did.PublicKey
	for i := range k {
		k[i] = must(did.GenerateEd25519(rand.Reader)).Public()
	}
	during := func(from, to int64, keys ...did.PublicKey) tenure {
		return tenure{document: must(did.ParseDocument(webDocument(t, keys...))), from: from, to: to}
	}
	list := []tenure{during(2, 5, k[0]), during(5, 9, k[0], k[1]), during(9, math.MaxInt64, k[1], k[2])}
	for name, tt := range map[string]struct {
		next       []did.PublicKey
		since      int64
		gone, kept []string
	}{
		"all":                                {k[3:], 0, names(k[0], k[1], k[2]), names()},
		"one that was retired":               {k[1:3], 8, names(k[0]), names(k[1], k[2])},
		"one that was retired before":        {k[1:3], 9, names(), names(k[1], k[2])},
		"the document holds all":             {k[:], 0, names(), names(k[0], k[1], k[2])},
		"those in force":                     {k[3:], 1 << 40, names(k[1], k[2]), names()},
		"a key that comes back is not stale": {k[:1], 9, names(k[1], k[2]), names()},
	} {
		t.Run(name, func(t *testing.T) {
			gone, kept := disowned(list, must(did.ParseDocument(webDocument(t, tt.next...))), tt.since)
			slices.Sort(gone)
			slices.Sort(kept)
			if !slices.Equal(gone, tt.gone) || !slices.Equal(kept, tt.kept) {
				t.Errorf("%v and kept %v, want %v and %v", gone, kept, tt.gone, tt.kept)
			}
		})
	}
}

// TestTenuresFollowTheRecords: documents that are repeated stay in force, with what
// is said of the keys before them.
func TestTenuresFollowTheRecords(t *testing.T) {
	f, _, _ := loggedIn(t)
	one, two := storage.CIDOf([]byte("one")), storage.CIDOf([]byte("two"))
	at := func(n int64) *int64 { return &n }
	admitted := &record.Member{DIDDocument: &one, Roles: []string{"publisher"}, Tier: "guest"}
	removed := &record.Member{DIDDocument: &two, Roles: []string{}, Tier: "guest"}
	bodies := []record.Body{ // at the log indexes 10, 11, …
		admitted, admitted, &record.DIDChange{DIDDocument: two}, &record.DIDChange{DIDDocument: two, CompromisedSince: at(11)},
		&record.DIDChange{DIDDocument: two, CompromisedSince: at(10)}, removed,
		&record.DIDChange{DIDDocument: one, CompromisedSince: at(14)},
	}
	var list []tenure
	for i, body := range slices.Backward(bodies) {
		rec := f.sign(f.origin.Signer(f.origin.Public().URL()), record.MemberSubject(webHost), [32]byte{}, record.Header{}, body)
		list = withRecord(list, rec, int64(10+i))
	}
	slices.Reverse(list)
	want := []tenure{{cid: one, from: 10, to: 12}, {cid: two, from: 12, to: 16, compromised: at(10)}, {cid: one, from: 16, to: math.MaxInt64, compromised: at(14)}}
	same := func(a, b tenure) bool {
		return a.cid == b.cid && a.from == b.from && a.to == b.to && a.says(b.compromised) && (b.compromised != nil || a.compromised == nil)
	}
	if !slices.EqualFunc(list, want, same) {
		t.Errorf("%+v, want %+v", list, want)
	}
	last := want[1]
	for since, want := range map[int64]bool{9: false, 10: true, 11: true} {
		if last.says(&since) != want {
			t.Errorf("compromised since 10 says since %d: %v", since, !want)
		}
	}
	if !last.says(nil) || want[0].says(at(math.MaxInt64)) {
		t.Error("nothing is said always, and something only once it was said")
	}
}

func TestTenuresOfAnotherHistoryAreRefused(t *testing.T) {
	f, _, r := loggedIn(t)
	me := r.identity.DID()
	if _, err := r.tenures(t.Context(), me); !errors.Is(err, ErrNotMember) {
		t.Errorf("a did:key has documents: %v", err)
	}
	// A record about somebody else, given as the last about me.
	f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/v1/heads/"+record.MemberSubject(me).Thing() {
			return false
		}
		writeJSON(w, map[string]any{"thing": record.MemberSubject(me).Thing(), "prev": f.records[0].ID(), "by": f.records[0].ID(), "key": nil, "origin": f.origin.Public().DID()})
		return true
	}
	if _, err := r.tenures(t.Context(), me); !errors.Is(err, ErrAnswer) {
		t.Errorf("%v", err)
	}
}

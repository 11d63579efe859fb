package record

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

var vectorTime = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// edKey is the Ed25519 key whose seed is 32 times b.
func edKey(t testing.TB, b byte) did.PrivateKey {
	t.Helper()
	k, err := did.GenerateEd25519(bytes.NewReader(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// p256Key is the P-256 key whose scalar is 32 times b.
func p256Key(t testing.TB, b byte) did.PrivateKey {
	t.Helper()
	k, err := did.GenerateP256(bytes.NewReader(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keySigner(k did.PrivateKey) did.Signer { return k.Signer(k.Public().URL()) }

type vector struct {
	name   string
	key    did.PublicKey
	record *Record
}

// vectors are one record of each type, as they could follow each other in a log.
func vectors(t testing.TB) []vector {
	t.Helper()
	registry, admin, publisher := edKey(t, 1), edKey(t, 2), p256Key(t, 3)
	web, err := did.Parse("did:web:lab.example%3A8443:people:ada")
	if err != nil {
		t.Fatal(err)
	}
	document := storage.CIDOf([]byte("a DID document"))
	origin := registry.Public().DID()
	var list []vector
	sign := func(name string, k did.PrivateKey, s Subject, digest [32]byte, prev, by ID, body Body) ID {
		t.Helper()
		r, err := Sign(Draft{Subject: s, Digest: digest, Body: body, Header: Header{
			Registry: origin, IssuedAt: vectorTime, Expires: vectorTime.Add(time.Hour), Prev: prev, By: by,
		}}, keySigner(k))
		if err != nil {
			t.Fatalf("sign %s: %v", name, err)
		}
		list = append(list, vector{name, k.Public(), r})
		return r.ID()
	}
	var none [32]byte
	artifact, version := mustSubject(t, "crate/demo-one"), mustSubject(t, "crate/demo-one@0.1.0")
	settings := sign("registry", registry, RegistrySubject(), none, "", "", exampleSettings(t))
	sign("member-admin", admin, MemberSubject(admin.Public().DID()), none, "", settings,
		&Member{Roles: []string{"publisher"}, Tier: "core_stakeholder", StakeholderAddrs: []string{}})
	member := sign("member-publisher", admin, MemberSubject(publisher.Public().DID()), none, "", settings,
		&Member{Roles: []string{"publisher", "auditor"}, Tier: "collaborator", StakeholderAddrs: []string{"addr:example:1"}})
	webMember := sign("member-web", admin, MemberSubject(web), none, "", settings,
		&Member{DIDDocument: &document, Roles: []string{"reviewer"}, Tier: "guest", StakeholderAddrs: []string{}})
	since := int64(4)
	sign("did", admin, MemberSubject(web), none, webMember, settings,
		&DIDChange{DIDDocument: storage.CIDOf([]byte("the next DID document")), CompromisedSince: &since})
	publish := sign("publish", publisher, version, sha256.Sum256([]byte("bytes of demo-one-0.1.0.crate")), "", member,
		&Publish{Evidence: []storage.CID{storage.CIDOf([]byte("evidence"))}})
	sign("publish-shard", publisher, mustSubject(t, "aln-shard/grants.v1@2.0.0-rc.1+lab"), sha256.Sum256([]byte("shard")), "", member,
		&Publish{Evidence: []storage.CID{}, MediaType: "application/vnd.aln.shard+json"})
	yank := sign("yank", publisher, version, none, publish, publish, &Yank{Yanked: true})
	own := sign("own", publisher, artifact, none, yank, publish,
		&Own{Add: []did.DID{admin.Public().DID()}, Remove: []did.DID{}})
	sign("own-intent", publisher, artifact, none, own, publish, &OwnIntent{})
	intent := list[len(list)-1].record.CID()
	sign("own-by-intent", registry, artifact, none, own, publish,
		&Own{Add: []did.DID{}, Remove: []did.DID{publisher.Public().DID()}, Intent: &intent})
	sign("approve", admin, RegistrySubject(), none, settings, settings,
		&Approve{Record: IDOf([]byte("a proposal")), Verdict: VerdictApprove, Reason: "reviewed é <ok>???"})

	reviewer := edKey(t, 5)
	reviews := sign("member-reviewer", admin, MemberSubject(reviewer.Public().DID()), none, "", settings,
		&Member{Roles: []string{"grantor", "reviewer"}, Tier: "core_stakeholder", StakeholderAddrs: []string{}})
	granted := GrantSubject(storage.CIDOf(vectorGrant(t)))
	grant := sign("grant", reviewer, granted, none, "", reviews, &Grant{})
	sign("revoke", admin, granted, none, grant, settings, &Revoke{Reason: "the runner was sold"})
	rule := mustSubject(t, "rule/left-pad")
	evidence, expires, grace := storage.CIDOf([]byte("evidence")), particle.At(vectorTime.Add(48*time.Hour)), particle.At(vectorTime.Add(24*time.Hour))
	quarantine := sign("quarantine", admin, rule, none, "", settings, &Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "it vanished once", Evidence: &evidence, Expires: &expires, Grace: &grace,
		Match: []particle.RuleMatch{
			{Names: []string{"left-pad", "left-pad-*"}, Versions: ">=1.2, <2", Hashes: []string{}, Publishers: []did.DID{publisher.Public().DID()}, Sources: []string{particle.SourceCratesIO, "mirror/lab-2"}, Content: []string{}},
			{Names: []string{}, Hashes: []string{evidence.String(), evidence.Hex()[:63] + "0"}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{particle.ContentBLAKE3}},
		},
	}})
	release := sign("release", reviewer, rule, none, quarantine, reviews, &Release{Reason: "it is back", Evidence: &evidence})
	sign("approve-release", admin, rule, none, release, settings, &Approve{Record: release, Verdict: VerdictReject, Reason: ""})
	seen := mustSubject(t, "upstream/crates-io/Left-pad")
	sign("import", registry, seen, sha256.Sum256([]byte(vectorSnapshot)), IDOf([]byte("the import before")), settings, &Import{})
	return list
}

// vectorSnapshot is the index file that the vector "import" is about.
const vectorSnapshot = `{"name":"left-pad","vers":"0.9.0","deps":[],"cksum":"0101010101010101010101010101010101010101010101010101010101010101","features":{},"yanked":true}
{"name":"Left-pad","vers":"1.0.0+b","deps":[],"cksum":"0202020202020202020202020202020202020202020202020202020202020202","features":{},"yanked":false,"pubtime":"2026-06-01T08:30:00Z"}
`

// vectorGrant is the blob that the vector "grant" is about.
func vectorGrant(t testing.TB) []byte {
	t.Helper()
	raw, err := particle.EnvGrant{
		Registry: edKey(t, 1).Public().DID(), Issuer: edKey(t, 5).Public().DID(), Subject: p256Key(t, 3).Public().DID(),
		NotBefore: particle.At(vectorTime), Expires: particle.At(vectorTime.Add(30 * 24 * time.Hour)), MaxMemMB: 1000, MaxDiskMB: 20000,
		AllowedCrates: []string{storage.CIDOf([]byte("bytes of demo-one-0.1.0.crate")).Hex(), storage.CIDOf([]byte("bytes of another.crate")).String()},
		MinAgeDays:    7, AllowedProtocols: []string{"https"}, AllowedEndpoints: []string{"lab.example:8443"}, Tier: particle.TierCollaborator,
	}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func exampleSettings(t testing.TB) *Registry {
	t.Helper()
	return &Registry{
		DID:     edKey(t, 1).Public().DID(),
		LogKeys: []string{edKey(t, 4).Public().Multikey()}, IndexURLs: []string{"sparse+http://127.0.0.1:8585/index/"},
		Admins: []did.DID{edKey(t, 2).Public().DID()}, AdminThreshold: 1, ReleaseK: 2,
		TierDefault: TierDefault{CoreStakeholder: Allow, Collaborator: Allow, Guest: Deny},
		MinAgeDays:  0, DependencyRegistries: []string{}, PrivateNames: []string{"lab-"},
	}
}

func mustSubject(t testing.TB, text string) Subject {
	t.Helper()
	s, err := ParseSubject(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestVectors holds the bytes of every type's payload and envelope, which
// docs/FORMATS.md quotes: a change here is a change of the format.
func TestVectors(t *testing.T) {
	var index strings.Builder
	fmt.Fprintf(&index, "key registry   Ed25519 seed   %x  %s\n", bytes.Repeat([]byte{1}, 32), edKey(t, 1).Public().DID())
	fmt.Fprintf(&index, "key admin      Ed25519 seed   %x  %s\n", bytes.Repeat([]byte{2}, 32), edKey(t, 2).Public().DID())
	fmt.Fprintf(&index, "key publisher  P-256 scalar   %x  %s\n", bytes.Repeat([]byte{3}, 32), p256Key(t, 3).Public().DID())
	fmt.Fprintf(&index, "key reviewer   Ed25519 seed   %x  %s\n", bytes.Repeat([]byte{5}, 32), edKey(t, 5).Public().DID())
	golden(t, "grant.attachment.json", vectorGrant(t))
	golden(t, "import.attachment.txt", []byte(vectorSnapshot))
	for _, v := range vectors(t) {
		golden(t, v.name+".payload.json", v.record.payload)
		golden(t, v.name+".envelope.json", v.record.Envelope())
		fmt.Fprintf(&index, "record %-16s identity %s  cid %s\n", v.name, v.record.ID(), v.record.CID())
	}
	golden(t, "vectors.txt", []byte(index.String()))
}

// TestVectorFilesVerify reads the golden envelopes as a second implementation
// would: from the file alone.
func TestVectorFilesVerify(t *testing.T) {
	for _, v := range vectors(t) {
		envelope, err := os.ReadFile(filepath.Join("testdata", v.name+".envelope.json"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(envelope)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		key, err := did.KeyOf(r.Header().Signer.DID)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Verify(key); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
		if r.ID() != v.record.ID() || r.CID() != storage.CIDOf(envelope) {
			t.Errorf("%s: identity %s, CID %s", v.name, r.ID(), r.CID())
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// fake is a small registry: it logs what it is given, whoever signed it.
type fake struct {
	t      testing.TB
	server *httptest.Server
	origin did.PrivateKey
	logKey translog.LogKey

	mu       sync.Mutex
	entries  [][]byte
	records  []*record.Record
	mem      translog.Memory
	members  map[did.DID]record.ID
	tokens   map[string]policy.Assertion
	requests []string // method, path and Authorization of each
	// skew is how far its clock is ahead.
	skew time.Duration
	// cosigned is how far from now its checkpoints say that they were cosigned.
	cosigned time.Duration
	// granted are the grants that sessions may name, whoever asks.
	granted []policy.HostGrant
	// tamper may answer in place of the fake.
	tamper func(w http.ResponseWriter, r *http.Request) bool
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newFake starts a registry whose entries 0 and 1 admit admin.
func newFake(t testing.TB, admin Identity) *fake {
	t.Helper()
	f := &fake{t: t, origin: must(did.GenerateEd25519(rand.Reader)), members: map[did.DID]record.ID{}, tokens: map[string]policy.Assertion{}}
	logPrivate := must(did.GenerateEd25519(rand.Reader))
	raw, _ := logPrivate.Ed25519()
	f.logKey = must(translog.NewLogKey(raw))
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	f.genesis(admin, logPrivate.Public().Multikey())
	return f
}

func (f *fake) genesis(admin Identity, logKey string) {
	origin := f.origin.Public().DID()
	first := f.sign(f.origin.Signer(f.origin.Public().URL()), record.RegistrySubject(), [32]byte{}, record.Header{}, &record.Registry{
		DID: origin, LogKeys: []string{logKey}, IndexURLs: []string{IndexURL(f.server.URL)}, Admins: []did.DID{admin.DID()},
		AdminThreshold: 1, ReleaseK: 1, TierDefault: record.TierDefault{CoreStakeholder: record.Allow, Collaborator: record.Allow, Guest: record.Deny},
	})
	f.log(first)
	f.log(f.sign(admin.Signer(), record.MemberSubject(admin.DID()), [32]byte{}, record.Header{By: first.ID()}, &record.Member{Roles: []string{"publisher"}, Tier: particle.TierCoreStakeholder}))
}

func (f *fake) sign(s did.Signer, subject record.Subject, digest [32]byte, h record.Header, body record.Body) *record.Record {
	h.Registry, h.IssuedAt, h.Expires = f.origin.Public().DID(), f.now(), f.now().Add(time.Hour)
	return must(record.Sign(record.Draft{Subject: subject, Digest: digest, Header: h, Body: body}, s))
}

func (f *fake) now() time.Time { return time.Now().Add(f.skew).UTC().Truncate(time.Second) }

func (f *fake) log(rec *record.Record) {
	line := must(translog.Entry{Time: f.now(), Record: rec.CID()}.Marshal())
	f.entries, f.records = append(f.entries, line), append(f.records, rec)
	if err := f.mem.Append(translog.LeafHash(line)); err != nil {
		f.t.Fatal(err)
	}
	if rec.Type() == record.TypeMember {
		f.members[rec.Subject().Member()] = rec.ID()
	}
}

// settle logs settings as change alters those in force.
func (f *fake) settle(admin Identity, change func(*record.Registry)) *record.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	var last *record.Record
	for _, rec := range f.records {
		if aboutSettings(rec) {
			last = rec
		}
	}
	body := cloneSettings(last.Body().(*record.Registry))
	change(body)
	rec := f.sign(admin.Signer(), record.RegistrySubject(), [32]byte{}, record.Header{Prev: last.ID(), By: last.ID()}, body)
	f.log(rec)
	return rec
}

// move makes f answer at another URL and mint for that one alone, as a server
// does whose operator gave it another --public-url.
func (f *fake) move() (old, now string) {
	f.t.Helper()
	moved := httptest.NewServer(f)
	f.t.Cleanup(moved.Close)
	f.mu.Lock()
	defer f.mu.Unlock()
	old, f.server = f.server.URL, moved
	return old, moved.URL
}

// publish logs name@version with those bytes, signed by who.
func (f *fake) publish(who Identity, name, version string, crate []byte) *record.Record {
	subject := must(record.VersionSubject(record.KindCrate, name, version))
	h := f.heads(subject.Thing(), who.DID())
	rec := f.sign(who.Signer(), subject, sha256.Sum256(crate), record.Header{Prev: h.Prev, By: h.By}, &record.Publish{})
	f.log(rec)
	return rec
}

func (f *fake) note() []byte { return f.noteAt(f.now()) }

// noteAt is the checkpoint as the log cosigned it at that time.
func (f *fake) noteAt(at time.Time) []byte {
	cp := translog.Checkpoint{Origin: string(f.origin.Public().DID()), Size: f.mem.Size(), Root: must(f.mem.Root())}
	return must(translog.Sign(cp, []translog.LogKey{f.logKey}, at.Add(f.cosigned)))
}

// heads: prev is the last record about the thing; its first publisher owns it.
func (f *fake) heads(thing string, asker did.DID) Heads {
	h := Heads{Thing: thing, Origin: f.origin.Public().DID(), By: f.members[asker]}
	for _, rec := range f.records {
		if rec.Subject().Thing() != thing {
			continue
		}
		if h.Prev == "" && rec.Type() == record.TypePublish {
			h.By = ""
			if rec.Header().Signer.DID == asker {
				h.By = rec.ID()
			}
		}
		h.Prev = rec.ID()
	}
	return h
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.EscapedPath()+" "+r.Header.Get("Authorization"))
	w.Header().Set("Date", time.Now().Add(f.skew).UTC().Format(http.TimeFormat))
	if f.tamper != nil && f.tamper(w, r) {
		return
	}
	path := r.URL.EscapedPath()
	switch {
	case path == "/log/checkpoint":
		w.Write(f.note())
	case path == "/log/keys" && r.Header.Get("Authorization") == "" && !f.replacedKeys():
		f.serveRecords(w, func(rec *record.Record) bool { return rec == f.records[0] })
	case strings.HasPrefix(path, "/log/tile/"):
		f.serveTile(w, strings.TrimPrefix(path, "/log/"))
	case path == sessionPath:
		f.serveSession(w, r)
	case strings.HasPrefix(path, "/v1/records/"):
		f.serveRecord(w, strings.TrimPrefix(path, "/v1/records/"))
	default:
		f.servePrivate(w, r, path)
	}
}

// servePrivate serves what takes a session.
func (f *fake) servePrivate(w http.ResponseWriter, r *http.Request, path string) {
	token, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), "~")
	asker, ok := f.tokens[token]
	if !ok {
		w.Header().Set("WWW-Authenticate", `Cargo login_url="`+f.server.URL+`/me"`)
		refuse(w, 401, "token", "no session")
		return
	}
	switch {
	case strings.HasPrefix(path, "/v1/heads/"):
		thing := must(url.PathUnescape(strings.TrimPrefix(path, "/v1/heads/")))
		h := f.heads(thing, asker.Subject)
		writeJSON(w, map[string]any{"thing": h.Thing, "prev": h.Prev, "by": h.By, "key": nil, "origin": h.Origin})
	case path == "/v1/records":
		var s submissionJSON
		json.NewDecoder(r.Body).Decode(&s)
		rec := must(record.Parse(must(base64.StdEncoding.DecodeString(s.Record))))
		f.log(rec)
		writeJSON(w, map[string]any{"record": rec.ID(), "index": len(f.records) - 1})
	case path == "/log/keys":
		f.serveRecords(w, aboutSettings)
	case path == "/v1/members":
		writeJSON(w, map[string]any{"members": []map[string]any{{"did": asker.Subject, "roles": []string{"publisher"}, "tier": "guest", "record": f.members[asker.Subject]}}})
	case strings.HasSuffix(path, "/bundle"):
		f.serveRecords(w, func(*record.Record) bool { return true })
	case strings.HasSuffix(path, "/download"):
		io.WriteString(w, "crate bytes")
	case path == "/index/config.json":
		writeJSON(w, map[string]any{"dl": f.server.URL + "/api/v1/crates", "api": f.server.URL, "auth-required": true})
	case strings.HasSuffix(path, "/owners"):
		writeJSON(w, map[string]any{"users": []map[string]any{{"id": 1, "login": asker.Subject, "name": asker.Scope}}})
	default:
		refuse(w, 404, "not-found", "there is no "+path)
	}
}

func (f *fake) serveTile(w http.ResponseWriter, path string) {
	tile, err := translog.ParseTilePath(path)
	if err != nil {
		refuse(w, 404, "path", err.Error())
		return
	}
	if !tile.Entries {
		data, err := translog.ReadTile(tile, f.mem.Size(), &f.mem)
		if err != nil {
			refuse(w, 404, "range", err.Error())
			return
		}
		w.Write(data)
		return
	}
	from, to, err := tile.EntryRange(f.mem.Size())
	if err != nil {
		refuse(w, 404, "range", err.Error())
		return
	}
	var bundle []byte
	for _, line := range f.entries[from:to] {
		bundle = must(translog.AppendBundle(bundle, line))
	}
	w.Write(bundle)
}

func (f *fake) serveRecord(w http.ResponseWriter, id string) {
	for i, rec := range f.records {
		if id == string(rec.ID()) || id == rec.CID().String() {
			w.Header().Set("ALN-Log-Index", fmt.Sprint(i))
			w.Write(rec.Envelope())
			return
		}
	}
	refuse(w, 404, "not-found", "there is no record "+id)
}

func (f *fake) serveRecords(w http.ResponseWriter, wanted func(*record.Record) bool) {
	var records []map[string]any
	for i, rec := range f.records {
		if !wanted(rec) {
			continue
		}
		records = append(records, map[string]any{"index": i, "envelope": rec.Envelope(), "attachments": []string{}})
	}
	writeJSON(w, map[string]any{"records": records})
}

func (f *fake) serveSession(w http.ResponseWriter, r *http.Request) {
	t, err := policy.ParseAssertion(r.PostFormValue("assertion"))
	if err != nil || r.PostFormValue("grant_type") != grantType {
		refuse(w, 400, "token", "not an assertion")
		return
	}
	if err := t.Verify(must(did.KeyOf(t.KeyID.DID))); err != nil {
		refuse(w, 403, "signature", "bad signature")
		return
	}
	if d := policy.CheckAssertion(t, f.server.URL+sessionPath, time.Time{}, f.now()); d != nil {
		refuse(w, 403, string(d.Rule), d.Reason)
		return
	}
	if _, ok := f.members[t.Claims.Subject]; !ok {
		refuse(w, 403, "membership", string(t.Claims.Subject)+" is not a member; aln-registry member add "+string(t.Claims.Subject)+" --role publisher")
		return
	}
	holder := policy.Holder{DID: t.Claims.Subject, Member: true, Admin: true, Roles: []string{"publisher", "auditor"}, Grants: f.granted}
	claims, denial := policy.Admit(t.Claims, holder, f.origin.Public().DID(), fmt.Sprintf("token-number-%d", len(f.tokens)), f.now())
	if denial != nil {
		refuse(w, 403, string(denial.Rule), denial.Reason)
		return
	}
	token := must(policy.SignSession(claims, did.EdDSA, f.origin.Signer(f.origin.Public().URL())))
	f.tokens[token] = t.Claims
	writeJSON(w, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": claims.Expiry - claims.IssuedAt})
}

func (f *fake) replacedKeys() bool {
	first := f.records[0].Body().(*record.Registry)
	return slices.ContainsFunc(f.records, func(rec *record.Record) bool {
		return aboutSettings(rec) && !slices.Equal(rec.Body().(*record.Registry).LogKeys, first.LogKeys)
	})
}

// aboutSettings: what the log's keys and the settings in force follow from.
func aboutSettings(rec *record.Record) bool { return rec.Type() == record.TypeRegistry }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, code, detail string) {
	w.WriteHeader(status)
	writeJSON(w, map[string]any{"error": map[string]string{"code": code, "detail": detail}})
}

func (f *fake) count(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// user is a new home with a default identity.
func user(t testing.TB) (*Client, Identity) {
	t.Helper()
	home := OpenHome(filepath.Join(t.TempDir(), "home"))
	id, err := home.CreateIdentity("", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return clientIn(home), id
}

// atOnce is for clients that need not wait.
func atOnce(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func clientIn(home Home) *Client {
	return New(Config{Home: home, Now: time.Now, Rand: rand.Reader, Sleep: atOnce, Version: "test"})
}

// loggedIn is a registry, and a client of its admin that has logged in.
func loggedIn(t testing.TB) (*fake, *Client, *Registry) {
	t.Helper()
	c, id := user(t)
	f := newFake(t, id)
	if _, err := c.Login(t.Context(), f.server.URL, ""); err != nil {
		t.Fatal(err)
	}
	return f, c, must(c.Open(""))
}

// stranger is a client that pinned f and whose DID is no member there.
func stranger(t testing.TB, f *fake) (*Client, Identity) {
	t.Helper()
	c, id := user(t)
	if _, err := c.Login(t.Context(), f.server.URL, ""); err != nil {
		t.Fatal(err)
	}
	return c, id
}

func crateSubject(name, version string) record.Subject {
	return must(record.VersionSubject(record.KindCrate, name, version))
}

func cidOf(data string) storage.CID { return storage.CIDOf([]byte(data)) }

// TestMain lets cargo run this very binary as its credential provider.
func TestMain(m *testing.M) {
	if home := os.Getenv("ALN_TEST_PROVIDER_HOME"); home != "" && len(os.Args) == 2 && os.Args[1] == "--cargo-plugin" {
		if err := clientIn(OpenHome(home)).Provide(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// flip returns data with one bit in its middle changed.
func flip(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

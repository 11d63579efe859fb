package integration

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// liar is a registry that signs and serves whatever it was told to log: it asks
// no rule. Its log, tiles, proofs and checkpoints are in perfect order.
type liar struct {
	t      testing.TB
	server *httptest.Server

	origin, admin did.PrivateKey
	logKey        translog.LogKey
	genesis       *record.Record
	// member is the admin's own member record.
	member *record.Record

	mu      sync.Mutex
	now     time.Time
	entries [][]byte
	records []*record.Record
	hashes  translog.Memory
	blobs   map[string][]byte // crates by name@version
	// age is how long ago checkpoints say that they were cosigned; alter changes them.
	age   time.Duration
	alter func(note []byte) []byte
}

func newLiar(t testing.TB) *liar {
	t.Helper()
	l := &liar{t: t, now: time.Now().UTC().Truncate(time.Second).Add(-time.Hour), blobs: map[string][]byte{}}
	l.origin, l.admin = newKey(t), newKey(t)
	private, _ := newKey(t).Ed25519()
	logKey, err := translog.NewLogKey(private)
	if err != nil {
		t.Fatal(err)
	}
	l.logKey = logKey
	l.server = httptest.NewServer(l)
	t.Cleanup(l.server.Close)
	l.begin()
	return l
}

func newKey(t testing.TB) did.PrivateKey {
	t.Helper()
	key, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// begin logs entries 0 and 1.
func (l *liar) begin() {
	l.t.Helper()
	public, err := did.NewEd25519PublicKey(l.logKey.Public())
	if err != nil {
		l.t.Fatal(err)
	}
	l.genesis = l.log(l.origin, record.RegistrySubject(), &record.Registry{
		DID: didOf(l.origin), LogKeys: []string{public.Multikey()}, IndexURLs: []string{"sparse+" + l.server.URL + "/index/"},
		Admins: []did.DID{didOf(l.admin)}, AdminThreshold: 1, ReleaseK: 2,
		TierDefault:          record.TierDefault{CoreStakeholder: record.Allow, Collaborator: record.Deny, Guest: record.Deny},
		DependencyRegistries: []string{}, PrivateNames: []string{},
	}, nil, nil)
	l.member = l.admit(l.admin, nil, "publisher")
}

func didOf(k did.PrivateKey) did.DID { return k.Public().DID() }

func idOf(r *record.Record) record.ID {
	if r == nil {
		return ""
	}
	return r.ID()
}

// log signs a record and enters it, a minute after the last.
func (l *liar) log(signer did.PrivateKey, s record.Subject, body record.Body, prev, by *record.Record, content ...[]byte) *record.Record {
	l.t.Helper()
	draft := record.Draft{Subject: s, Body: body, Header: record.Header{
		Registry: didOf(l.origin), IssuedAt: l.now, Expires: l.now.Add(time.Hour), Prev: idOf(prev), By: idOf(by),
	}}
	if len(content) > 0 {
		draft.Digest = sha256.Sum256(content[0])
	}
	r, err := record.Sign(draft, signer.Signer(signer.Public().URL()))
	if err != nil {
		l.t.Fatal(err)
	}
	l.enter(r)
	return r
}

// enter appends an entry for r, whatever r is.
func (l *liar) enter(r *record.Record) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	entry, err := translog.Entry{Time: l.now, Record: r.CID()}.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.hashes.Append(translog.LeafHash(entry)); err != nil {
		l.t.Fatal(err)
	}
	l.entries, l.records = append(l.entries, entry), append(l.records, r)
	l.now = l.now.Add(time.Minute)
}

// rewind forgets all entries from size on.
func (l *liar) rewind(size int) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries, l.records, l.hashes = l.entries[:size], l.records[:size], translog.Memory{}
	for _, entry := range l.entries {
		if err := l.hashes.Append(translog.LeafHash(entry)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *liar) admit(who did.PrivateKey, prev *record.Record, roles ...string) *record.Record {
	l.t.Helper()
	return l.log(l.admin, record.MemberSubject(didOf(who)), &record.Member{
		Roles: append([]string{}, roles...), Tier: "collaborator", StakeholderAddrs: []string{},
	}, prev, l.genesis)
}

func (l *liar) subject(name, version string) record.Subject {
	l.t.Helper()
	s, err := record.VersionSubject(record.KindCrate, name, version)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// offer serves content as the crate of that version, name@version.
func (l *liar) offer(version string, content []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blobs[version] = content
}

// publish logs a publish record and serves content as that version's crate.
func (l *liar) publish(signer did.PrivateKey, name, version string, prev, by *record.Record) *record.Record {
	l.t.Helper()
	content := []byte("the bytes of " + name + " " + version)
	l.offer(name+"@"+version, content)
	return l.log(signer, l.subject(name, version), &record.Publish{Evidence: []storage.CID{}}, prev, by, content)
}

func (l *liar) yank(signer did.PrivateKey, name, version string, yanked bool, prev, by *record.Record) *record.Record {
	l.t.Helper()
	return l.log(signer, l.subject(name, version), &record.Yank{Yanked: yanked}, prev, by)
}

func (l *liar) own(signer did.PrivateKey, name string, add, remove []did.DID, prev, by *record.Record) *record.Record {
	l.t.Helper()
	s, err := record.ArtifactSubject(record.KindCrate, name)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.log(signer, s, &record.Own{Add: append([]did.DID{}, add...), Remove: append([]did.DID{}, remove...)}, prev, by)
}

// ServeHTTP answers the routes that clients ask of a registry.
func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body, err := l.answer(w.Header(), r.URL.Path)
	if r.URL.Path == "/v1/session" {
		body, err = l.session(r.PostFormValue("assertion"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Write(body)
}

// session gives whoever asks what they ask for, signed as a registry does.
func (l *liar) session(assertion string) ([]byte, error) {
	t, err := policy.ParseAssertion(assertion)
	if err != nil {
		return nil, err
	}
	claims, denial := policy.Admit(t.Claims, policy.Holder{DID: t.Claims.Subject, Member: true}, didOf(l.origin), "a-session-of-the-liar", time.Now())
	if denial != nil {
		return nil, denial
	}
	token, err := policy.SignSession(claims, did.EdDSA, l.origin.Signer(l.origin.Public().URL()))
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": claims.Expiry - claims.IssuedAt})
}

func (l *liar) answer(header http.Header, path string) ([]byte, error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "/log/checkpoint":
		return l.note()
	case strings.HasPrefix(path, "/log/"):
		return l.tile(strings.TrimPrefix(path, "/log/"))
	case path == "/v1/settings":
		return json.Marshal(map[string]any{"record": l.genesis.ID(), "document_record": nil, "settings": l.genesis.Body()})
	case strings.HasPrefix(path, "/v1/records/") && len(parts) == 3:
		for i, r := range l.records {
			if r.CID().String() == parts[2] || string(r.ID()) == parts[2] {
				header.Set("ALN-Log-Index", fmt.Sprint(i))
				return r.Envelope(), nil
			}
		}
	case strings.HasPrefix(path, "/v1/artifacts/crate/") && strings.HasSuffix(path, "/bundle"):
		return l.bundle()
	case strings.HasPrefix(path, "/api/v1/crates/") && strings.HasSuffix(path, "/download"):
		if content, ok := l.blobs[parts[3]+"@"+parts[4]]; ok {
			return content, nil
		}
	case strings.HasPrefix(path, "/index/"):
		return l.index(parts[len(parts)-1])
	}
	return nil, fmt.Errorf("there is no %s", path)
}

func (l *liar) note() ([]byte, error) {
	root, err := l.hashes.Root()
	if err != nil {
		return nil, err
	}
	cp := translog.Checkpoint{Origin: string(didOf(l.origin)), Size: l.hashes.Size(), Root: root}
	note, err := translog.Sign(cp, []translog.LogKey{l.logKey}, time.Now().Add(-l.age))
	if err == nil && l.alter != nil {
		note = l.alter(note)
	}
	return note, err
}

// cosigned makes checkpoints that were cosigned that long ago, altered by alter
// where it is not nil.
func (l *liar) cosigned(age time.Duration, alter func(note []byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.age, l.alter = age, alter
}

func (l *liar) tile(path string) ([]byte, error) {
	tile, err := translog.ParseTilePath(path)
	if err != nil {
		return nil, err
	}
	if !tile.Entries {
		return translog.ReadTile(tile, l.hashes.Size(), &l.hashes)
	}
	from, to, err := tile.EntryRange(l.hashes.Size())
	if err != nil {
		return nil, err
	}
	var bundle []byte
	for _, entry := range l.entries[from:to] {
		if bundle, err = translog.AppendBundle(bundle, entry); err != nil {
			return nil, err
		}
	}
	return bundle, nil
}

// bundle is the whole log: more than is needed, and nothing is held back.
func (l *liar) bundle() ([]byte, error) {
	type item struct {
		Index       int      `json:"index"`
		Envelope    []byte   `json:"envelope"`
		Attachments [][]byte `json:"attachments"`
	}
	var items []item
	for i, r := range l.records {
		items = append(items, item{i, r.Envelope(), [][]byte{}})
	}
	return json.Marshal(map[string]any{"records": items})
}

// index lists what the log's records say, wrong ones too.
func (l *liar) index(name string) ([]byte, error) {
	var lines []*cargo.Line
	for i, r := range l.records {
		if r.Subject().Name() != name {
			continue
		}
		switch body := r.Body().(type) {
		case *record.Publish:
			entry, err := translog.ParseEntry(l.entries[i])
			if err != nil {
				return nil, err
			}
			lines = append(lines, &cargo.Line{
				Name: name, Vers: r.Subject().Version(), Deps: []cargo.Dep{}, Cksum: storage.CIDFromDigest(r.Digest()).Hex(),
				Features: map[string][]string{}, Pubtime: entry.Time.Format(time.RFC3339), V: 1,
			})
		case *record.Yank:
			for _, line := range lines {
				if line.Vers == r.Subject().Version() {
					line.Yanked = body.Yanked
				}
			}
		}
	}
	var file []byte
	for _, line := range lines {
		file = append(file, line.Marshal()...)
	}
	return file, nil
}

// reader is somebody who logged in to the liar.
func (l *liar) reader() (u *user, folder string) {
	l.t.Helper()
	u = newUser(l.t)
	folder = u.crate("app", "0.1.0", "", "")
	must(l.t, u.aln(folder, "login", l.server.URL))
	return u, folder
}

// wantFailedCheck holds verify to the first check that fails, and its reason.
func wantFailedCheck(t *testing.T, r result, check, reason string) {
	t.Helper()
	if r.status != 1 {
		t.Fatalf("status %d, not 1:\n%s", r.status, r)
	}
	for line := range strings.Lines(r.stdout) {
		if rest, failed := strings.CutPrefix(strings.TrimSpace(line), "FAIL"); failed {
			fields := strings.Fields(rest)
			if fields[0] != check || !strings.Contains(rest, reason) {
				t.Fatalf("failed for another reason than %s (%s):\n%s", check, reason, r)
			}
			return
		}
	}
	t.Fatalf("names no failed check:\n%s", r)
}
